"""The table of `neurojax.penalties`."""

import numpy as np

from neurojax import penalties

from ._entry import Entry, normal, number, others, positive


def _code():
    return {"code": normal(6), "strength": number(0.3)}


def _thresholded():
    return {"v": normal(6), "t": number(0.3)}


def _step():
    return {"v": normal(6), "step_size": number(0.7), "strength": number(0.3)}


def _of_code(name: str, build, arguments=_code) -> list[Entry]:
    """Return entries for the value of a penalty, and for its gradient and support."""

    def value(code, **settings):
        return build(**settings).value(code)

    def gradient(code, **settings):
        penalty = build(**settings)
        return penalty.gradient(code), penalty.support(code)

    name, names = f"penalties.{name}", tuple(arguments())
    return [
        Entry(name, value, arguments, "value", differentiable=names),
        Entry(name, gradient, arguments, "gradient", differentiable=names),
    ]


def _prox(name: str, build, arguments=_step) -> Entry:
    def prox(v, step_size, **settings):
        return build(**settings).prox(v, step_size)

    return Entry(f"penalties.{name}", prox, arguments, "prox", differentiable=tuple(arguments()))


def _scaled():
    return {"code": normal(6), "strength": number(0.3), "scale": number(1.5)}


def _scaled_step():
    return _step() | {"scale": number(1.5)}


def _elastic():
    return {"code": normal(6), "l1": number(0.3), "l2": number(0.1)}


def _elastic_step():
    return {"v": normal(6), "step_size": number(0.7), "l1": number(0.3), "l2": number(0.1)}


def _rounded():
    return {"code": normal(6), "strength": number(0.3), "epsilon": number(0.1)}


def _groups(strength):
    return penalties.GroupL2(strength, 2)


def _sparse_groups(l1, l2):
    return penalties.SparseGroupL2(l1, l2, 2)


def _curved():
    return _code() | {"gamma": number(3.5)}


def _curved_step():
    return _step() | {"gamma": number(3.5)}


def _sorted():
    return {"code": normal(6), "strengths": _strengths()}


def _sorted_step():
    return {"v": normal(6), "step_size": number(0.7), "strengths": _strengths()}


def _strengths():
    return np.linspace(0.6, 0.1, 6, dtype=np.float32)


def _tangent(code, strengths, direction):
    return penalties.SLOPE(strengths).tangent(code)(direction)


def _tied():
    return {"code": np.float32([1, -1, 0, 2, 0, 3]), "strengths": _strengths(), "direction": normal(6)}


def _top_k(code):
    penalty = penalties.TopK(2)
    return penalty.gradient(code), penalty.support(code)


def _as_code():
    return {"code": normal(6), "parameters": number(0.3)}


def _slack():
    return {"strength": positive(6), "code": normal(6), "pull": 0.3 * normal(6)}


def _helper(name: str, arguments, differentiable: str, call=None, **settings) -> Entry:
    call = call or getattr(penalties, name)
    return Entry(
        f"penalties.{name}", call, arguments, differentiable=tuple(differentiable.split()), **settings
    )


HELPERS = [
    _helper(
        "as_code", _as_code, "code parameters", lambda code, parameters: penalties.as_code(code, parameters)
    ),
    _helper("in_unit", lambda: {"strength": number(0.3), "unit": number(2)}, "strength unit"),
    _helper("largest_scale", lambda: {"pull": normal(6), "bound": number(0.3)}, "pull bound"),
    _helper("magnitude", lambda: {"x": normal(6)}, "x"),
    _helper(
        "nonnegative",
        lambda: {"value": positive(6)},
        "value",
        lambda value: penalties.nonnegative("value")(value),
    ),
    _helper(
        "positive", lambda: {"value": positive(6)}, "value", lambda value: penalties.positive("value")(value)
    ),
    _helper("ridge_slack", lambda: {"l2": positive(6), "lack": normal(6)}, "l2 lack"),
    _helper("slack", _slack, "strength code pull"),
    _helper(
        "step_times",
        lambda: {"step_size": number(0.7), "parameter": positive(6), "v": normal(6)},
        "step_size parameter",
    ),
    _helper("weighted_sum", lambda: {"strength": number(0.3), "terms": positive(6)}, "strength terms"),
]


def _log_gradient(code, strength):
    penalty = penalties.Log(strength)
    return penalty.gradient(code), penalty.support(code)


def _nonnegative_code():
    return {"code": positive(6), "strength": number(0.3)}


ENTRIES = [
    *_of_code("L1", penalties.L1),
    _prox("L1", penalties.L1),
    *_of_code("NonNegativeL1", penalties.NonNegativeL1, _nonnegative_code),
    _prox("NonNegativeL1", penalties.NonNegativeL1),
    *_of_code("ElasticNet", penalties.ElasticNet, _elastic),
    _prox("ElasticNet", penalties.ElasticNet, _elastic_step),
    *_of_code("L0", penalties.L0),
    _prox("L0", penalties.L0),
    *_of_code("Cauchy", penalties.Cauchy, _scaled),
    _prox("Cauchy", penalties.Cauchy, _scaled_step),
    *_of_code("GroupL2", _groups),
    _prox("GroupL2", _groups),
    Entry("penalties.Log", _log_gradient, _code, "gradient", differentiable=("code", "strength")),
    _prox("Log", penalties.Log),
    *_of_code("SmoothL1", penalties.SmoothL1, _rounded),
    *_of_code("Gaussian", penalties.Gaussian, _scaled),
    *_of_code("Quadratic", penalties.Quadratic),
    _prox("Quadratic", penalties.Quadratic),
    *_of_code("MCP", penalties.MCP, _curved),
    _prox("MCP", penalties.MCP, _curved_step),
    *_of_code("SCAD", penalties.SCAD, _curved),
    _prox("SCAD", penalties.SCAD, _curved_step),
    *_of_code("SparseGroupL2", _sparse_groups, _elastic),
    _prox("SparseGroupL2", _sparse_groups, _elastic_step),
    *_of_code("SLOPE", penalties.SLOPE, _sorted),
    _prox("SLOPE", penalties.SLOPE, _sorted_step),
    Entry("penalties.SLOPE", _tangent, _tied, "tangent", differentiable=("direction",)),
    Entry(
        "penalties.TopK",
        lambda v: penalties.TopK(2).prox(v, 1.0),
        lambda: {"v": normal(6)},
        "prox",
        differentiable=("v",),
    ),
    Entry("penalties.TopK", _top_k, lambda: {"code": normal(6)}, "gradient", differentiable=("code",)),
    *HELPERS,
    *(
        Entry(
            f"penalties.{name}_threshold",
            getattr(penalties, f"{name}_threshold"),
            _thresholded,
            differentiable=("v", "t"),
        )
        for name in ("soft", "hard", "cauchy", "log", "nonnegative_soft")
    ),
    *others(
        "penalties",
        "abstract class",
        "AbstractCertifiedPenalty AbstractPenalty AbstractProximalPenalty AbstractValuedPenalty",
    ),
    *others("penalties", "record", "Certificate"),
]
