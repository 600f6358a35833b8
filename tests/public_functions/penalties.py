"""The table of `neurojax.penalties`."""

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
    *(
        Entry(
            f"penalties.{name}_threshold",
            getattr(penalties, f"{name}_threshold"),
            _thresholded,
            differentiable=("v", "t"),
        )
        for name in ("soft", "hard", "cauchy", "log", "nonnegative_soft")
    ),
    *others("penalties", "abstract class", "AbstractPenalty AbstractProximalPenalty AbstractValuedPenalty"),
]
