"""Poisson regression against scikit-learn, SciPy, optimality conditions and what was simulated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import expit
from sklearn.linear_model import PoissonRegressor

from neurojax import penalties
from neurojax.convergence import Implicit, Status
from neurojax.neural_coding import LinearNonlinearPoisson, Smoothness, fit_poisson, lagged
from neurojax.proximal._poisson_loss import curvature, curvature_between, log_rate, slope

SHAPE = (4, 5)
quick_fit = jax.jit(fit_poisson, static_argnames=("nonlinearity", "tol", "max_steps", "gradient"))


def recording(n_neurons=1, dtype="float64"):
    """Stimuli of mean 0.5, fields that are Gaussian bumps, and counts."""
    random = np.random.default_rng(0)
    xs = random.normal(0.5, 1, size=(400, 20))
    rows, columns = np.indices(SHAPE)
    centres = random.uniform(0.5, 3, size=(n_neurons, 2))
    bumps = [np.exp(-((rows - r) ** 2 + (columns - c) ** 2)).ravel() for r, c in centres]
    weights = 0.6 * np.array(bumps)
    counts = random.poisson(np.exp(xs @ weights.T - 0.5)).T
    return xs.astype(dtype), counts.astype(dtype), weights


def objective(xs, y, nonlinearity, l2=0.0, strength=0.0):
    """Restate the objective in NumPy, as a function of (weights, bias)."""
    laplacian = np.zeros((20, 20))
    for i in range(20):
        for j in range(20):
            (r, c), (s, d) = divmod(i, 5), divmod(j, 5)
            if abs(r - s) + abs(c - d) == 1:
                laplacian[i, i] += 1
                laplacian[i, j] -= 1

    def value(z):
        u = xs @ z[:-1] + z[-1]
        rate = np.exp(u) if nonlinearity == "exp" else np.logaddexp(0, u)
        roughness = np.sum((laplacian @ z[:-1]) ** 2)
        return np.mean(rate - y * np.log(rate)) + l2 / 2 * np.sum(z[:-1] ** 2) + strength / 2 * roughness

    return value


@jax.jit
def fit_many(xs, counts, strengths):
    """Fit each neuron at each strength of the lasso."""

    def fit(y, strength):
        return fit_poisson(xs, y, penalties.L1(strength))

    return jax.vmap(jax.vmap(fit, (None, 0)), (0, None))(counts, strengths)


def packed(fit):
    return np.append(np.asarray(fit.model.weights), np.asarray(fit.model.bias))


def slopes_of(fit, xs, y):
    """Return the derivative of the mean negative log-likelihood by weights and bias, for exp."""
    errors = np.exp(np.asarray(xs) @ packed(fit)[:-1] + packed(fit)[-1]) - np.asarray(y)
    return np.append(errors @ np.asarray(xs), errors.sum()) / len(errors)


@pytest.mark.parametrize("l2", [0.003, 0.3])
def test_ridge_is_that_of_scikit_learn(x64, l2):
    xs, (y,), _ = recording()
    fit = quick_fit(xs, y, penalties.ElasticNet(0.0, l2))
    other = PoissonRegressor(alpha=l2, tol=1e-12, max_iter=10000, solver="newton-cholesky").fit(xs, y)
    assert fit.status == Status.converged and fit.residual <= 1e-8
    np.testing.assert_allclose(packed(fit), np.append(other.coef_, other.intercept_), atol=1e-7)
    assert np.abs(slopes_of(fit, xs, y) + np.append(l2 * packed(fit)[:-1], 0)).max() < 1e-7


def test_without_penalty_the_gradient_vanishes(x64):
    xs, (y,), _ = recording()
    fit = quick_fit(xs, y)
    assert fit.status == Status.converged and np.abs(slopes_of(fit, xs, y)).max() < 1e-7


def test_lasso_meets_its_optimality_conditions(x64):
    xs, (y,), _ = recording()
    fit = quick_fit(xs, y, penalties.L1(0.05))
    pull, weights = slopes_of(fit, xs, y), packed(fit)[:-1]
    active = weights != 0
    assert fit.status == Status.converged and 0 < active.sum() < 20
    np.testing.assert_allclose(pull[:-1][active], -0.05 * np.sign(weights[active]), atol=1e-7)
    assert np.abs(pull[:-1][~active]).max() < 0.05 and abs(pull[-1]) < 1e-7


def test_a_strong_lasso_leaves_the_mean_rate(x64):
    xs, (y,), _ = recording()
    fit = quick_fit(xs, y, penalties.L1(100.0))
    assert fit.status == Status.converged and not np.any(fit.model.weights)
    np.testing.assert_allclose(np.exp(fit.model.bias), y.mean(), rtol=1e-7)


@pytest.mark.parametrize("nonlinearity", ["exp", "softplus"])
def test_smoothness_against_scipy(x64, nonlinearity):
    xs, (y,), _ = recording()
    prior = Smoothness(0.05, SHAPE)
    fit = quick_fit(xs, y, penalties.ElasticNet(0.0, 0.01), smoothness=prior, nonlinearity=nonlinearity)
    value = objective(np.asarray(xs), np.asarray(y), nonlinearity, 0.01, 0.05)
    best = minimize(value, np.append(np.zeros(20), 0.5), tol=1e-10)
    assert fit.status == Status.converged and value(packed(fit)) <= best.fun + 1e-12
    np.testing.assert_allclose(packed(fit), best.x, atol=1e-4)  # the optimum is flat: SciPy stops at 1e-5
    numeric = [(value(packed(fit) + d) - value(packed(fit) - d)) / 2e-5 for d in 1e-5 * np.eye(21)]
    np.testing.assert_allclose(numeric, 0, atol=1e-7)


def test_a_simulated_field_is_recovered_to_its_standard_errors(x64):
    xs, counts, truth = recording()
    fit = quick_fit(xs, counts[0])
    truth = np.append(truth[0], -0.5)
    # Standard errors from the Fisher information, at the true rate.
    design = np.column_stack([xs, np.ones(400)])
    rate = np.exp(design @ truth)
    scores = (packed(fit) - truth) / np.sqrt(np.diag(np.linalg.inv((design * rate[:, None]).T @ design)))
    assert np.corrcoef(packed(fit)[:-1], truth[:-1])[0, 1] > 0.9
    assert np.abs(scores).max() < 4 and 0.4 < np.std(scores) < 1.6


def test_smoothness_helps_where_spikes_are_few(x64):
    xs, _, truth = recording()
    counts = np.random.default_rng(2).poisson(np.exp(np.asarray(xs) @ truth[0] - 3)).astype(float)
    plain = quick_fit(xs, counts)
    prior = Smoothness(0.005, SHAPE)
    smooth = quick_fit(xs, counts, penalties.ElasticNet(0.0, 0.0), smoothness=prior, nonlinearity="exp")
    errors = [np.linalg.norm(packed(fit)[:-1] - truth[0]) for fit in (plain, smooth)]
    assert errors[1] < errors[0]


def test_vmap_over_neurons_and_strengths_equals_the_loop(x64):
    xs, counts, _ = recording(3)
    strengths = np.array([0.02, 0.2])
    together = fit_many(xs, counts, strengths)
    for i, y in enumerate(counts):
        for j, strength in enumerate(strengths):
            alone = quick_fit(xs, y, penalties.L1(strength))
            assert together.n_steps[i, j] == alone.n_steps
            # Step sizes differ by rounding, and so do the ends of fits to a tolerance of 1e-10.
            pair = together.model.weights[i, j], alone.model.weights
            np.testing.assert_allclose(*pair, rtol=1e-7, atol=1e-10)
    model = jax.tree.map(lambda leaf: leaf[:, 0], together.model)
    rates, log_rates = jax.jit(lambda model, x: (model(x), model.log_rate(x)))(model, xs[0])
    np.testing.assert_allclose(rates, np.exp(model.weights @ xs[0] + model.bias), rtol=1e-12)
    np.testing.assert_allclose(log_rates, np.log(rates), rtol=1e-12)


def test_strong_drive_does_not_break_the_exponential(x64):
    random = np.random.default_rng(1)
    xs = random.normal(size=(400, 20))
    y = random.poisson(np.exp(xs @ np.full(20, 0.7) - 2)).astype(float)
    fit = quick_fit(xs, y)
    assert y.max() > 500 and fit.status == Status.converged
    assert np.abs(slopes_of(fit, xs, y)).max() < 1e-5 * y.mean()


def test_float32():
    xs, (y,), _ = recording(dtype="float32")
    fit = quick_fit(xs, y, penalties.ElasticNet(0.0, 0.01))
    assert fit.model.weights.dtype == "float32" and fit.status == Status.converged
    assert np.abs(slopes_of(fit, xs, y) + np.append(0.01 * packed(fit)[:-1], 0)).max() < 1e-4


def test_neurons_that_have_no_optimum_say_so(x64):
    xs, counts, _ = recording(3)
    below, last = counts[2].copy(), counts[2].copy()
    counts[0], counts[1, 3], below[0] = 0, np.nan, -1
    fits = jax.tree.map(lambda leaf: leaf[:, 0], fit_many(xs, counts, np.array([0.02, 0.2])))
    assert fits.status.tolist() == [Status.nonfinite, Status.nonfinite, Status.converged]
    assert np.exp(fits.model.bias[0]) == 0 and not np.any(fits.model.weights[0])
    assert np.isneginf(fits.model.bias[0])
    assert [quick_fit(xs, y).status for y in (*counts[:2], below)] == [Status.nonfinite] * 3
    assert quick_fit(xs, last, max_steps=2).status == Status.max_steps_reached


def test_implicit_derivatives_by_strength_stimuli_and_counts(x64):
    xs, (y,), _ = recording()
    wave = np.sin(np.arange(400.0))

    @jax.jit
    @jax.value_and_grad
    def size(changes):
        l2, at_xs, at_y = 0.1 * changes
        stimuli, counts, penalty = xs + at_xs * wave[:, None], y * (1 + at_y), penalties.ElasticNet(0.0, l2)
        fit = fit_poisson(stimuli, counts, penalty, tol=1e-12, gradient=Implicit())
        return jnp.sum(fit.model.weights**2) + fit.model.bias

    at = np.array([1.0, 0.5, 0.3])
    numeric = [(size(at + step)[0] - size(at - step)[0]) / 2e-4 for step in 1e-4 * np.eye(3)]
    np.testing.assert_allclose(size(at)[1], numeric, rtol=1e-6)


def test_derivatives_of_the_loss_and_their_bound(x64):
    u, y = np.meshgrid(np.linspace(-45, 30, 76), [0.0, 0.3, 20.0])
    steps = np.array([-30.0, -3.0, 0.1, 3.0, 30.0])[:, None, None]
    along = steps[:, None] * np.linspace(0, 1, 41)[:, None, None]

    @partial(jax.jit, static_argnums=0)
    def evaluate(kind):
        by_log = jax.vmap(jax.vmap(jax.grad(partial(log_rate, kind))))(u)
        ahead, here, behind = slope(kind, u + 1e-4 * np.array([1.0, 0.0, -1.0])[:, None, None], y)
        bounds = curvature_between(kind, u, jnp.broadcast_to(steps, (5, *u.shape)), y)
        largest = jnp.max(curvature(kind, u + along, y), axis=1)
        return by_log, here, (ahead - behind) / 2e-4, curvature(kind, u, y), bounds, largest

    for kind, rates in (("exp", np.exp(u)), ("softplus", expit(u))):
        by_log, here, numeric, bend, bounds, largest = map(np.asarray, evaluate(kind))
        np.testing.assert_allclose(bend, numeric, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(here, rates - y * by_log, rtol=1e-9, atol=1e-12)
        assert np.all(largest <= bounds * (1 + 1e-7))
    np.testing.assert_allclose(jax.jit(partial(log_rate, "softplus"))(-800.0), -800.0)


def test_lags_look_back():
    stimuli = np.random.default_rng(0).normal(size=(6, 2, 3)).astype("float32")
    came = np.asarray(lagged(jnp.asarray(stimuli), 3))
    for t in range(6):
        for lag in range(3):
            np.testing.assert_array_equal(came[t, lag], stimuli[t - lag] * (t >= lag))


def test_smoothness_of_lags_and_constants(x64):
    prior = Smoothness(2, (2, 3))
    weights = np.random.default_rng(0).normal(size=12)
    value = jax.jit(lambda w: prior.value(w))
    both = sum(value(np.r_[part, np.zeros(6)]) for part in (weights[:6], weights[6:]))
    np.testing.assert_allclose(value(weights), both, rtol=1e-14)
    by_hand, automatic = jax.jit(lambda w: (prior.gradient(w), jax.grad(prior.value)(w)))(weights)
    np.testing.assert_allclose(by_hand, automatic, rtol=1e-12)
    assert value(np.ones(12)) == 0


def test_bad_input_is_named(untyped):
    xs, counts = np.ones((400, 20), np.float32), np.ones(400, np.float32)
    broken_xs, broken_counts = xs.copy(), counts.copy()
    broken_xs[0, 0], broken_counts[2] = np.inf, np.nan
    for changes, message in (
        ({"counts": counts[1:]}, r"counts: expected shape \(400,\)"),
        ({"counts": broken_counts}, "counts: expected finite"),
        ({"counts": -counts}, "counts: expected a number ≥ 0"),
        ({"xs": broken_xs}, "xs: expected finite"),
        ({"xs": xs[:, 0]}, "xs: expected 2 axes"),
        ({"xs": xs.astype(complex)}, "xs: expected real numbers"),
        ({"counts": counts[:, None]}, r"counts: expected shape \(400,\)"),
        ({"penalty": penalties.SmoothL1(1.0, 1.0)}, "penalty with a proximal operator"),
        ({"smoothness": Smoothness(1.0, (3, 3))}, "multiple of 9 features"),
        ({"nonlinearity": "relu"}, "nonlinearity: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_poisson(**({"xs": xs, "counts": counts} | changes))


def test_bad_models_are_named(untyped):
    with pytest.raises(ValueError, match="strength: expected a number ≥ 0"):
        Smoothness(-1.0, (2, 2))
    with pytest.raises(ValueError, match="image_shape"):
        Smoothness(1.0, (2, 2, 2))
    with pytest.raises(ValueError, match="bias: expected shape"):
        LinearNonlinearPoisson(jnp.ones((3, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match="n_lags"):
        lagged(jnp.ones((3, 2)), 0)


def separated(xs, counts):
    """Whether a linear program finds a direction that lowers rates, and only where no spike came."""
    inputs = np.c_[xs, np.ones(len(xs))]
    silent, spiking = inputs[counts == 0], inputs[counts > 0]
    bounds = np.r_[np.zeros(len(silent)), np.ones(len(silent))]
    found = linprog(
        silent.sum(0),
        A_ub=np.r_[silent, -silent],
        b_ub=bounds,
        A_eq=spiking,
        b_eq=np.zeros(len(spiking)),
        bounds=(None, None),
    )
    return found.fun < -1e-7


def test_unbounded_fits_are_those_that_a_linear_program_finds():
    """Sparse binary features and few samples: about one data set in ten has no finite optimum."""
    random = np.random.default_rng(1)
    xs = (random.random((120, 20, 3)) < 0.3).astype("float32")
    counts = random.poisson(0.8, (120, 20)).astype("float32")
    expected = np.array([separated(x.astype(float), y) for x, y in zip(xs, counts, strict=True)])
    fits = jax.jit(jax.vmap(partial(fit_poisson, tol=1e-4)))(xs, counts)
    assert 3 < expected.sum() < 60
    np.testing.assert_array_equal(fits.status, np.where(expected, Status.unbounded, Status.converged))
