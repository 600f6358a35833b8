"""The table of the decoders of `neurojax.neural_coding`."""

import jax
import jax.numpy as jnp
import numpy as np

from neurojax import convergence, neural_coding, penalties
from neurojax.proximal import Logistic

from ._entry import Entry, angles, classes, counts, key, normal, number, others

BINS = "The angle of a trial chooses its bin."
HOST = "It trains a network with fit, a host program."


def _trials():
    return {"responses": counts(12, 3), "angles_degrees": angles(12), "response": counts(3, seed=1)}


def _bins():
    return neural_coding.AngleBins(4)


def _decoded(decoder):
    """Return a function that fits a decoder to trials, and decodes others."""

    def call(responses, angles_degrees, response):
        fitted = decoder.fit(responses, angles_degrees)
        predicted = fitted.predict(response)
        if isinstance(fitted, neural_coding.AbstractProbabilisticDecoder):
            return predicted, fitted.log_probabilities(response)
        return predicted

    return call


def _posterior_mean(responses, angles_degrees, response):
    fitted = neural_coding.PoissonDecoder(_bins()).fit(responses, angles_degrees)
    return neural_coding.posterior_mean_degrees(fitted, response)


def _trials_and_response():
    return {"responses": counts(12, 3), "angles_degrees": angles(12), "response": counts(3, seed=1)}


def _fit_multinomial(xs, classes, strength):
    tol = 1e-12 if xs.dtype == np.float64 else 1e-5
    return neural_coding.fit_multinomial(xs, classes, 3, penalties.L1(strength), tol=tol)


def _multinomial_errors(xs, classes):
    value = np.array([[0.2, -0.1, -0.1], [0.3, 0.1, -0.4], [0.1, 0.0, -0.1]], np.float32)
    fit = convergence.Solution(value, np.array(0, np.int32), np.array(1, np.int32), np.array(0, np.float32))
    return neural_coding.multinomial_standard_errors(fit, xs, classes, 3, penalties.ElasticNet(0.0, 0.1))


def _multinomial_problem(xs, targets, value, strength):
    dtype = np.float64 if xs.dtype == np.float64 else np.float32  # in this machine's byte order
    smooth = Logistic(xs, targets, jnp.full(len(xs), 1 / len(xs), dtype))
    problem = neural_coding.MultinomialProblem(smooth, penalties.L1(strength), jnp.ones((), dtype))
    return problem.residual(value), problem.fixed_point(value)


def _network():
    return neural_coding.DecodingNetwork.from_sizes(3, 4, 2, key())


def _network_and_trials():
    return {"network": _network(), "responses": normal(6, 3), "targets": normal(6, 2)}


def _loss(network, responses, targets):
    objective = neural_coding.DecodingObjective(l1=0.1, l2=0.1)
    return objective(network, None, (responses, targets), jax.random.key(0))


def _row_space(network, responses, targets):
    trials = neural_coding.RowSpaceTrials.from_responses(network, responses, responses, targets)
    return neural_coding.RowSpaceNetwork.from_network(network, len(responses)), trials


def _row_space_network(network, responses, targets):
    reduced, trials = _row_space(network, responses, targets)
    return reduced(trials), reduced.input_square(trials), reduced.to_network(network, responses)


def _row_space_loss(network, responses, targets):
    reduced, trials = _row_space(network, responses, targets)
    objective = neural_coding.RowSpaceObjective(0.1)
    return objective.value_and_grad(reduced, None, trials, jax.random.key(0))


def _entry(name: str, call, arguments, case: str = "", differentiable: tuple[str, ...] = (), why: str = ""):
    return Entry(f"neural_coding.{name}", call, arguments, case, differentiable=differentiable, why=why)


def _tuned():
    return neural_coding.Tuned(neural_coding.SinCosRidge(), jnp.array([0.1, 1.0], jnp.float32), n_folds=3)


PROBABILITIES = ("responses", "response")
DECODERS = {
    "BumpRidge": lambda: neural_coding.BumpRidge(n_bumps=6),
    "GaussianDecoder": lambda: neural_coding.GaussianDecoder(_bins()),
    "MultinomialDecoder": lambda: neural_coding.MultinomialDecoder(_bins(), max_steps=20),
    "PoissonDecoder": lambda: neural_coding.PoissonDecoder(_bins(), smoothing_degrees=30.0),
    "PopulationVector": neural_coding.PopulationVector,
    "SinCosRidge": neural_coding.SinCosRidge,
    "Tuned": _tuned,
}
DERIVATIVES = {
    "GaussianDecoder": PROBABILITIES,
    "MultinomialDecoder": ("response",),
    "PoissonDecoder": PROBABILITIES,
    "PopulationVector": PROBABILITIES,
    "SinCosRidge": PROBABILITIES,
}


def _fit_and_decode(name):
    return lambda **arguments: _decoded(DECODERS[name]())(**arguments)


ENTRIES = [
    *(
        _entry(
            name,
            _fit_and_decode(name),
            _trials,
            "",
            DERIVATIVES.get(name, ()),
            why=BINS if name in DERIVATIVES else "The decoded angle is a choice from a grid.",
        )
        for name in DECODERS
    ),
    _entry(
        "posterior_mean_degrees", _posterior_mean, _trials_and_response, "", ("responses", "response"), BINS
    ),
    _entry(
        "fit_multinomial",
        _fit_multinomial,
        lambda: {"xs": normal(12, 4), "classes": classes(12, 3), "strength": number(0.05)},
        "",
        ("xs", "strength"),
    ),
    _entry(
        "multinomial_standard_errors",
        _multinomial_errors,
        lambda: {"xs": normal(12, 2), "classes": classes(12, 3)},
        "",
        ("xs",),
    ),
    _entry(
        "MultinomialProblem",
        _multinomial_problem,
        lambda: {
            "xs": normal(6, 4),
            "targets": jax.nn.one_hot(classes(6, 3), 3),
            "value": normal(4, 3),
            "strength": number(0.05),
        },
        "",
        ("xs", "value", "strength"),
    ),
    _entry(
        "DecodingNetwork",
        lambda network, responses: network(responses),
        lambda: {"network": _network(), "responses": normal(6, 3)},
        "",
        ("network", "responses"),
    ),
    _entry("DecodingObjective", _loss, _network_and_trials, "", ("network",)),
    _entry("RowSpaceNetwork", _row_space_network, _network_and_trials, "", ("network", "responses")),
    _entry(
        "RowSpaceObjective", _row_space_loss, _network_and_trials, why="It returns a gradient of its own."
    ),
    *others(
        "neural_coding", "host program", "NetworkClassifier NetworkRegression fit_decoding_network", HOST
    ),
    *others("neural_coding", "host program", "chance_level cross_validate stratified_folds"),
    *others("neural_coding", "record", "CrossValidation MeanWithError RowSpaceTrials"),
    *others(
        "neural_coding",
        "abstract class",
        "AbstractClassDecoder AbstractDecoder AbstractFittedDecoder AbstractProbabilisticDecoder",
    ),
]
