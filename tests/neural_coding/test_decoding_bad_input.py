"""What cannot be decoded: every message names the argument, what was expected and what came."""

import inspect
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import neural_coding as nc
from neurojax.neural_coding._network_decoders import FittedNetworkRegression
from neurojax.penalties import ElasticNet, Gaussian

pytestmark = pytest.mark.usefixtures("untyped")

RNG = np.random.default_rng(0)
ANGLES = np.tile(np.arange(4) * 90, 4)
RESPONSES = np.float32(RNG.normal(size=(16, 3)))
COUNTS = np.abs(RESPONSES)
BINS = nc.AngleBins(4, 360, -45)
FOLDS = nc.stratified_folds(ANGLES, 4, jax.random.key(0))
DECODERS = [
    nc.SinCosRidge(),
    nc.BumpRidge(),
    nc.PopulationVector(),
    nc.PoissonDecoder(BINS),
    nc.GaussianDecoder(BINS),
    nc.MultinomialDecoder(BINS),
    nc.Tuned(nc.SinCosRidge(), jnp.array([0.1, 1.0])),
    nc.NetworkRegression(),
    nc.NetworkClassifier(BINS),
]
every_decoder = pytest.mark.parametrize("decoder", DECODERS, ids=lambda d: type(d).__name__)


def assert_refused(message, call):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@every_decoder
def test_trials(decoder):
    holes = COUNTS.copy()
    holes[2, 1] = holes[3, 1] = np.nan
    holes[5, 2] = np.inf
    broken = "responses: expected finite numbers, got NaN or infinity in 2 of 3 neurons (the first: 1, 2)"
    assert_refused(broken, lambda: decoder.fit(holes, ANGLES))
    assert_refused(broken, lambda: nc.cross_validate(decoder, holes, ANGLES, FOLDS))
    assert_refused(
        "angles_degrees: expected 16 angles, one for each trial, on axis 0, got shape (15,)",
        lambda: decoder.fit(COUNTS, ANGLES[:15]),
    )
    assert_refused(
        "responses: expected 2 axes (trials neurons), got shape (16,)",
        lambda: decoder.fit(COUNTS[:, 0], ANGLES),
    )
    assert_refused(
        "responses: expected at least one trial and neuron, got (0, 3)",
        lambda: decoder.fit(COUNTS[:0], ANGLES[:0]),
    )
    assert_refused(
        "angles_degrees: expected finite numbers, got NaN or infinity",
        lambda: decoder.fit(COUNTS, np.where(ANGLES == 90, np.nan, ANGLES)),
    )
    assert_refused(
        "responses: expected real numbers, got dtype complex64",
        lambda: decoder.fit(COUNTS + 1j, ANGLES),
    )


@every_decoder
def test_weights(decoder):
    def fit(weights):
        return lambda: decoder.fit(COUNTS, ANGLES, weights=weights)

    assert_refused(
        "weights: expected 16 weights, one for each trial, on axis 0, got shape (3,)", fit(np.ones(3))
    )
    assert_refused("weights: expected a number ≥ 0, got", fit(-np.ones(16)))
    assert_refused("weights: expected finite numbers, got 16 that are NaN", fit(np.full(16, np.nan)))
    assert_refused("weights: expected a trial of weight > 0, got none", fit(np.zeros(16)))


@pytest.mark.parametrize("decoder", DECODERS[-2:], ids=lambda d: type(d).__name__)
def test_networks_take_whole_trials_alone(decoder):
    assert_refused(
        "weights: expected 0 or 1 for a network, got other numbers",
        lambda: decoder.fit(COUNTS, ANGLES, weights=np.full(16, 0.5)),
    )


@pytest.mark.parametrize("decoder", DECODERS[:5], ids=lambda d: type(d).__name__)
def test_responses_of_another_population(decoder):
    fitted = eqx.filter_jit(decoder.fit)(COUNTS, ANGLES)
    for other in (np.ones(1, np.float32), np.ones(4, np.float32)):
        assert_refused(
            f"response: expected the 3 neurons that the decoder was fitted to, got shape {other.shape}",
            lambda other=other: jax.eval_shape(fitted.predict, other),
        )


def test_responses_of_another_population_than_the_network_s():
    network = nc.DecodingNetwork.from_sizes(3, 2, 2, jax.random.key(0))
    fitted = FittedNetworkRegression(network)
    assert_refused(
        "response: expected the 3 neurons that the decoder was fitted to, got shape (4,)",
        lambda: fitted.predict(np.ones(4, np.float32)),
    )
    assert_refused(
        "n_hidden: expected a whole number ≥ 1, got 0",
        lambda: type(network).from_sizes(3, 0, 2, jax.random.key(0)),
    )


@pytest.mark.parametrize("decoder", [nc.PoissonDecoder(BINS), nc.GaussianDecoder(BINS, square_root=True)])
def test_counts_are_not_negative(decoder):
    message = (
        f"responses: expected counts or rates ≥ 0, got {RESPONSES.min():.4g}; for z-scored responses take"
    )
    assert_refused(message, lambda: decoder.fit(RESPONSES, ANGLES))
    assert_refused(message, lambda: nc.cross_validate(decoder, RESPONSES, ANGLES, FOLDS))
    tuned = nc.Tuned(decoder, jnp.array([1.0]), where=lambda d: d.prior_count)
    assert_refused(message, lambda: tuned.fit(RESPONSES, ANGLES))
    assert_refused(message, lambda: nc.cross_validate(tuned, RESPONSES, ANGLES, FOLDS))
    assert_refused(
        message,
        lambda: nc.chance_level(decoder, RESPONSES, ANGLES, FOLDS, nc.mean_circular_error, jax.random.key(0)),
    )
    fitted = eqx.filter_jit(decoder.fit)(COUNTS, ANGLES)
    assert_refused(
        "response: expected counts or rates ≥ 0, got -1", lambda: fitted.predict(np.float32([1, -1, 2]))
    )


def test_settings():
    bins = "n_bins: expected a whole number ≥ 2, got 1"
    assert_refused(bins, lambda: nc.AngleBins(1))
    assert_refused("n_bins: expected a whole number ≥ 2, got 2.5", lambda: nc.AngleBins(2.5))
    for make in (nc.SinCosRidge, nc.BumpRidge, nc.PopulationVector, lambda p: nc.AngleBins(4, p)):
        assert_refused("period_degrees: expected a number > 0, got -180", lambda make=make: make(-180))
    for function in (nc.wrap_degrees, lambda a, p: nc.circular_difference(a, a, p), nc.circular_mean):
        assert_refused(
            "period_degrees: expected a number > 0, got 0", lambda f=function: f(np.float32([1, 2]), 0)
        )
    assert_refused("strength: expected a number > 0, got 0", lambda: nc.SinCosRidge(strength=0))
    assert_refused("strength: expected a number > 0, got nan", lambda: nc.BumpRidge(strength=np.nan))
    assert_refused("n_bumps: expected a whole number ≥ 3, got 2", lambda: nc.BumpRidge(n_bumps=2))
    assert_refused("width_degrees: expected a number > 0, got 0.0", lambda: nc.BumpRidge(width_degrees=0))
    assert_refused("prior_count: expected a number > 0, got 0", lambda: nc.PoissonDecoder(BINS, 0))
    assert_refused(
        "smoothing_degrees: expected a number ≥ 0, got -1",
        lambda: nc.GaussianDecoder(BINS, smoothing_degrees=-1),
    )
    assert_refused("shrinkage: expected a number in [0, 1], got 1.5", lambda: nc.GaussianDecoder(BINS, 1.5))
    assert_refused(
        'target: expected "circle" or "degrees", got \'radians\'', lambda: nc.NetworkRegression("radians")
    )
    assert_refused("n_hidden: expected a whole number ≥ 1, got 0", lambda: nc.NetworkClassifier(BINS, 0))
    assert_refused("step_size: expected a number > 0, got 0", lambda: nc.NetworkRegression(step_size=0))
    assert_refused("n_steps: expected a whole number ≥ 1, got 0", lambda: nc.NetworkRegression(n_steps=0))
    assert_refused("l1: expected a number ≥ 0, got -1", lambda: nc.NetworkClassifier(l1=-1))
    assert_refused("l2: expected a number ≥ 0, got -1", lambda: nc.RowSpaceObjective(-1))
    assert_refused(
        "penalty: expected an instance of AbstractProximalPenalty, got Gaussian",
        lambda: nc.MultinomialDecoder(BINS, Gaussian(1.0, 1.0)),
    )


def test_tuned():
    one = jnp.array([1.0])
    assert_refused(
        "decoder: expected one that compiles, got NetworkRegression",
        lambda: nc.Tuned(nc.NetworkRegression(), one),
    )
    assert_refused(
        "decoder: expected an instance of AbstractDecoder, got the class SinCosRidge",
        lambda: nc.Tuned(nc.SinCosRidge, one),
    )
    assert_refused(
        "strengths: expected numbers that SinCosRidge takes, got 0: strength: expected a number > 0",
        lambda: nc.Tuned(nc.SinCosRidge(), jnp.array([0.0, 1.0])),
    )
    assert_refused(
        "strengths: expected 1 axes (strengths), got shape ()", lambda: nc.Tuned(nc.SinCosRidge(), 1.0)
    )
    assert_refused(
        "strengths: expected at least one, got none", lambda: nc.Tuned(nc.SinCosRidge(), jnp.zeros(0))
    )
    assert_refused(
        "n_folds: expected a whole number ≥ 2, got 1", lambda: nc.Tuned(nc.SinCosRidge(), one, n_folds=1)
    )
    assert_refused(
        "where: expected a leaf of GaussianDecoder for the strengths",
        lambda: nc.Tuned(nc.GaussianDecoder(BINS), one),
    )


def test_bins_around():
    irregular = np.array([0.0, 1, 17, 90, 200])
    assert_refused(
        "angles_degrees: expected at least two angles on an even division of 360°, got 0, 1, 17, 90, 200; "
        "for other angles make AngleBins(n_bins, period_degrees)",
        lambda: nc.AngleBins.around(irregular),
    )
    assert_refused(
        "expected at least two angles on an even division of 180°, got 30",
        lambda: nc.AngleBins.around(np.array([30, 210]), 180),
    )
    assert_refused("even division of 360°, got none", lambda: nc.AngleBins.around(np.zeros(0)))
    assert_refused(
        "angles_degrees: expected finite numbers, got 1", lambda: nc.AngleBins.around(np.array([0, np.nan]))
    )
    assert_refused(
        "angles_degrees: expected 1 axes (trials), got shape ()", lambda: nc.AngleBins.around(np.array(3.0))
    )
    assert_refused("period_degrees: expected a number > 0, got 0", lambda: nc.AngleBins.around(irregular, 0))
    assert_refused(
        "angles_degrees: expected known values, got a tracer",
        lambda: jax.jit(lambda a: nc.AngleBins.around(a).n_bins)(irregular),
    )


def test_splits():
    def validate(splits, decoder=nc.SinCosRidge(), angles=ANGLES):  # noqa: B008
        return lambda: nc.cross_validate(decoder, RESPONSES, angles, splits)

    a, b = np.arange(8), np.arange(8, 16)
    assert_refused(
        "n_folds: expected at most 16, the number of trials, got 17",
        lambda: nc.stratified_folds(ANGLES, 17, jax.random.key(0)),
    )
    assert_refused(
        "n_folds: expected a whole number ≥ 2, got 1",
        lambda: nc.stratified_folds(ANGLES, 1, jax.random.key(0)),
    )
    assert_refused("splits: expected at least 2 folds, got 1", validate([(a, b)]))
    assert_refused(
        "splits: expected trials to train on and to test in each fold, got 8 and 0 in fold 1; are there "
        "fewer trials (16)",
        validate([(a, b), (b, a[:0])]),
    )
    assert_refused(
        "splits: expected numbers of trials, 0 to 15, got 1 to 16", validate([(a, b), (a + 1, b + 1)])
    )
    assert_refused(
        "splits: expected fold 1 to test other trials than it trains on", validate([(a, b), (b, b[:2])])
    )
    assert_refused(
        "splits: expected each trial in one test set, got trial 8 in 2", validate([(a, b), (a, b[:1])])
    )
    is_first = np.arange(16) < 8
    assert_refused(
        "splits: expected numbers of trials, integers, got dtype bool",
        validate([(is_first, ~is_first), (~is_first, is_first)]),
    )
    assert_refused(
        "splits: expected each trial once in a training or test set, got more in fold 0",
        validate([(np.r_[a, a], b), (b, a)]),
    )
    assert_refused(
        "decoder: expected an instance of AbstractDecoder, got the class SinCosRidge",
        validate([(a, b), (b, a)], nc.SinCosRidge),
    )
    assert_refused(
        "n_permutations: expected a whole number ≥ 1, got 0",
        lambda: nc.chance_level(
            nc.SinCosRidge(),
            RESPONSES,
            ANGLES,
            FOLDS,
            nc.mean_circular_error,
            jax.random.key(0),
            n_permutations=0,
        ),
    )


@pytest.mark.parametrize("is_tuned", [False, True])
def test_a_class_missing_from_a_training_set(is_tuned):
    decoder = nc.GaussianDecoder(BINS, 0.5)
    if is_tuned:
        decoder = nc.Tuned(decoder, jnp.array([0.5]), where=lambda d: d.shrinkage)
    order = np.argsort(ANGLES, kind="stable")
    assert_refused(
        "splits: expected every class in the training set of each fold, got none of bin 0 (0°) in fold 0 "
        "(trials in all: 4)",
        lambda: nc.cross_validate(
            decoder, RESPONSES, ANGLES, [(order[4:], order[:4]), (order[:4], order[4:])]
        ),
    )
    # A class that no fold tests may be missing.
    odd, even = order[4::2], order[5::2]
    found = nc.cross_validate(decoder, RESPONSES, ANGLES, [(odd, even), (even, odd)])
    assert np.all(found.log_probabilities[order[4:], 0] == -np.inf)


def test_neurons_that_do_not_vary():
    flat = np.ones((16, 3), np.float32)
    assert_refused(
        "responses: expected neurons that vary, got 3 that do not",
        lambda: nc.cross_validate(nc.SinCosRidge(), flat, ANGLES, FOLDS),
    )


def test_ridge_and_multinomial():
    xs, ys = RESPONSES, RESPONSES[:, :2]
    assert_refused(
        "ys: expected 16 rows, one for each sample, on axis 0, got shape (15, 2)",
        lambda: nc.ridge(xs, ys[:15], 1.0),
    )
    assert_refused("strength: expected a number > 0, got 0", lambda: nc.ridge(xs, ys, 0))
    assert_refused(
        'form: expected "primal", "dual" or None, got \'kernel\'',
        lambda: nc.ridge(xs, ys, 1.0, form="kernel"),
    )
    assert_refused("weights: expected a number ≥ 0, got", lambda: nc.ridge(xs, ys, 1.0, weights=-np.ones(16)))
    assert_refused(
        "weights: expected 16 weights, one for each sample,",
        lambda: nc.ridge(xs, ys, 1.0, weights=np.ones(3)),
    )
    assert_refused(
        "xs: expected real numbers, got dtype complex",
        lambda: nc.ridge(np.ones((16, 3), complex), ys, 1.0),
    )
    classes, penalty = np.arange(16) % 3, ElasticNet(0.0, 1.0)
    assert_refused(
        "classes: expected 0 to 1, got 0 to 2", lambda: nc.fit_multinomial(xs, classes, 2, penalty)
    )
    assert_refused(
        "classes: expected 0 to 2, got -1 to 1", lambda: nc.fit_multinomial(xs, classes - 1, 3, penalty)
    )
    assert_refused(
        "classes: expected 16 classes, one for each sample,",
        lambda: nc.fit_multinomial(xs, classes[:3], 3, penalty),
    )
    assert_refused(
        "n_classes: expected a whole number ≥ 2, got 1", lambda: nc.fit_multinomial(xs, classes, 1, penalty)
    )
    assert_refused(
        "penalty: expected an instance of AbstractProximalPenalty",
        lambda: nc.fit_multinomial(xs, classes, 3, Gaussian(1.0, 1.0)),
    )
    assert_refused(
        "weights: expected a number ≥ 0",
        lambda: nc.fit_multinomial(xs, classes, 3, penalty, weights=-np.ones(16)),
    )


def test_units_of_angles_are_in_the_names():
    """Degrees and radians cannot be told apart by their values; the periods of gratings are in pixels."""
    checked = 0
    for name in nc.__all__:
        public = getattr(nc, name)
        members = (
            [public] + [m for n, m in vars(public).items() if not n.startswith("_")]
            if inspect.isclass(public)
            else [public]
        )
        for member in filter(callable, members):
            for argument in inspect.signature(getattr(member, "__func__", member)).parameters:
                if re.search("angle|period_|orientation|direction|smoothing|phase|theta", argument):
                    checked += 1
                    assert argument.endswith("_degrees"), f"{name}: {argument}"
    assert checked > 30
