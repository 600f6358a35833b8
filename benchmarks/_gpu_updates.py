"""Updates of four models, each beside a program that takes the same matrix products and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rbm_speed
import roofline
from _gpu_codes import on_cpu, seconds_of
from _gpu_report import Part

from neurojax import autoencoder as ae
from neurojax.penalties import L1
from neurojax.sparse_coding import SpaRSA, fit_dictionary_online, random_dictionary
from neurojax.training import fit

UPDATES = "updates"


class Setting(NamedTuple):
    """Sizes of the part: hidden units and batch of each machine, and the number of updates in a call."""

    rbms: tuple[tuple[int, int, int], ...] = ((500, 100, 1000), (4096, 4096, 100))
    vaes: tuple[tuple[int, int], ...] = ((100, 1000), (4096, 100))
    sae: tuple[int, int, int] = (16_384, 4096, 20)  # units, batch, updates
    dictionary: tuple[int, int, int] = (512, 4096, 20)  # atoms, batch, updates
    repeats: int = 5


QUICK = Setting(((32, 20, 3),), ((20, 3),), (256, 64, 3), (64, 64, 3), 1)
Loop = Callable[[], Any]


class Case(NamedTuple):
    """What is timed: a whole call of `fit`, and a program of its products alone."""

    name: str
    n_updates: int
    update: Loop
    products: Callable[[Any], Loop]  # from what the call returned: some products depend on it
    flops: Callable[[Any], float]  # of an update's products


def looped(step: Callable[[Any], Any], start: Any, n_updates: int) -> Loop:
    """Return a run of ``n_updates`` steps on the device, each from what the one before left."""
    run = jax.jit(lambda carry: jax.lax.fori_loop(0, n_updates, lambda _, c: step(c), carry))
    return lambda: jax.block_until_ready(run(start))


def normal(seed: int, *shape: int) -> jax.Array:
    """Return normal draws that a product over their last axis leaves at about their size."""
    return jax.random.normal(jax.random.key(seed), shape) / shape[-1] ** 0.5


def rbm_case(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int) -> Case:
    """PCD-1: up twice, down, and the two products of the gradient."""
    sizes = rows, n_hidden, batch_size, n_updates
    update, _ = rbm_speed.library(*sizes, False)
    products, _ = rbm_speed.products_alone(*sizes)

    def at_full_precision() -> Any:
        with jax.default_matmul_precision("highest"):
            return products()

    return Case(
        f"PCD-1, 784–{n_hidden}, batch {batch_size}", n_updates, update, lambda _: at_full_precision,
        lambda _: 5 * 2.0 * batch_size * rows.shape[1] * n_hidden,
    )  # fmt: skip


def vae_case(rows: np.ndarray, batch_size: int, n_updates: int) -> Case:
    """ELBO with one draw: each layer forward, and back to its weights and, but for the first, its input."""
    vae = ae.VariationalAutoencoder.from_sizes(784, [200, 200], 50, jax.random.key(0))
    objective, data, optimizer = ae.ELBOObjective(is_binarized=True), jnp.asarray(rows), optax.adam(1e-3)
    layers = [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]

    def update() -> Any:
        result = fit(
            vae, objective, data, optimizer=optimizer, n_steps=n_updates, batch_size=batch_size,
            key=jax.random.key(1), progress=False, steps_per_block=n_updates,
        )  # fmt: skip
        return jax.block_until_ready(eqx.filter(result.model, eqx.is_array))

    weights = [normal(i, n_out, n_in).T for i, (n_in, n_out) in enumerate(layers)]
    start = jnp.asarray(rows[:batch_size]), weights
    flops = 2.0 * batch_size * (3 * sum(a * b for a, b in layers) - 784 * 200)
    return Case(
        f"VAE, 784–200–200–50, batch {batch_size}", n_updates, update,
        lambda _: looped(_layer_products, start, n_updates), lambda _: flops,
    )  # fmt: skip


def _layer_products(carry: tuple[jax.Array, Sequence[jax.Array]]) -> Any:
    """Apply layers forward and back; small factors keep numbers in range, for one pass over each result."""
    x, weights = carry
    inputs, h = [], x
    for weight in weights:
        inputs.append(h[:, : weight.shape[0]])  # the posterior has means and scales, of which z is made
        h = roofline.multiply(inputs[-1], weight)
    new, back = [], h
    for i in reversed(range(len(weights))):
        back = jnp.pad(back, ((0, 0), (0, weights[i].shape[1] - back.shape[1])))
        new.append(weights[i] + 1e-9 * roofline.multiply(inputs[i].T, back))
        if i:
            back = 1e-2 * roofline.multiply(back, weights[i].T)
    return x + 1e-9 * h, new[::-1]


def sae_case(xs: np.ndarray, n_units: int, batch_size: int, n_updates: int) -> Case:
    """TopK: code, reconstruction, and the gradients of code, atoms, weights and input (for its bias)."""
    data, optimizer = jnp.asarray(xs), optax.adam(1e-3)
    sae = ae.SparseAutoencoder.from_data(data[:1000], n_units, jax.random.key(0), selection=ae.TopK(32))
    objective, upkeep = ae.SparseAutoencoderObjective(), ae.SparseAutoencoderUpkeep()
    state = objective.init(sae)

    def update() -> Any:
        result = fit(
            sae, objective, data, optimizer=optimizer, n_steps=n_updates, batch_size=batch_size, state=state,
            key=jax.random.key(1), progress=False, steps_per_block=n_updates, after_update=upkeep,
        )  # fmt: skip
        return jax.block_until_ready(eqx.filter(result.model, eqx.is_array))

    def products(carry: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        x, weight, atoms = carry
        code = roofline.multiply(x, weight.T)
        error = 1e-2 * roofline.multiply(code, atoms)
        back = roofline.multiply(error, atoms.T)
        new_atoms = atoms + 1e-9 * roofline.multiply(code.T, error)
        new_weight = weight + 1e-9 * roofline.multiply(back.T, x)
        return x + 1e-9 * roofline.multiply(back, weight), new_weight, new_atoms

    start = data[:batch_size], normal(1, n_units, xs.shape[1]), normal(2, n_units, xs.shape[1])
    return Case(
        f"sparse autoencoder, 256–{n_units}, batch {batch_size}", n_updates, update,
        lambda _: looped(products, start, n_updates), lambda _: 6 * 2.0 * batch_size * n_units * xs.shape[1],
    )  # fmt: skip


def dictionary_case(xs: np.ndarray, n_atoms: int, batch_size: int, n_updates: int) -> Case:
    """Online learning: inference, its certificate, statistics, and a row of them for each atom in turn.

    The products of inference are as many as the run took: the mean number of blocks a row, in full slots.
    """
    dictionary, data = random_dictionary(jax.random.key(0), n_atoms, xs.shape[1]), jnp.asarray(xs)
    n_slots = min(batch_size, max(64, 3 * batch_size // 8))
    with on_cpu():
        job = roofline.make_job(dictionary, xs[:64], 64)
    block_size = SpaRSA().block_size

    def update() -> Any:
        return fit_dictionary_online(
            dictionary, L1(common.STRENGTH), data, n_steps=n_updates, key=jax.random.key(1),
            batch_size=batch_size, solver=SpaRSA(), progress=False, steps_per_block=n_updates,
        )  # fmt: skip

    def blocks(result: Any) -> int:
        per_row = float(np.mean(result.history["inference_steps"])) / SpaRSA().n_gradients
        return round(per_row * batch_size / n_slots)

    def products(result: Any) -> Loop:
        n_blocks = blocks(result)
        basis = jnp.asarray(np.asarray(job.dictionary.atoms))
        here = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, job.problem))
        start = data[:batch_size], basis
        return looped(lambda carry: _online_products(carry, job, here, n_slots, n_blocks), start, n_updates)

    def flops(result: Any) -> float:
        inference = blocks(result) * n_slots * roofline.flops_a_block(job, block_size)
        # The drive, two products of the certificate, one of the statistics; the other; the sweep.
        others = 4 * batch_size * xs.shape[1] + batch_size * n_atoms + n_atoms * xs.shape[1]
        return inference + 2.0 * n_atoms * others

    name = f"online dictionary, 256–{n_atoms}, batch {batch_size}"
    return Case(name, n_updates, update, products, flops)


def _online_products(carry, job: roofline.Job, problem: Any, n_slots: int, n_blocks: int) -> Any:
    x, atoms = carry
    drive = roofline.multiply(x, atoms.T)
    here = job._replace(problem=problem, dictionary=eqx.tree_at(lambda d: d.atoms, job.dictionary, atoms))

    def block(_, codes: jax.Array) -> jax.Array:
        return roofline.products(here, codes, SpaRSA().block_size)

    codes = drive.at[:n_slots].add(jax.lax.fori_loop(0, n_blocks, block, drive[:n_slots]))
    error = roofline.multiply(codes, atoms) - x
    pull = roofline.multiply(error, atoms.T)
    squares, cross = roofline.multiply(codes.T, codes), roofline.multiply(codes.T, x)

    def visit(j, atoms: jax.Array) -> jax.Array:
        return atoms.at[j].add(1e-12 * (cross[j] - roofline.multiply(squares[j], atoms)))

    atoms = jax.lax.fori_loop(0, len(atoms), visit, atoms)
    return x + 1e-12 * (error + jnp.sum(pull)), atoms


def measure_case(part: Part, make: Callable[[], Case], repeats: int) -> None:
    """Time a call of `fit` and its products alone turn by turn, after a first call of each."""
    case = make()
    result, _, compilation = seconds_of(case.update, 1)
    products = case.products(result)
    _, _, products_compilation = seconds_of(products, 1)
    seconds = common.interleaved_medians({"fit": case.update, "products": products}, repeats)
    part.add(UPDATES, {
        "update": case.name, "ms an update": 1e3 * seconds["fit"] / case.n_updates,
        "ms of its products alone": 1e3 * seconds["products"] / case.n_updates,
        "ratio": seconds["fit"] / seconds["products"],
        "TFLOP/s of products alone": case.flops(result) * case.n_updates / seconds["products"] / 1e12,
        "updates a call": case.n_updates, "compilation, s": compilation,
        "compilation of products, s": products_compilation,
    })  # fmt: skip


def measure(part: Part, setting: Setting, images: np.ndarray) -> None:
    """Measure every case that there is time for, the sizes of the literature first."""
    digits, _, _ = common.digits(is_quick=True)
    grey = np.asarray(digits.images, np.float32).reshape(-1, 784)
    n_rows = max(setting.sae[1], setting.dictionary[1])
    xs = common.patches(images, 4 * n_rows, seed=3)
    cases: dict[str, Callable[[], Case]] = {}
    for sizes in setting.rbms:
        cases[f"PCD-1 {sizes}"] = lambda s=sizes: rbm_case((grey >= 0.5).astype(np.float32), *s)
    cases[f"sparse autoencoder {setting.sae}"] = lambda: sae_case(xs, *setting.sae)
    cases[f"online dictionary {setting.dictionary}"] = lambda: dictionary_case(xs, *setting.dictionary)
    for sizes in setting.vaes:
        cases[f"VAE {sizes}"] = lambda s=sizes: vae_case(grey, *s)
    for name, make in cases.items():
        part.attempt(name, "case", 15.0, lambda make=make: measure_case(part, make, setting.repeats))
