"""The published run's printed errors, from the library's own pieces and the published random sequence."""

import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Float
from published_loop import PRINTED_ERRORS, Run, Settings, random_sequence

from neurojax.convergence import AbstractProblem, AbstractSolver, Status, iterate
from neurojax.penalties import L1
from neurojax.proximal import CompositeProblem
from neurojax.sparse_coding import (
    ISTA,
    Dictionary,
    energy,
    make_problem,
    normalize_atoms,
)

IMAGES = Path(os.environ.get("NEUROJAX_DATA", "absent")) / "olshausen_whitened_images.npz"
pytestmark = pytest.mark.skipif(not IMAGES.exists(), reason="the 1996 images are not under NEUROJAX_DATA")


class PublishedStop(AbstractProblem):
    """A whole batch as one state, stopped by one spectral norm: ‖T(r) − r‖₂/(0.01 + ‖r‖₂)."""

    inference: CompositeProblem

    def fixed_point(self, value):
        return self.inference.fixed_point(value)

    def residual(self, value):
        return _spectral_norm(self.fixed_point(value) - value) / (1e-2 + _spectral_norm(value))


def _spectral_norm(matrix: Float[Array, "rows columns"]):
    """Return the largest singular value by power iteration: G is squared ten times, so this is G¹⁰²⁴.

    A singular value decomposition at each of 5,500 inner updates would take minutes. Were the norm too
    coarse, a batch would stop one update early or late, and the printed figures would not come back.
    """
    gram = matrix.T @ matrix
    power = gram / jnp.maximum(jnp.trace(gram), 1e-300)
    for _ in range(10):
        power = power @ power
        power = power / jnp.maximum(jnp.trace(power), 1e-300)
    direction = power @ jnp.ones(len(gram))
    length = jnp.maximum(jnp.sum(direction**2), 1e-300)
    return jnp.sqrt(direction @ gram @ direction / length)


class OnInference(AbstractSolver):
    solver: ISTA

    def init(self, problem, value):
        return self.solver.init(problem.inference, value)

    def step(self, problem, state):
        return self.solver.step(problem.inference, state)

    def value(self, state):
        return self.solver.value(state)


@eqx.filter_jit
def learning_step(atoms: Float[Array, "atoms features"], batch: Float[Array, "batch features"], opt_state):
    settings, penalty = Settings(), L1(jnp.float64(0.5))
    dictionary = normalize_atoms(Dictionary(atoms))
    inference = make_problem(dictionary, batch, penalty, step_size=settings.code_step)
    solver = ISTA(step_size=settings.code_step)
    # No batch meets the rule before its 49th update, so 46 updates are taken without asking.
    start = jnp.zeros((batch.shape[0], settings.n_atoms))
    start = jax.lax.fori_loop(0, 46, lambda _, codes: inference.fixed_point(codes), start)
    solution = iterate(
        OnInference(solver),
        PublishedStop(inference),
        start,
        tol=settings.tol,
        max_steps=settings.max_inner - 46,
        steps_per_check=1,
    )
    # The stop looks one update ahead, and the published loop takes one more.
    codes = inference.fixed_point(inference.fixed_point(solution.value))

    def total_energy(d):
        return jnp.sum(jax.vmap(energy, (None, 0, 0, None))(d, batch, codes, penalty))

    error = batch - dictionary.reconstruct(codes)
    printed = jnp.mean(error**2) + settings.threshold * jnp.mean(jnp.abs(codes))
    gradient = jax.grad(total_energy)(dictionary)
    updates, opt_state = optax.sgd(settings.atom_step).update(gradient, opt_state)
    is_converged = solution.status == Status.converged
    atoms = jnp.where(is_converged, optax.apply_updates(dictionary, updates).atoms, dictionary.atoms)
    return atoms, opt_state, printed


def golden_run(n_steps: int) -> Run:
    images = np.load(IMAGES)["IMAGES"].transpose(2, 0, 1).astype(np.float64)
    phi, batches = random_sequence(images, Settings())
    atoms = jnp.asarray(phi.T)
    opt_state = optax.sgd(Settings().atom_step).init(Dictionary(atoms))
    run = Run(phi)
    for _, batch in zip(range(n_steps), batches, strict=False):
        atoms, opt_state, printed = learning_step(atoms, jnp.asarray(batch), opt_state)
        run.errors.append(float(printed))
    return run


def test_the_first_printed_error_comes_back(x64):
    assert golden_run(100).moving_error(100) == pytest.approx(PRINTED_ERRORS[0], rel=5e-7)


@pytest.mark.slow
def test_all_five_printed_errors_come_back(x64):
    run = golden_run(500)
    errors = [run.moving_error(step) for step in range(100, 501, 100)]
    assert errors == pytest.approx(PRINTED_ERRORS, rel=5e-7)
