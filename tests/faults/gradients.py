"""Faults of gradients and of what a penalty answers for, each with the input that showed it."""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from sklearn.linear_model import Lasso

from neurojax import convergence, penalties, sparse_coding
from neurojax.convergence import Detached, Implicit, Status, Truncated, Unrolled, iterate, trace
from neurojax.penalties import L1, AbstractProximalPenalty, AbstractValuedPenalty
from neurojax.sparse_coding import (
    FISTA,
    Dictionary,
    SpaRSA,
    SparseClassifier,
    SparseCodingLayer,
    TaskDrivenObjective,
    encode,
    encode_batch,
    encode_path,
    encode_stream,
    make_problem,
    random_dictionary,
)

N_ATOMS, N_FEATURES = 128, 64


class Slope(AbstractValuedPenalty, AbstractProximalPenalty):
    """Σᵢ strengthᵢ·|z|₍ᵢ₎, the largest strength for the largest magnitude: a stranger's sorted L1."""

    strengths: Array
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def value(self, code):
        return jnp.sum(self.strengths * jnp.sort(jnp.abs(jnp.asarray(code)))[::-1])

    def prox(self, v, step_size):
        v = jnp.asarray(v)
        order = jnp.argsort(-jnp.abs(v))
        shrunk = jnp.abs(v)[order] - step_size * self.strengths
        # The nearest decreasing sequence, by its min-max formula.
        sums = jnp.concatenate([jnp.zeros(1, v.dtype), jnp.cumsum(shrunk)])
        i = jnp.arange(v.size)
        means = (sums[1:][None] - sums[:-1][:, None]) / jnp.maximum(i[None] - i[:, None] + 1, 1)
        means = jnp.where(i[None] >= i[:, None], means, -1e9)
        after = jnp.flip(jax.lax.cummax(jnp.flip(means, 1), axis=1), 1)  # max over ends ≥ j, start i
        levels = jnp.min(jnp.where(i[:, None] <= i[None], after, 1e9), axis=0)
        return jnp.zeros_like(v).at[order].set(jnp.maximum(levels, 0)) * jnp.sign(v)


@pytest.fixture
def slope_problem(x64):
    """Return a dictionary and a datum whose code under the penalty has tied coefficients, and the penalty."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(8, 6))
    atoms[1] = atoms[0] + 0.05 * rng.normal(size=6)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    x = 1.2 * atoms[0] + 1.1 * atoms[1] - 0.8 * atoms[4]
    return Dictionary(jnp.asarray(atoms)), jnp.asarray(x), lambda s: Slope(s * jnp.linspace(2.0, 0.5, 8))


@pytest.mark.slow
def test_A03_a_tangent_space_that_is_not_a_mask_is_refused_and_not_guessed(slope_problem):
    dictionary, x, penalty = slope_problem
    run = partial(encode, dictionary, x, tol=1e-12, max_steps=20000)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=8))
    forward = jax.jit(lambda s, **mode: run(penalty(s), **mode).value @ weight, static_argnames="gradient")
    code = run(penalty(0.2)).value
    magnitudes = np.abs(np.asarray(code))
    n_equal = np.isclose(magnitudes[:, None], magnitudes, rtol=1e-9).sum(axis=1)
    assert np.any(n_equal[magnitudes > 0.1] > 1)
    numeric = (forward(0.2 + 1e-6) - forward(0.2 - 1e-6)) / 2e-6
    unrolled = jax.jit(jax.grad(partial(forward, gradient=Unrolled())))(0.2)
    np.testing.assert_allclose(unrolled, numeric, rtol=1e-5)
    assert jax.jit(jax.grad(partial(forward, gradient=Detached())))(0.2) == 0
    with pytest.raises(ValueError, match=r"got Slope, which does not; pass gradient=Detached\(\)"):
        jax.jit(jax.grad(forward))(0.2)


def _entries(dictionary, x, penalty):
    """Return each way from a strength to codes; all of them differentiate implicitly by default."""
    problem = lambda s: make_problem(dictionary, x, penalty(s))  # noqa: E731
    start = jnp.zeros(8)
    return {
        "encode": lambda s: encode(dictionary, x, penalty(s)).value,
        "encode_batch": lambda s: encode_batch(dictionary, x[None], penalty(s)).value,
        "encode_batch-sparse": lambda s: encode_batch(
            dictionary, x[None], penalty(s), max_active=8
        ).value.to_dense(),
        "encode_path": lambda s: encode_path(dictionary, x, jax.vmap(penalty)(s * jnp.ones(2))).value,
        "layer": lambda s: SparseCodingLayer(dictionary, penalty(s), learn_penalty=True)(x),
        "iterate": lambda s: iterate(FISTA(), problem(s), start, tol=1e-5, max_steps=500).value,
    }


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("encode_batch-sparse", "encode_path", "layer", "iterate")
]


@pytest.mark.parametrize("name", ["encode", "encode_batch", *SLOW])
def test_A03_every_entry_works_forward_and_names_the_choices_when_differentiated(slope_problem, name):
    entry = _entries(*slope_problem)[name]
    jax.eval_shape(entry, 0.2)
    vmapped = lambda s: jax.vmap(entry)(s * jnp.ones(2))  # noqa: E731
    for transform in (
        jax.jacrev,
        jax.jacfwd,
        lambda f: jax.jacrev(jax.jit(f)),
        lambda f: jax.jacrev(vmapped),
    ):
        with pytest.raises(ValueError, match=r"got Slope, which does not; pass gradient=Detached\(\)"):
            jax.eval_shape(transform(entry), 0.2)


NAMES = ["Cauchy", "ElasticNet", "Gaussian", "GroupL2", "L0", "L1", "Log", "NonNegativeL1", "SmoothL1"]


@pytest.mark.parametrize("name", NAMES)
def test_A05_a_concrete_penalty_is_final(name):
    """A subclass of L1 with value and prox doubled was judged by the gap of L1, and never converged."""
    with pytest.raises(
        TypeError, match=rf"Twice.*got {name}, which is concrete.*Start from Abstract\w+Penalty"
    ):
        type("Twice", (getattr(penalties, name),), {})


def test_A05_every_concrete_class_that_something_asks_for_is_final():
    kinds = {
        convergence.AbstractSolver: (sparse_coding, convergence),
        convergence.AbstractGradient: (convergence,),
        sparse_coding.AbstractDictionary: (sparse_coding,),
        penalties.AbstractPenalty: (penalties,),
    }
    found = {
        cls
        for kind, modules in kinds.items()
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, kind) and not cls.__name__.startswith("Abstract")
    }
    assert len(found) >= 20
    for cls in found:
        with pytest.raises(TypeError, match=r"is concrete and therefore final\. Start from Abstract"):
            type("Own", (cls,), {})


def test_A05_the_penalty_of_the_fault_as_a_penalty_of_its_own():
    """Value and prox of L1 doubled, in a class of its own: the code of L1 at twice the strength."""

    class Twice(AbstractValuedPenalty, AbstractProximalPenalty):
        penalty: L1
        is_smooth: ClassVar[bool] = False
        is_separable: ClassVar[bool] = True

        def value(self, code):
            return 2 * self.penalty.value(code)

        def prox(self, v, step_size):
            return self.penalty.prox(v, 2 * step_size)

    dictionary, x = Dictionary(jnp.eye(3)), jnp.array([2.0, -0.3, 0.1])
    solution = encode(dictionary, x, Twice(L1(0.1)))
    assert solution.status == Status.converged
    np.testing.assert_allclose(solution.value, [1.8, -0.1, 0.0], atol=1e-5)


@pytest.fixture(scope="module")
def noise():
    """Return the overcomplete dictionary of the fault, 20 data and the derivative of their codes' images."""
    dictionary = random_dictionary(jax.random.key(0), N_ATOMS, N_FEATURES)
    xs = jax.random.normal(jax.random.key(1), (20, N_FEATURES))
    weight = jax.random.normal(jax.random.key(2), (N_ATOMS,))
    atoms, data, weights = (np.asarray(a, np.float64) for a in (dictionary.atoms, xs, weight))
    model = Lasso(0.3 / N_FEATURES, fit_intercept=False, tol=1e-12, max_iter=10**6)
    truth = []
    for x in data:
        # dz/ds = −(A_S A_Sᵀ)⁻¹ sign z_S on the support S.
        code = model.fit(atoms.T, x).coef_
        support = code != 0
        inside = atoms[support]
        truth.append(-weights[support] @ np.linalg.solve(inside @ inside.T, np.sign(code[support])))
    return dictionary, xs, weight, np.array(truth)


def _error_of(noise, mode, **settings):
    dictionary, xs, weight, truth = noise

    def image(strength):
        return encode_batch(dictionary, xs, L1(strength), gradient=mode, **settings).value @ weight

    jacobian = jax.jacrev if isinstance(mode, Unrolled) else jax.jacfwd
    found = jax.jit(jacobian(image))(0.3)
    error = np.abs(found - truth)
    return np.linalg.norm(error) / np.linalg.norm(truth), np.median(error / np.abs(truth))


@pytest.mark.slow
def test_A01_the_default_solver_is_one_whose_steps_may_be_differentiated(noise):
    """Barzilai–Borwein steps, held constant, gave a median error of 2 % and one of 1700 times the truth."""
    whole, median = _error_of(noise, Unrolled())
    assert whole < 0.05 and median < 0.01


@pytest.mark.slow
def test_A01_enough_steps_and_the_implicit_derivative_are_right(noise):
    whole, median = _error_of(noise, Truncated(1000))  # with 200 one datum of the twenty is not there yet
    assert whole < 1e-4 and median < 1e-5
    whole, median = _error_of(noise, Implicit())
    # One coefficient of 1,200 may be on the wrong side of its threshold.
    assert whole < 0.02 and median < 1e-5


@pytest.mark.parametrize("mode", [Unrolled(), Truncated(3)], ids=repr)
def test_A01_a_solver_that_says_its_steps_are_not_fit_is_refused_wherever_it_is_given(mode):
    dictionary, xs = Dictionary(jnp.eye(3)), jnp.ones((2, 3))
    message = (
        r"solver: \w+ expected one whose steps may be differentiated .*, got SpaRSA; pass solver=FISTA\(\)"
    )
    classifier = SparseClassifier(dictionary, jnp.ones((3, 2)), jnp.zeros(2))
    objective = TaskDrivenObjective(penalties.ElasticNet(0.1, 0.1), gradient=mode, solver=SpaRSA())
    problem = make_problem(dictionary, xs[0], L1(0.1))
    settings = {"solver": SpaRSA(), "gradient": mode}
    for call in (
        lambda: encode(dictionary, xs[0], L1(0.1), **settings),
        lambda: encode_batch(dictionary, xs, L1(0.1), **settings),
        lambda: encode_path(dictionary, xs[0], L1(jnp.ones(2)), **settings),
        lambda: SparseCodingLayer(dictionary, L1(0.1), **settings)(xs[0]),
        lambda: objective.infer(classifier.dictionary, xs),
        lambda: iterate(SpaRSA(), problem, jnp.zeros(3), tol=1e-5, max_steps=10, gradient=mode),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(call)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Truncated(50), Unrolled()], ids=repr)
def test_A01_a_task_driven_objective_chooses_the_same_solver(mode, x64):
    """Its gradient in the atoms, with the default solver, is that of FISTA bit for bit."""
    rng = np.random.default_rng(3)
    atoms, xs = rng.normal(size=(8, 5)), rng.normal(size=(4, 5))
    labels, weights = np.arange(4) % 2, rng.normal(size=(8, 2))

    def loss(atoms, solver):
        objective = TaskDrivenObjective(
            penalties.ElasticNet(0.2, 0.3), gradient=mode, solver=solver, tol=1e-9
        )
        model = SparseClassifier(Dictionary(atoms), weights, np.zeros(2))
        return objective(model, None, (jnp.asarray(xs), jnp.asarray(labels)), jax.random.key(0))[0]

    slopes = [jax.jit(jax.grad(loss), static_argnums=1)(atoms, solver) for solver in (None, FISTA())]
    np.testing.assert_array_equal(*slopes)


@pytest.mark.slow
def test_A01_the_trajectory_of_sparsa_has_its_own_derivative(x64):
    """Step sizes included: what `trace` promises."""
    rng = np.random.default_rng(4)
    dictionary, x, weight = (
        Dictionary(jnp.asarray(rng.normal(size=(8, 5)))),
        rng.normal(size=5),
        rng.normal(size=8),
    )

    @jax.jit
    @jax.value_and_grad
    def end(x):
        problem = make_problem(dictionary, x, L1(0.1))
        return trace(SpaRSA(), problem, jnp.zeros(8), 3).point.value[-1] @ weight

    direction = rng.normal(size=5)
    numeric = (end(x + 1e-6 * direction)[0] - end(x - 1e-6 * direction)[0]) / 2e-6
    np.testing.assert_allclose(end(x)[1] @ direction, numeric, rtol=1e-6)


def test_A02_what_has_converged_stays_converged():
    """Four of these rows had lost their certificate by five steps more; others their step count."""
    dictionary = random_dictionary(jax.random.key(0), 32, 16)
    xs = jax.random.normal(jax.random.key(1), (200, 16))
    run = encode_batch(dictionary, xs, L1(0.05), solver=FISTA(), gradient=Truncated(5))
    assert np.all(run.status == Status.converged) and np.all(run.residual <= 1e-5)
    assert np.all(run.n_steps % 10 == 0)  # where the loop looks


def test_encode_stream_has_no_derivative_and_says_so():
    xs = np.ones((3, 4), np.float32)
    message = "encode_stream: a host program is not for jit and has no derivative; use encode_batch"
    for run in (
        lambda a: encode_stream(Dictionary(a * jnp.eye(4)), xs, L1(0.1)),
        lambda a: encode_stream(Dictionary(jnp.eye(4)), xs, L1(a)),
        lambda a: encode_stream(Dictionary(jnp.eye(4)), a * xs, L1(0.1)),
    ):
        with pytest.raises(ValueError, match=message):
            jax.grad(lambda a, run=run: run(a).value.sum())(0.5)
    with pytest.raises(ValueError, match="gradient: expected no such argument of encode_stream"):
        encode_stream(Dictionary(jnp.eye(4)), xs, L1(0.1), gradient=Implicit())
