"""Cross-validation: no leakage, honest errors, folds, strengths as brute force picks them, chance."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from neurojax.convergence import Status
from neurojax.neural_coding import (
    AbstractDecoder,
    AbstractFittedDecoder,
    AngleBins,
    CrossValidation,
    GaussianDecoder,
    MultinomialDecoder,
    PopulationVector,
    SinCosRidge,
    Tuned,
    chance_level,
    circular_difference,
    cross_validate,
    mean_circular_error,
    median_circular_error,
    simulate,
    stratified_folds,
)
from neurojax.penalties import ElasticNet

RNG = np.random.default_rng(0)
BINS = AngleBins(4, 360, -45)
ANGLES = np.tile(np.arange(4) * 90, 12)
SIGNAL = np.cos(np.deg2rad(ANGLES[:, None] - RNG.uniform(0, 360, 10)))
RESPONSES = np.float32(SIGNAL + 1.5 * RNG.normal(size=(48, 10)))
FOLDS = stratified_folds(ANGLES, 4, jax.random.key(0))
TRACES = []


class Nearest(AbstractDecoder):
    """Answers what was shown in the most similar trial: on its training trials it is always right."""

    period_degrees: float = 360.0
    is_compiled: ClassVar[bool] = True

    def fit(self, responses, angles_degrees, *, weights=None):
        TRACES.append(np.shape(responses))
        weights = jnp.ones(len(responses)) if weights is None else weights
        return FittedNearest(jnp.asarray(responses), jnp.asarray(angles_degrees), weights)


class FittedNearest(AbstractFittedDecoder):
    responses: jax.Array
    angles_degrees: jax.Array
    weights: jax.Array
    period_degrees: float = 360.0

    def predict(self, response):
        distance = jnp.sum((self.responses - response) ** 2, axis=1)
        return self.angles_degrees[jnp.argmin(jnp.where(self.weights > 0, distance, jnp.inf))]


@eqx.filter_jit
def trained_answers(decoder, responses, angles):
    """Decode the trials that a decoder was fitted to."""
    return jax.vmap(decoder.fit(responses, angles).predict)(responses)


def test_a_memoriser_of_permuted_labels_is_at_chance():
    np.testing.assert_array_equal(trained_answers(Nearest(), RESPONSES, np.float32(ANGLES)), ANGLES)
    accuracy = chance_level(
        Nearest(),
        RESPONSES,
        ANGLES,
        FOLDS,
        lambda p, t, _: np.mean(p == t),
        jax.random.key(1),
        n_permutations=30,
    )
    assert accuracy.shape == (30,)
    # Binomial, but for what the folds leave of dependence.
    error = np.sqrt(0.25 * 0.75 / 48 / 30)
    assert abs(accuracy.mean() - 0.25) < 4 * error
    assert 0.5 < accuracy.std() / np.sqrt(0.25 * 0.75 / 48) < 2
    # The labels as they are do better than all.
    found = cross_validate(Nearest(), RESPONSES, ANGLES, FOLDS).fraction_correct(BINS)
    assert found.value > accuracy.max()


@pytest.mark.parametrize("decoder", [Nearest(), GaussianDecoder(BINS, 0.5)], ids=["nearest", "gaussian"])
def test_what_only_test_trials_could_teach_is_not_learnt(decoder):
    """Each trial has a neuron of its own; who had seen it in training would be always right."""
    found = cross_validate(decoder, np.eye(48, dtype=np.float32), ANGLES, FOLDS)
    assert found.fraction_correct(BINS).value <= 0.5
    own = np.eye(48, dtype=np.float32)
    np.testing.assert_array_equal(trained_answers(decoder, own, np.float32(ANGLES)), ANGLES)


def test_all_folds_and_sessions_of_a_size_share_one_program():
    del TRACES[:]
    decoder = Nearest(period_degrees=720.0)  # of which there is no program yet
    cross_validate(decoder, RESPONSES, ANGLES, FOLDS)
    cross_validate(
        decoder, RESPONSES[:44, :9], ANGLES[:44], stratified_folds(ANGLES[:44], 3, jax.random.key(1))
    )
    assert TRACES == [(64, 16)]


def test_large_recordings_are_not_padded():
    responses = np.tile(RESPONSES, (1, 600))
    found = cross_validate(PopulationVector(), responses, ANGLES, FOLDS[:2])
    small = cross_validate(PopulationVector(), RESPONSES, ANGLES, FOLDS[:2])
    tested = np.concatenate([FOLDS[0][1], FOLDS[1][1]])
    away = circular_difference(found.predicted_degrees[tested], small.predicted_degrees[tested])
    np.testing.assert_allclose(away, 0, atol=1e-2)


def test_score_and_standard_error():
    found = cross_validate(SinCosRidge(), RESPONSES, ANGLES, FOLDS[:3])
    tested = np.isin(np.arange(48), np.concatenate([test for _, test in FOLDS[:3]]))
    np.testing.assert_array_equal(np.isfinite(found.predicted_degrees), tested)
    np.testing.assert_array_equal(found.fold >= 0, tested)
    np.testing.assert_array_equal(found.true_degrees, ANGLES)
    errors = np.abs(np.mod(found.predicted_degrees - ANGLES + 180, 360) - 180)
    # Nadeau and Bengio's (1/k + n_test/n_train)·s², s² from all 36 held-out trials.
    correction = 1 / 3 + 12 / 36
    score = found.score(mean_circular_error)
    np.testing.assert_allclose(score.value, errors[tested].mean(), rtol=1e-5)
    expected = np.sqrt(correction * errors[tested].var(ddof=1) / 12)
    np.testing.assert_allclose(score.standard_error, expected, rtol=0.15)  # 200 resamples leave 5 %
    assert found.score(mean_circular_error) == score
    correct = errors[tested] < 45
    share = found.fraction_correct(BINS)
    expected = correct.mean(), np.sqrt(correction * correct.var(ddof=1) / 12)
    np.testing.assert_allclose(share, expected, rtol=1e-6)
    # Of the median, by resampling with other numbers.
    rows = np.random.default_rng(5).integers(0, 36, (2000, 36))
    spread = np.median(errors[tested][rows], axis=1).std() * np.sqrt(36 / 35)
    median = found.score(median_circular_error)
    np.testing.assert_allclose(median.value, np.median(errors[tested]), rtol=1e-5)
    np.testing.assert_allclose(median.standard_error, np.sqrt(3 * correction) * spread, rtol=0.2)
    assert found.log_probabilities is None and found.period_degrees == 360


def test_splits_of_scikit_learn():
    splits = list(StratifiedKFold(4, shuffle=True, random_state=0).split(RESPONSES, ANGLES))
    found = cross_validate(GaussianDecoder(BINS), RESPONSES, ANGLES, splits)
    for f, (train, test) in enumerate(splits):
        np.testing.assert_array_equal(found.fold[test], f)
        assert np.all(found.fold[train] != f)
    assert found.log_probabilities.shape == (48, 4)
    assert found.fraction_correct(BINS).value > 0.4
    # The order of folds and of trials within them is only that.
    other = cross_validate(
        GaussianDecoder(BINS), RESPONSES, ANGLES, [(a[::-1], b[::-1]) for a, b in splits[::-1]]
    )
    np.testing.assert_array_equal(other.predicted_degrees, found.predicted_degrees)


@given(st.integers(2, 6), st.lists(st.integers(0, 5), min_size=6, max_size=40), st.sampled_from([180, 360]))
@settings(max_examples=25, deadline=None)
def test_stratified_folds_part_the_trials_and_balance_every_angle(n_folds, classes, period):
    # One shape, so that the permutation compiles once: fill up with a class of its own.
    classes = np.array(classes + [6] * (40 - len(classes)))
    turns = np.arange(40) % 2
    folds = stratified_folds(
        classes * 10.0 + turns * period, n_folds, jax.random.key(0), period_degrees=period
    )
    assert len(folds) == n_folds
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(40))
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(40))
    counts = np.array([np.bincount(classes[test], minlength=7) for _, test in folds])
    assert np.all(np.ptp(counts, axis=0) <= 1)
    assert np.ptp(counts.sum(1)) <= 1


def test_stratified_folds_are_those_of_the_key():
    again = stratified_folds(ANGLES, 4, jax.random.key(0))
    other = stratified_folds(ANGLES, 4, jax.random.key(5))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(FOLDS, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(FOLDS, other, strict=True))
    # Trials of an angle are spread at random, not by when they were shown.
    assert len({tuple(np.sort(test // 4 % 4)) for _, test in other}) > 1


def shrinkage_of(decoder):
    return decoder.shrinkage


@eqx.filter_jit
def fit_tuned(tuned, responses, angles):
    return tuned.fit(responses, angles)


@eqx.filter_jit
def fitted_answers(decoder, responses, angles, new):
    fitted = decoder.fit(responses, angles)
    if hasattr(fitted, "log_probabilities"):
        return jax.vmap(fitted.log_probabilities)(new)
    return jax.vmap(fitted.predict)(new)


@pytest.mark.parametrize("kind", ["probabilities", "angles"])
def test_tuned_picks_what_brute_force_picks(x64, kind):
    strengths = np.array([1e-3, 0.3, 0.99]) if kind == "probabilities" else np.array([1e-3, 0.3, 30.0])
    responses = RESPONSES.astype(float)
    # Its folds: in the order of angles, dealt in turn.
    fold = np.empty(48, int)
    fold[np.argsort(ANGLES, kind="stable")] = np.arange(48) % 4
    expected = []
    for strength in jnp.asarray(strengths):
        scores = np.empty(48)
        for f in range(4):
            is_held = fold == f
            arguments = responses[~is_held], 1.0 * ANGLES[~is_held], responses[is_held]
            if kind == "probabilities":
                found = np.asarray(fitted_answers(GaussianDecoder(BINS, strength), *arguments))
                scores[is_held] = found[np.arange(12), ANGLES[is_held] // 90]
            else:
                found = np.asarray(fitted_answers(SinCosRidge(strength=strength), *arguments))
                scores[is_held] = -np.abs(np.mod(found - ANGLES[is_held] + 180, 360) - 180)
        expected.append(scores.mean())
    decoder = SinCosRidge() if kind == "angles" else GaussianDecoder(BINS, 0.5)
    where = (lambda d: d.strength) if kind == "angles" else (lambda d: d.shrinkage)
    fitted = eqx.filter_jit(Tuned(decoder, strengths, where=where, n_folds=4).fit)(responses, 1.0 * ANGLES)
    np.testing.assert_allclose(fitted.scores, expected, rtol=1e-8)
    assert fitted.strength == strengths[np.argmax(expected)]
    # And it is then fitted to all trials.
    best = eqx.tree_at(where, decoder, fitted.strength)
    answer = fitted.log_probabilities if kind == "probabilities" else fitted.predict
    direct = fitted_answers(best, responses, 1.0 * ANGLES, responses)
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda x: answer(x)))(responses), direct, rtol=1e-8)


def test_tuned_survives_a_class_of_one_trial():
    """Whose bin cannot be decoded without it: that trial does not count, and the others decide."""
    kept = np.r_[np.flatnonzero(ANGLES != 90), 1]
    tuned = Tuned(GaussianDecoder(BINS, 0.5), np.array([1e-6, 0.5], np.float32), where=lambda d: d.shrinkage)
    fitted = eqx.filter_jit(tuned.fit)(RESPONSES[kept], ANGLES[kept])
    assert np.all(np.isfinite(fitted.scores))
    assert fitted.strength == tuned.strengths[fitted.scores.argmax()]
    # The first is not taken for want of anything to compare.
    assert fitted.scores[1] > fitted.scores[0]


class Fragile(AbstractDecoder):
    """Ridge regression that breaks below a strength of 1e-6."""

    strength: jax.Array
    period_degrees: float = 360.0
    is_compiled: ClassVar[bool] = True

    def fit(self, responses, angles_degrees, *, weights=None):
        ridge = eqx.tree_at(lambda decoder: decoder.strength, SinCosRidge(), self.strength)
        fitted = ridge.fit(responses, angles_degrees, weights=weights)
        arrays, rest = eqx.partition(fitted, eqx.is_array)
        broken = jax.tree.map(lambda leaf: jnp.where(self.strength < 1e-6, jnp.nan, leaf), arrays)
        return eqx.combine(broken, rest)


def test_tuned_does_not_take_a_strength_that_breaks_the_decoder():
    responses = np.tile(RESPONSES, (1, 6))
    tuned = Tuned(Fragile(jnp.array(1.0)), np.array([1e-12, 1e-10, 1e-2], np.float32))
    fitted = eqx.filter_jit(tuned.fit)(responses, ANGLES)
    assert np.all(np.isnan(fitted.scores[:2])) and np.isfinite(fitted.scores[2])
    assert fitted.strength == np.float32(1e-2)


def test_tuned_takes_strengths_below_rounding_for_what_they_are():
    responses = np.tile(RESPONSES, (1, 6))
    tuned = Tuned(SinCosRidge(), np.array([1e-12, 1e-10, 1e-2], np.float32))
    fitted = eqx.filter_jit(tuned.fit)(responses, ANGLES)
    assert np.all(np.isfinite(fitted.scores)) and fitted.strength == np.float32(1e-2)


def test_tuned_in_place_of_a_setting_that_is_none():
    """Ledoit and Wolf's estimate is replaced, as a number would be."""
    strengths = np.array([0.2, 0.6], np.float32)
    pair = [
        fit_tuned(Tuned(GaussianDecoder(BINS, s), strengths, where=shrinkage_of), RESPONSES, ANGLES)
        for s in (None, 0.5)
    ]
    np.testing.assert_allclose(pair[0].scores, pair[1].scores, rtol=1e-5)


def test_chance_level_is_that_of_the_key_and_near_one_over_classes():
    def level(key):
        measure = lambda p, t, _: np.mean(BINS.index(p) == BINS.index(t))  # noqa: E731
        return chance_level(
            GaussianDecoder(BINS), RESPONSES, ANGLES, FOLDS, measure, jax.random.key(key), n_permutations=20
        )

    first = level(0)
    np.testing.assert_array_equal(first, level(0))
    assert not np.array_equal(first, level(1))
    assert abs(first.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 48 / 20)


def test_constant_neurons_warn_or_are_dropped():
    responses = np.insert(RESPONSES, [2, 5], 3.0, axis=1)
    plain = cross_validate(GaussianDecoder(BINS), RESPONSES, ANGLES, FOLDS)
    with pytest.warns(UserWarning, match=r"2 of 12 neurons do not vary \(the first: 2, 6\)"):
        kept = cross_validate(GaussianDecoder(BINS), responses, ANGLES, FOLDS)
    dropped = cross_validate(GaussianDecoder(BINS), responses, ANGLES, FOLDS, drop_constant=True)
    np.testing.assert_array_equal(dropped.log_probabilities, plain.log_probabilities)
    np.testing.assert_allclose(kept.log_probabilities, plain.log_probabilities, atol=1e-4)


def test_a_fit_that_did_not_converge_is_reported():
    with pytest.warns(UserWarning, match="2 of 2 folds did not converge"):
        short = cross_validate(MultinomialDecoder(BINS, max_steps=1), RESPONSES, ANGLES, FOLDS[:2])
    assert short.status is not None and short.status.tolist() == [Status.max_steps_reached] * 2
    assert cross_validate(PopulationVector(), RESPONSES, ANGLES, FOLDS[:2]).status is None


def test_folds_of_distinct_angles_differ_with_the_key():
    angles = np.arange(60.0) * 6
    first, second = (stratified_folds(angles, 5, jax.random.key(k)) for k in (0, 1))
    assert len({tuple(test) for _, test in [*first, *second]}) == 10
    for _, test in first:
        np.testing.assert_array_equal(np.sort(test // 5), np.arange(12))


def test_scores_are_on_the_circle_of_the_decoder():
    angles = np.tile([1.0, 91.0], 10)
    found = CrossValidation(np.tile([179.0, 91.0], 10), angles, np.arange(20) % 2, None, 180.0, None)
    assert found.score(mean_circular_error).value == 1.0
    assert found.score(mean_circular_error, 360).value == 89.0
    with pytest.raises(ValueError, match="bins: expected a period of 180°, as decoded, got 360°"):
        found.fraction_correct(AngleBins(4))


def test_a_penalty_for_each_neuron_meets_no_padding():
    penalty = ElasticNet(0.0, jnp.full((RESPONSES.shape[1], 1), 0.1))
    plain = cross_validate(MultinomialDecoder(BINS, ElasticNet(0.0, 0.1)), RESPONSES, ANGLES, FOLDS)
    each = cross_validate(MultinomialDecoder(BINS, penalty), RESPONSES, ANGLES, FOLDS)
    np.testing.assert_allclose(plain.log_probabilities, each.log_probabilities, atol=1e-3)


def test_the_standard_error_knows_how_many_trials_were_trained_on():
    """Folds of ten trials of which the other folds are not all of the training set."""
    angles = np.repeat(np.arange(0.0, 360.0, 18.0), 2)
    predicted = angles + np.tile([5.0, -20.0], 20)
    fold = np.where(np.arange(40) < 20, np.arange(40) % 2, -1)
    shares = [
        CrossValidation(predicted, angles, fold, None, 360.0, None, n_train).score(mean_circular_error)
        for n_train in (None, np.array([10, 10]), np.array([30, 30]))
    ]
    assert shares[0] == shares[1] and shares[0].value == 12.5
    np.testing.assert_allclose(
        shares[2].standard_error / shares[0].standard_error, np.sqrt((1 / 2 + 1 / 3) / (1 / 2 + 1))
    )
    alone = CrossValidation(predicted[:1], angles[:1], fold[:1], None, 360.0, None)
    assert np.isnan(alone.score(mean_circular_error).standard_error)


REDRAWN = AngleBins(8, 360, -22.5)


def mean_error(predicted, true, period):
    """Compute the mean circular error in NumPy, which is quicker for many resamples of few trials."""
    return np.mean(np.abs(np.mod(predicted - true + period / 2, period) - period / 2))


@eqx.filter_jit
def redrawn_answers(decoder, population, angles, fold, keys):
    """Decode each of many recordings of the same neurons, by cross-validation in one program."""

    def of_recording(key):
        responses = population.draw(key, angles).responses

        def of_fold(f):
            weights = jnp.where(fold == f, 0.0, 1.0)
            return jax.vmap(decoder.fit(responses, angles, weights=weights).predict)(responses)

        return jax.vmap(of_fold)(jnp.arange(5))[fold, jnp.arange(len(fold))]

    return jax.lax.map(of_recording, keys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder", [GaussianDecoder(REDRAWN), SinCosRidge(strength=0.1)], ids=["gaussian", "ridge"]
)
def test_standard_errors_cover_the_expected_score_of_redrawn_recordings(decoder):
    """Of 400 recordings, nominally 95 %; the deviation over folds over √folds covers 77 to 81 %."""
    angles = np.tile(np.arange(0.0, 360.0, 45.0), 6)
    population = simulate(jax.random.key(0), n_neurons=20, angles_degrees=angles, responses="poisson")
    fold = np.zeros(48, int)
    for f, (_, test) in enumerate(stratified_folds(angles, 5, jax.random.key(0))):
        fold[test] = f
    keys = jax.random.split(jax.random.key(1), 400)
    answers = np.asarray(redrawn_answers(decoder, population, jnp.asarray(angles), jnp.asarray(fold), keys))
    recordings = [CrossValidation(one, angles, fold, None, 360.0, None) for one in answers]
    scores = np.array([found.score(mean_error) for found in recordings])
    shares = np.array([found.fraction_correct(REDRAWN) for found in recordings])
    for values, errors in (scores.T, shares.T):
        covered = np.mean(np.abs(values - values.mean()) <= 1.96 * errors)
        assert 0.92 <= covered <= 0.98
    errors = np.abs(np.mod(answers - angles + 180, 360) - 180)
    by_fold = np.stack([errors[:, fold == f].mean(1) for f in range(5)])
    naive = by_fold.std(0, ddof=1) / np.sqrt(5)
    assert np.mean(np.abs(scores[:, 0] - scores[:, 0].mean()) <= 1.96 * naive) < 0.85
