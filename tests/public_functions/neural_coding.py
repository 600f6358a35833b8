"""The table of `neurojax.neural_coding`: stimuli, tuning, measures and encoders; decoders have their own."""

import jax
import numpy as np

from neurojax import neural_coding

from ._decoders import ENTRIES as DECODERS
from ._entry import Entry, angles, classes, counts, key, normal, number, others, positive

SHAPE = (7, 7)
EDGES = "The edges of a square wave have no derivative."
BINS = "An angle chooses its bin."
KNOTS = "Curves are joined linearly, and have a kink at the angles of this entry."
VON_MISES = ("preferred_degrees", "concentration", "baseline", "amplitude", "opposite_amplitude")


def _entry(name: str, call, arguments, case: str = "", differentiable: tuple[str, ...] = (), why: str = ""):
    return Entry(f"neural_coding.{name}", call, arguments, case, differentiable=differentiable, why=why)


def _plain(name: str, arguments, differentiable: tuple[str, ...] = (), why: str = "") -> Entry:
    """Return the entry of a function that is called with its arguments alone."""
    return _entry(name, getattr(neural_coding, name), arguments, "", differentiable, why)


def _pair():
    return {"predicted_degrees": angles(6), "true_degrees": positive(6)}


def _labels():
    return {"predicted": classes(6, 3), "true": classes(6, 2)}


def _curves():
    return {"curves": positive(4, 8), "angles_degrees": angles(8)}


def _responses():
    return {"responses": counts(12, 4), "angles_degrees": angles(12)}


def _repeats():
    return {"responses": counts(3, 8, 4)}


def _labelled():
    return {"responses": counts(12, 4), "labels": classes(12, 3)}


def _rates():
    return {"rates": positive(10, 4), "counts": counts(10, 4)}


def _tuning():
    return {name: positive(4, seed=i) for i, name in enumerate(VON_MISES)}


def _von_mises(angle, **parameters):
    tuning = neural_coding.VonMises(**parameters)
    return jax.vmap(lambda one: neural_coding.von_mises(angle, one))(tuning)


def _grating(direction_degrees, period, phase_degrees, contrast):
    return neural_coding.grating(
        direction_degrees, SHAPE, period=period, phase_degrees=phase_degrees, contrast=contrast
    )


def _gabor(orientation_degrees, period, width_across):
    return neural_coding.gabor_filter(orientation_degrees, SHAPE, period=period, width_across=width_across)


def _gabor_bank(orientations_degrees, periods):
    return neural_coding.gabor_bank(SHAPE, orientations_degrees=orientations_degrees, periods=periods)


def _center_surround(center_width, surround_width):
    return neural_coding.center_surround(SHAPE, center_width=center_width, surround_width=surround_width)


def _bins():
    return neural_coding.AngleBins(4)


def _readout(kind):
    return lambda: {"readout": kind.from_shape((2, 3, 3), 4, key()), "features": normal(2, 3, 3)}


def _encoder(**settings):
    return neural_coding.ConvolutionalEncoder.from_filters(
        jax.numpy.asarray(normal(2, 3, 3)), SHAPE, 4, key(), **settings
    )


def _of_encoder(encoder, image):
    return encoder(image)


def _factorized():
    return {"encoder": _encoder(readout="factorized", activation=jax.nn.relu), "image": normal(*SHAPE)}


def _energy_model():
    return {"encoder": neural_coding.GaborEnergy.random(SHAPE, 3, key()), "image": normal(*SHAPE)}


def _encoding_loss(loss):
    def call(encoder, images, responses):
        objective = neural_coding.EncodingObjective(loss, l1=0.1, l2=0.1)
        return objective(encoder, None, (images, responses), jax.random.key(0))

    return call


def _encoding_data():
    encoder = _encoder(output=jax.nn.softplus)
    return {"encoder": encoder, "images": normal(5, *SHAPE), "responses": counts(5, 4)}


def _neuron(weights, bias, x):
    model = neural_coding.LinearNonlinearPoisson(weights, bias, "softplus")
    return model(x), model.log_rate(x)


def _tol(array):
    """Return the tolerance: in double precision one at which finite differences of fits mean something."""
    return 1e-12 if array.dtype == np.float64 else None


def _fit_poisson(xs, counts, strength):
    smoothness = neural_coding.Smoothness(strength, (2, 2))
    return neural_coding.fit_poisson(xs, counts, smoothness=smoothness, tol=_tol(xs))


def _fit_sparse_poisson(xs, counts, strength):
    from neurojax import penalties

    return neural_coding.fit_poisson(xs, counts, penalties.L1(strength), tol=_tol(xs))


def _poisson_errors(xs, counts):
    model = neural_coding.LinearNonlinearPoisson(np.array([0.2, -0.1, 0.3], np.float32), number(0.5))
    status, n_steps = np.array(0, np.int32), np.array(1, np.int32)
    fit = neural_coding.PoissonFit(model, status, n_steps, number(0))
    return neural_coding.poisson_standard_errors(fit, xs, counts)


def _von_mises_errors(curve, angles_degrees):
    fit = neural_coding.fit_von_mises(curve, angles_degrees)
    return neural_coding.von_mises_standard_errors(fit, curve, angles_degrees)


def _neuron_data():
    return {"xs": normal(12, 4), "counts": counts(12), "strength": number(0.1)}


def _smoothness(strength, weights):
    term = neural_coding.Smoothness(strength, (2, 3))
    return term.value(weights), term.gradient(weights), term.differences(weights)


def _simulate(key):
    return neural_coding.simulate(key, n_neurons=4, n_trials=6, n_shared=2)


def _simulate_counts(key):
    return neural_coding.simulate(key, n_neurons=4, n_trials=6, n_shared=2, responses="poisson")


def _draw(population, key, angles_degrees):
    return population.draw(key, angles_degrees)


def _population():
    return {"population": _simulate(key()), "key": key(1), "angles_degrees": angles(5)}


CURVES = ("curves",)
MEASURES_OF_CURVES = {
    "circular_variance": CURVES,
    "direction_selectivity": CURVES,
    "orientation_selectivity": CURVES,
    "preferred_direction": CURVES,
    "preferred_orientation": CURVES,
    "peak_angle": (),
}

ENTRIES = [
    *DECODERS,
    # Angles.
    _plain("wrap_degrees", lambda: {"angles_degrees": normal(6)}, ("angles_degrees",)),
    _plain(
        "circular_difference",
        lambda: {"first_degrees": normal(6), "second_degrees": normal(6, seed=1)},
        ("first_degrees", "second_degrees"),
    ),
    _plain("circular_errors", _pair, tuple(_pair())),
    _plain("mean_circular_error", _pair, tuple(_pair())),
    _plain("median_circular_error", _pair, tuple(_pair())),
    _plain("circular_mean", lambda: {"angles_degrees": positive(6)}, ("angles_degrees",)),
    _entry(
        "circular_mean",
        lambda angles_degrees, weights: neural_coding.circular_mean(angles_degrees, weights=weights),
        lambda: {"angles_degrees": positive(6), "weights": positive(6, seed=1)},
        "weighted",
        ("angles_degrees", "weights"),
    ),
    _plain(
        "circular_smooth",
        lambda: {"curves": positive(4, 8), "width_bins": number(1.5)},
        ("curves", "width_bins"),
    ),
    _entry(
        "AngleBins",
        lambda angles_degrees: _bins().index(angles_degrees),
        lambda: {"angles_degrees": angles(12)},
        why="The index of a bin is a whole number.",
    ),
    # Stimuli and filters.
    _entry(
        "grating",
        _grating,
        lambda: {
            "direction_degrees": number(30),
            "period": number(4),
            "phase_degrees": number(10),
            "contrast": number(0.5),
        },
        "",
        ("direction_degrees", "period", "phase_degrees", "contrast"),
    ),
    _entry(
        "gabor_filter",
        _gabor,
        lambda: {"orientation_degrees": number(30), "period": number(4), "width_across": number(2)},
        "",
        ("orientation_degrees", "period", "width_across"),
    ),
    _entry(
        "center_surround",
        _center_surround,
        lambda: {"center_width": number(1), "surround_width": number(2)},
        "",
        ("center_width", "surround_width"),
    ),
    Entry(
        "neural_coding.gabor_bank",
        _gabor_bank,
        lambda: {"orientations_degrees": angles(4, 180), "periods": np.array([4, 6], np.float32)},
        kind="eager",
        why="It lays out its filters on the host.",
    ),
    _entry(
        "course_grating",
        neural_coding.course_grating,
        lambda: {"angle_degrees": number(30)},
        why=EDGES,
    ),
    _entry(
        "course_gratings",
        lambda angles_degrees: neural_coding.course_gratings(angles_degrees, 0.1, is_patch=True),
        lambda: {"angles_degrees": angles(3)},
        why=EDGES,
    ),
    _entry("course_filters", neural_coding.course_filters, dict, why="It takes no arguments."),
    # Tuning curves.
    _entry(
        "tuning_curves",
        lambda responses, angles_degrees: neural_coding.tuning_curves(responses, angles_degrees, _bins()),
        _responses,
        "",
        ("responses",),
        BINS,
    ),
    _entry(
        "bin_responses",
        lambda responses, angles_degrees: neural_coding.bin_responses(responses, angles_degrees, _bins()),
        _responses,
        "",
        ("responses",),
        BINS,
    ),
    *(
        _plain(name, _curves, differentiable, KNOTS if differentiable else "It is one of the given angles.")
        for name, differentiable in MEASURES_OF_CURVES.items()
    ),
    _entry(
        "von_mises",
        _von_mises,
        lambda: _tuning() | {"angle": number(30)},
        "",
        (*VON_MISES, "angle"),
    ),
    _entry(
        "fit_von_mises",
        lambda curve, angles_degrees: neural_coding.fit_von_mises(curve, angles_degrees, max_steps=5),
        lambda: {"curve": positive(8), "angles_degrees": angles(8)},
        why="The fit is a constant.",
    ),
    _entry(
        "fit_von_mises_batch",
        lambda curves, angles_degrees: neural_coding.fit_von_mises_batch(curves, angles_degrees, max_steps=5),
        _curves,
        why="The fit is a constant.",
    ),
    # Simulated populations.
    _entry("simulate", _simulate, lambda: {"key": key()}, why="It draws from a key alone."),
    _entry("simulate", _simulate_counts, lambda: {"key": key()}, "poisson", why="It draws from a key alone."),
    _entry("SimulatedPopulation", _draw, _population, "", ("angles_degrees",)),
    # Measures.
    _plain("bits_per_spike", _rates, ("rates",)),
    _plain("poisson_pseudo_r2", _rates, ("rates",), "Counts are whole numbers."),
    _plain("constant_neurons", lambda: {"responses": counts(12, 4)}, why="It returns truth values."),
    _entry(
        "confusion_matrix",
        lambda predicted, true: neural_coding.confusion_matrix(predicted, true, 3),
        _labels,
        why="It returns counts.",
    ),
    _plain("fraction_correct", _labels, why="A share has no derivative."),
    _plain(
        "response_correlation",
        lambda: {"predicted": normal(8, 4), "measured": normal(8, 4, seed=1)},
        ("predicted", "measured"),
    ),
    _plain("explainable_variance", _repeats, ("responses",)),
    _entry(
        "explainable_variance",
        lambda responses, labels: neural_coding.explainable_variance(responses, labels, 3),
        _labelled,
        "labelled",
        ("responses",),
    ),
    _entry(
        "feve",
        lambda predicted, responses, labels: neural_coding.feve(predicted, responses, labels=labels),
        lambda: {"predicted": positive(3, 4), **_labelled()},
        "labelled",
        ("predicted", "responses"),
    ),
    _plain(
        "feve",
        lambda: {"predicted": positive(8, 4), "responses": counts(3, 8, 4)},
        ("predicted", "responses"),
    ),
    _plain("split_half_reliability", lambda: _repeats() | {"key": key()}, ("responses",)),
    _plain("trial_to_trial_reliability", _repeats, ("responses",)),
    _plain("signal_correlations", lambda: {"tuning": positive(4, 8)}, ("tuning",)),
    _entry(
        "noise_correlations",
        lambda responses, labels: neural_coding.noise_correlations(responses, labels, 3),
        _labelled,
        "",
        ("responses",),
    ),
    _entry(
        "noise_correlations",
        lambda responses, labels: neural_coding.noise_correlations(responses, labels, 3, is_z_scored=True),
        lambda: {**_labelled(), "responses": positive(12, 4)},  # without ties, at which z-scores jump
        "z-scored",
        ("responses",),
    ),
    _plain("null_baseline", lambda: {"responses": counts(8, 4)}, ("responses",)),
    _plain("repeat_mean_baseline", _repeats, ("responses",)),
    Entry(
        "neural_coding.paired_mean_baseline",
        neural_coding.paired_mean_baseline,
        lambda: {"responses": counts(8, 4), "angles_degrees": angles(8)},
        kind="eager",
        why="It pairs stimuli by their angles on the host.",
    ),
    _plain(
        "linear_baseline",
        lambda: {"inputs": normal(8, 3), "responses": counts(8, 4), "new_inputs": normal(2, 3)},
        ("inputs", "responses", "new_inputs"),
    ),
    _plain(
        "ridge",
        lambda: {"xs": normal(8, 3), "ys": normal(8, 2), "strength": number(0.1)},
        ("xs", "ys", "strength"),
    ),
    _entry(
        "ridge",
        lambda xs, ys, strength: neural_coding.ridge(xs, ys, strength, form="dual"),
        lambda: {"xs": normal(8, 12), "ys": normal(8, 2), "strength": number(0.1)},
        "dual",
        ("xs", "ys", "strength"),
    ),
    _entry(
        "LinearMap",
        lambda weights, intercept, x: neural_coding.LinearMap(weights, intercept)(x),
        lambda: {"weights": normal(4, 2), "intercept": normal(2), "x": normal(4)},
        "",
        ("weights", "intercept", "x"),
    ),
    _entry(
        "lagged",
        lambda stimuli, trials: neural_coding.lagged(stimuli, 3, trials=trials),
        lambda: {"stimuli": normal(8, 2), "trials": np.sort(classes(8, 3))},
        "",
        ("stimuli",),
    ),
    # Encoders.
    *(
        _entry(
            kind.__name__,
            lambda readout, features: readout(features),
            _readout(kind),
            "",
            ("readout", "features"),
        )
        for kind in (neural_coding.DenseReadout, neural_coding.FactorizedReadout)
    ),
    _entry(
        "ConvolutionalEncoder",
        _of_encoder,
        lambda: {"encoder": _encoder(), "image": normal(*SHAPE)},
        "",
        ("encoder", "image"),
    ),
    _entry("ConvolutionalEncoder", _of_encoder, _factorized, "factorized", ("encoder", "image")),
    _entry("GaborEnergy", _of_encoder, _energy_model, "", ("encoder", "image")),
    *(
        _entry("EncodingObjective", _encoding_loss(loss), _encoding_data, loss, ("encoder",))
        for loss in ("squared", "poisson")
    ),
    _entry(
        "LinearNonlinearPoisson",
        _neuron,
        lambda: {"weights": normal(4), "bias": number(0.1), "x": normal(4)},
        "",
        ("weights", "bias", "x"),
    ),
    _entry("fit_poisson", _fit_poisson, _neuron_data, "", ("xs", "counts", "strength")),
    _entry("fit_poisson", _fit_sparse_poisson, _neuron_data, "sparse", ("xs", "counts", "strength")),
    _entry(
        "poisson_standard_errors",
        _poisson_errors,
        lambda: {"xs": normal(12, 3), "counts": counts(12)},
        "",
        ("xs", "counts"),
    ),
    _entry(
        "von_mises_standard_errors",
        _von_mises_errors,
        lambda: {"curve": positive(12), "angles_degrees": angles(12)},
        why="Its derivative is that at a fit held constant, which finite differences of the fit do not show.",
    ),
    _entry(
        "Smoothness",
        _smoothness,
        lambda: {"strength": number(0.5), "weights": normal(6)},
        "",
        ("strength", "weights"),
    ),
    *others("neural_coding", "abstract class", "AbstractEncoder AbstractReadout"),
    *others(
        "neural_coding",
        "record",
        "BinnedResponses ExplainedFraction PoissonErrors PoissonFit VonMises VonMisesFit",
    ),
]
