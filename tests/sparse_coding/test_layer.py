"""The sparse coding layer: its values, its derivatives in every mode, and the published layer it covers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import lasso, relative_gap

from neurojax.convergence import Detached, Implicit, Status, Truncated, Unrolled
from neurojax.penalties import L1, SmoothL1
from neurojax.sparse_coding import ISTA, Dictionary, SparseCodingLayer, make_problem, rmsprop_inference
from neurojax.training import fit

N_ATOMS, N_FEATURES, N_ROWS = 12, 8, 5
KEY = jax.random.key(0)
EXACT = {"tol": 2e-15, "learn_penalty": True, "returns": "reconstruction"}


def problem(seed=0, n_rows=N_ROWS):
    """Unit-length atoms and data of length about 1."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(N_ATOMS, N_FEATURES))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    return atoms, rng.normal(size=(n_rows, N_FEATURES)) / np.sqrt(N_FEATURES)


def make_layer(atoms, penalty=None, dtype=None, **settings):
    return SparseCodingLayer(Dictionary(jnp.asarray(atoms, dtype)), penalty or L1(0.1), **settings)


def probe(layer):
    """Fixed weights of the outputs, which make a number of them."""
    size = N_ATOMS if layer.returns == "code" else N_FEATURES
    return np.random.default_rng(1).normal(size=(N_ROWS, size))


@eqx.filter_jit
def gradients(layer, xs):
    """Return the outputs, and the gradient of their weighted sum (NaN left out) in layer and data."""

    def total(learner):
        layer, xs = learner
        outputs = jax.vmap(layer)(xs)
        return jnp.sum(jnp.where(jnp.isnan(outputs), 0, probe(layer) * outputs)), outputs

    (_, outputs), (of_layer, of_xs) = eqx.filter_value_and_grad(total, has_aux=True)((layer, xs))
    return outputs, of_layer, of_xs


@eqx.filter_jit
def infer(layer, xs):
    return jax.vmap(layer.infer)(xs)


def assert_finite_differences(layer, xs, h, **tolerances):
    """Compare derivatives in random directions of atoms, strength and data with differences of values."""
    _, of_layer, of_xs = gradients(layer, xs)
    slopes = {"atoms": of_layer.dictionary.atoms, "strength": of_layer.penalty.strength, "x": of_xs}
    points = {"atoms": layer.dictionary.atoms, "strength": layer.penalty.strength, "x": xs}
    where = {"atoms": lambda m: m.dictionary.atoms, "strength": lambda m: m.penalty.strength}
    rng = np.random.default_rng(2)
    for part in ("atoms", "strength", "x") * 2:
        direction = rng.normal(size=np.shape(points[part]))

        def value(shift, part=part, direction=direction):
            there = points[part] + shift * direction
            moved = (layer, there) if part == "x" else (eqx.tree_at(where[part], layer, there), xs)
            return np.sum(probe(layer) * gradients(*moved)[0])

        difference = (value(h) - value(-h)) / (2 * h)
        np.testing.assert_allclose(np.sum(slopes[part] * direction), difference, err_msg=part, **tolerances)


def test_the_output_is_the_code_of_its_settings():
    atoms, xs = problem()
    settings = {"solver": ISTA(), "tol": 1e-4, "max_steps": 400, "steps_per_check": 7}
    layer = make_layer(atoms, None, jnp.float32, **settings)
    outputs = eqx.filter_jit(lambda layer, x: (layer.infer(x), layer(x, key=KEY)))
    solution, code = outputs(layer, xs[0].astype(np.float32))
    assert solution.status == Status.converged and np.any(solution.value != 0)
    gap = relative_gap(atoms, xs[0], solution.value, 0.1)
    assert gap <= 1.01e-4
    np.testing.assert_allclose(solution.residual, gap, rtol=1e-2)
    np.testing.assert_allclose(code, solution.value, atol=1e-6)
    assert solution.n_steps % 7 == 0


def test_derivatives_are_those_of_the_values(x64):
    atoms, xs = problem()
    layer = make_layer(atoms, gradient=Implicit(), **EXACT)
    assert np.all(np.any(gradients(layer, xs)[0] != 0, axis=1))
    assert_finite_differences(layer, xs, 1e-5, rtol=1e-6, atol=1e-6)


def test_detached_trains_the_reconstruction_at_constant_codes(x64):
    atoms, xs = problem()
    layer = make_layer(atoms, gradient=Detached(), returns="reconstruction", tol=2e-15)
    outputs, of_layer, of_xs = gradients(layer, xs)
    codes = np.array([lasso(atoms, x, 0.1) for x in xs])
    np.testing.assert_allclose(outputs, codes @ atoms, atol=1e-6)
    np.testing.assert_allclose(of_layer.dictionary.atoms, codes.T @ probe(layer), atol=1e-6)
    assert not np.any(of_xs)


def unrolled_layer(atoms, step_size):
    settings = {"solver": ISTA(np.array(step_size)), "gradient": Unrolled(), "max_steps": 4000}
    return make_layer(atoms, returns="reconstruction", **settings)


def test_a_strength_is_trained_only_on_request_and_a_solver_never(x64):
    atoms, xs = problem()
    _, learned, learned_xs = gradients(make_layer(atoms, gradient=Implicit(), **EXACT), xs)
    _, fixed, fixed_xs = gradients(unrolled_layer(atoms, 0.2), xs)
    assert fixed.penalty.strength == 0 and abs(learned.penalty.strength) > 0.1
    assert fixed.solver.step_size == 0
    np.testing.assert_allclose(fixed.dictionary.atoms, learned.dictionary.atoms, atol=1e-4)
    np.testing.assert_allclose(fixed_xs, learned_xs, atol=1e-4)


def test_an_inference_that_diverges_is_seen_in_the_output(x64):
    atoms, xs = problem()
    outputs, of_layer, of_xs = gradients(
        unrolled_layer(atoms, 10.0), np.where(np.arange(5)[:, None] == 0, 0, xs)
    )
    assert not np.any(outputs[0]) and np.all(np.isnan(outputs[1:]))
    assert np.all(np.isfinite(of_layer.dictionary.atoms)) and np.all(np.isfinite(of_xs))


def reconstruction_error(model, state, batch, key):
    del key
    return jnp.mean((jax.vmap(model)(batch) - batch) ** 2), (state, {})


def sparse_rows(n_rows):
    """Data made by two of twelve atoms each."""
    rng = np.random.default_rng(3)
    codes = np.zeros((n_rows, N_ATOMS))
    for code in codes:
        code[rng.choice(N_ATOMS, 2, replace=False)] = rng.normal(size=2)
    return (codes @ problem(4)[0]).astype(np.float32)


@pytest.mark.slow
def test_an_autoencoder_learns_and_the_decay_of_weights_leaves_its_strength_alone():
    def all_but_the_penalty(model):
        return eqx.tree_at(lambda m: m.penalty, jax.tree.map(eqx.is_array, model), False)

    model = make_layer(problem()[0], L1(0.1), jnp.float32, returns="reconstruction")
    result = fit(
        model,
        reconstruction_error,
        sparse_rows(64),
        optimizer=optax.adamw(0.02, weight_decay=0.1, mask=all_but_the_penalty),
        n_steps=80,
        batch_size=16,
        key=KEY,
    )
    loss = np.asarray(result.history["loss"])
    assert np.mean(loss[-20:]) < 0.5 * np.mean(loss[:5])
    assert result.model.penalty.strength == np.float32(0.1)


# The published layer (system 2), restated from its own formulas.
GAMMA, ROUNDING, RATE, DECAY, MOMENTUM, EPSILON = 0.1, 1e-7, 1e-3, 0.9, 0.9, 1e-8


def published_energy(data, atoms, codes):
    """‖s − xA‖² + γ Σ √(x² + 1e-7), without the ½."""
    return np.sum((data - codes @ atoms) ** 2, axis=1) + GAMMA * np.sum(np.sqrt(codes**2 + ROUNDING), axis=1)


def published_gradient(data, atoms, codes):
    return -2 * (data - codes @ atoms) @ atoms.T + GAMMA * codes / np.sqrt(codes**2 + ROUNDING)


def published_states(data, atoms, n_steps):
    """Codes, momenta and mean squares before the first and after each step."""
    x = m = v = np.zeros((len(data), len(atoms)))
    states = [(x, m, v)]
    for _ in range(n_steps):
        g = published_gradient(data, atoms, x)
        v = DECAY * v + (1 - DECAY) * g**2
        step = RATE * g / np.sqrt(v + EPSILON)
        m = MOMENTUM * m - step
        x = x + MOMENTUM * m - step
        states.append((x, m, v))
    return [np.stack(part) for part in zip(*states, strict=True)]


@pytest.fixture(scope="module")
def published():
    """16 data of std 0.28 and 256 features, 49 Glorot-uniform atoms, and 100 published steps on them."""
    rng = np.random.default_rng(0)
    limit = np.sqrt(6 / (49 + 256))
    atoms, data = rng.uniform(-limit, limit, (49, 256)), rng.normal(0, 0.28, (16, 256))
    return atoms, data, published_states(data, atoms, 100)


def rmsprop_layer(atoms, n_steps=100, **settings):
    """Return a layer that looks at the residual only after all steps."""
    settings = {"penalty": SmoothL1(GAMMA / 2, ROUNDING), "gradient": Detached(), "tol": 0.05, **settings}
    return make_layer(
        atoms, solver=rmsprop_inference(), max_steps=n_steps, steps_per_check=n_steps, **settings
    )


@eqx.filter_jit
def next_codes(atoms, data, codes, momenta, squares):
    """Take one step of the solver from each of many published states of each datum."""
    solver = rmsprop_inference()

    def one(x, code, momentum, square):
        setup = make_problem(Dictionary(atoms), x, SmoothL1(GAMMA / 2, ROUNDING))
        start = solver.init(setup, code)
        leaves, form = jax.tree.flatten(start.optimizer)
        assert len(leaves) == 2  # Optax has RMSprop's mean squares first, then the momentum
        state = start._replace(optimizer=jax.tree.unflatten(form, [square, momentum]))
        return solver.value(solver.step(setup, state))

    over_states = jax.vmap(one, in_axes=(None, 0, 0, 0))
    return jax.vmap(over_states, in_axes=(0, 1, 1, 1), out_axes=1)(data, codes, momenta, squares)


def test_the_restated_gradient_is_that_of_the_restated_energy(published):
    atoms, data, states = published
    codes, h = states[0][50], 1e-6
    direction = np.random.default_rng(1).normal(size=codes.shape)
    ends = [published_energy(data, atoms, codes + shift * direction) for shift in (h, -h)]
    slope = np.sum(published_gradient(data, atoms, codes) * direction, axis=1)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), atol=1e-4, rtol=1e-6)


def test_every_step_of_rmsprop_inference_is_the_published_one(published, x64):
    """From each of 100 published states: the run itself amplifies rounding beyond comparison."""
    atoms, data, (codes, momenta, squares) = published
    after = next_codes(atoms, data, codes[:-1], momenta[:-1], squares[:-1])
    np.testing.assert_allclose(after, codes[1:], atol=1e-12)
    single = [a.astype(np.float32) for a in (atoms, data, codes[:-1], momenta[:-1], squares[:-1])]
    after = next_codes(*single)
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, codes[1:], atol=2e-5)


@pytest.mark.parametrize("scale", [10, 40])
def test_a_run_of_rmsprop_inference_is_the_published_run(published, scale, x64):
    """A hundred steps on data so large that it stays clear of the minimum; there rounding alone decides."""
    atoms, data, _ = published
    codes = published_states(scale * data, atoms, 100)[0]
    solution = infer(rmsprop_layer(atoms), scale * data)
    assert np.all(solution.n_steps == 100)
    np.testing.assert_allclose(solution.value, codes[-1], atol=1e-6)


def test_the_published_truncation_is_a_constant_code_where_reconstructions_are_returned(published, x64):
    """The published layer holds z constant before its last step and returns z @ atoms of that same z.

    So its reconstruction is one step behind its code, and its gradient is that of a constant code after
    n − 1 steps. One step more, differentiated, is another gradient.
    """
    atoms, data, _ = published
    data, n_steps = 10 * data, 30  # later rounding is amplified
    code = published_states(data, atoms, n_steps)[0][n_steps - 1]
    truth = -2 * code.T @ (data - code @ atoms)

    @eqx.filter_jit
    def by_layer(layer):
        def total(dictionary):
            outputs = jax.vmap(eqx.tree_at(lambda m: m.dictionary, layer, dictionary))(data)
            return jnp.sum((data - outputs) ** 2), outputs

        slope, outputs = eqx.filter_grad(total, has_aux=True)(layer.dictionary)
        return outputs, slope.atoms

    settings = {"returns": "reconstruction", "gradient": Detached()}
    outputs, slope = by_layer(rmsprop_layer(atoms, n_steps - 1, **settings))
    np.testing.assert_allclose(outputs, code @ atoms, atol=1e-10)
    np.testing.assert_allclose(slope, truth, atol=1e-12 * np.max(np.abs(truth)))
    _, other = by_layer(rmsprop_layer(atoms, n_steps, **(settings | {"gradient": Truncated(1)})))
    assert np.linalg.norm(other - truth) > 0.02 * np.linalg.norm(truth)


def test_the_published_truncation_is_one_step_where_codes_are_returned(published, x64):
    atoms, data, _ = published
    data, n_steps, h = 10 * data, 30, 1e-7
    codes, momenta, squares = (part[n_steps - 1] for part in published_states(data, atoms, n_steps))
    weights = np.random.default_rng(3).normal(size=codes.shape)

    def last(atoms):
        """Take the published run's last step, from the state before it."""
        g = published_gradient(data, atoms, codes)
        step = RATE * g / np.sqrt(DECAY * squares + (1 - DECAY) * g**2 + EPSILON)
        return codes + MOMENTUM * (MOMENTUM * momenta - step) - step

    layer = rmsprop_layer(atoms, n_steps, gradient=Truncated(1))

    @jax.jit
    @jax.grad
    def slope(atoms):
        return jnp.sum(jax.vmap(eqx.tree_at(lambda m: m.dictionary.atoms, layer, atoms))(data) * weights)

    direction = np.random.default_rng(4).normal(size=atoms.shape)
    numeric = np.sum((last(atoms + h * direction) - last(atoms - h * direction)) * weights) / (2 * h)
    np.testing.assert_allclose(np.sum(slope(atoms) * direction), numeric, rtol=1e-6)


def test_near_the_minimum_the_published_run_and_inference_differ_by_rounding(published, x64):
    atoms, data, states = published
    # The published run itself, from a start moved by one rounding error, ends this far from itself.
    moved = published_states(data * (1 + 1e-16) + 1e-16, atoms, 100)[0]
    assert np.max(np.abs(moved[100] - states[0][100])) > 1e-4
    codes = np.asarray(infer(rmsprop_layer(atoms), data).value)
    energies = [published_energy(data, atoms, z) for z in (codes, states[0][100])]
    np.testing.assert_allclose(*energies, rtol=1e-4)
    np.testing.assert_allclose(codes, states[0][100], atol=10 * RATE)


def test_whether_the_published_inference_converges_depends_on_scale_and_is_told(published, x64):
    atoms, data, _ = published
    solutions = [infer(rmsprop_layer(atoms), scale * data) for scale in (1, 40)]
    assert np.all(solutions[0].status == Status.converged)
    assert np.all(solutions[1].status == Status.max_steps_reached)
    assert 0.9 < np.max(np.abs(solutions[1].value)) < 1.1  # ηn/(1 − μ) = 1


def test_derivatives_through_few_steps_of_rmsprop_are_exact(x64):
    atoms, xs = problem()
    penalty = SmoothL1(GAMMA / 2, 1e-3)
    layer = rmsprop_layer(atoms, 10, gradient=Unrolled(), penalty=penalty, learn_penalty=True)
    assert_finite_differences(layer, xs, 1e-7, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_derivatives_through_all_steps_of_rmsprop_explode_near_the_minimum(x64):
    atoms, xs = problem()
    layers = [rmsprop_layer(atoms, 200, gradient=mode, tol=1e-10) for mode in (Unrolled(), Implicit())]
    unrolled, implicit = (np.linalg.norm(gradients(layer, xs)[1].dictionary.atoms) for layer in layers)
    assert unrolled > 1e9 * implicit


def test_bad_arguments_are_named(untyped):
    atoms, xs = problem()
    bad = {
        "dictionary: expected an instance of AbstractDictionary, got ndarray": {"dictionary": atoms},
        "penalty: expected an instance of AbstractPenalty, got float": {"penalty": 0.1},
        "solver: expected an instance of AbstractSolver, got the class ISTA": {"solver": ISTA},
        "gradient: expected an instance of AbstractGradient, got str": {"gradient": "implicit"},
        "learn_penalty: expected an instance of bool, got int": {"learn_penalty": 1},
        'returns: expected "code" or "reconstruction", got \'codes\'': {"returns": "codes"},
        "tol: expected a number > 0, got 0": {"tol": 0},
        "max_steps: expected a whole number ≥ 1, got 0": {"max_steps": 0},
        "steps_per_check: expected a whole number ≥ 1, got 1.5": {"steps_per_check": 1.5},
    }
    for message, argument in bad.items():
        with pytest.raises(ValueError, match=message):
            SparseCodingLayer(**{"dictionary": Dictionary(atoms), "penalty": L1(0.1), **argument})
    layer = make_layer(atoms, None, jnp.float32)
    for x, message in [
        (xs[0, 1:], "x: expected 8 features of the dictionary on axis -1"),
        (xs, r"x: expected 1 axes \(features\), got shape \(5, 8\)"),
        (np.arange(8) + 0j, "x: expected real numbers, got dtype complex"),
    ]:
        with pytest.raises(ValueError, match=message):
            layer(x)


def test_bad_rmsprop_settings_are_named_and_equal_ones_share_a_solver(untyped):
    for name, value in [("step_size", 0), ("decay", 1.0), ("momentum", -0.1), ("epsilon", 0)]:
        with pytest.raises(ValueError, match=f"{name}: expected a number .*, got {value}"):
            rmsprop_inference(**{name: value})
    assert rmsprop_inference() is rmsprop_inference(1e-3)
    assert rmsprop_inference(momentum=0.5) is not rmsprop_inference()
