"""How much of natural image patches does a sparse autoencoder explain, beside certified sparse coding?

Whitened patches of 16×16 pixels, 1024 units (4 times overcomplete). Sparse autoencoders choose their k
units in one pass of an encoder (TopK, with AuxK against dead units); sparse coding minimises ½‖x − z @
atoms‖² + λ‖z‖₁ for each patch, to a certified relative gap, with a dictionary learned at a nearby λ, and λ
then set so that the mean number of active units of the test patches is k. Also shown: the same codes with
their coefficients fitted anew by least squares (an L1 penalty shrinks them), and the autoencoder's own
dictionary with k units found by orthogonal matching pursuit, which says what its one-pass encoder loses.
Explained variance is measured on patches of rows of the images that no one learned from; dead units are
those that none of 20,000 training patches uses.

    python benchmarks/sparse_autoencoder.py [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax import data
from neurojax.autoencoder import (
    SparseAutoencoder,
    SparseAutoencoderObjective,
    SparseAutoencoderUpkeep,
    TopK,
)
from neurojax.metrics import explained_variance, n_active
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    Dictionary,
    DictionaryUpkeep,
    SparseCodingObjective,
    encode_batch,
    orthogonal_matching_pursuit,
    random_dictionary,
)
from neurojax.training import fit


class Setting(NamedTuple):
    """Sizes and lengths of the training."""

    n_units: int = 1024
    ks: tuple[int, ...] = (4, 8, 16, 32)
    n_steps: int = 10_000
    batch: int = 256
    step_size: float = 1e-3
    n_dictionary_steps: int = 1500
    n_test: int = 1000
    n_parts: int = 20


QUICK = Setting(n_units=320, ks=(8,), n_steps=100, n_dictionary_steps=20, n_test=100, n_parts=1)
SAE, OF_ITS_ATOMS = "sparse autoencoder, TopK", "its atoms, orthogonal matching pursuit"
CODING, REFITTED = "sparse coding, L1, certified", "the same, coefficients refitted"


def learn_autoencoder(images: np.ndarray, k: int, setting: Setting, first: np.ndarray):
    """Return a sparse autoencoder."""
    model_key, fit_key = jax.random.split(jax.random.key(k))
    sae = SparseAutoencoder.from_data(first, setting.n_units, model_key, selection=TopK(k))
    objective = SparseAutoencoderObjective()
    result = fit(
        sae, objective, data.PatchSampler(images.astype(np.float32), common.PATCH_SIZE, setting.batch),
        state=objective.init(sae), n_steps=setting.n_steps, key=fit_key,
        optimizer=optax.adam(optax.cosine_decay_schedule(setting.step_size, setting.n_steps)),
        after_update=SparseAutoencoderUpkeep(),
    )  # fmt: skip
    return result.model


def learn_dictionary(images: np.ndarray, strength: float, setting: Setting) -> Dictionary:
    """Return atoms learned at one strength."""
    return fit(
        random_dictionary(jax.random.key(0), setting.n_units, common.PATCH_SIZE**2),
        SparseCodingObjective(L1(strength), tol=1e-2),
        data.PatchSampler(images.astype(np.float32), common.PATCH_SIZE, setting.batch),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.01, setting.n_dictionary_steps)),
        n_steps=setting.n_dictionary_steps, key=jax.random.key(1), after_update=DictionaryUpkeep(),
    ).model  # fmt: skip


def strength_for(dictionary: Dictionary, xs: jax.Array, k: int) -> float:
    """Return the strength at which the codes of ``xs`` have k active units on average."""
    low, high = 1e-3, float(jnp.max(jnp.abs(xs @ dictionary.atoms.T)))
    for _ in range(12):
        middle = (low * high) ** 0.5
        codes = encode_batch(dictionary, xs, L1(middle), tol=1e-3, max_steps=3000).value
        low, high = (middle, high) if float(jnp.mean(n_active(codes))) > k else (low, middle)
    return (low * high) ** 0.5


def refitted(atoms: np.ndarray, xs: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return codes with the same units active and their coefficients by least squares."""
    new = np.zeros_like(codes)
    for row, (x, code) in enumerate(zip(xs, codes, strict=True)):
        active = np.flatnonzero(code)
        new[row, active] = np.linalg.lstsq(atoms[active].T, x, rcond=None)[0]
    return new


def dead_share(encode: Callable[[jax.Array], jax.Array], patches: np.ndarray) -> float:
    """Return the share of units that none of many patches uses."""
    is_used = [np.asarray(jnp.any(encode(jnp.asarray(part)) != 0, axis=0)) for part in patches]
    return 1 - float(np.mean(np.any(is_used, axis=0)))


def measure(
    k: int, images: np.ndarray, xs: jax.Array, setting: Setting, strength: float
) -> tuple[list, float]:
    """Return the rows of the table for one k, and the strength found."""
    begin = time.perf_counter()
    sae = learn_autoencoder(images, k, setting, common.patches(images, 2000, 3))
    minutes = (time.perf_counter() - begin) / 60
    codes = eqx.filter_jit(lambda model, rows: jax.vmap(model.encode)(rows))(sae, xs)
    many = common.patches(images, setting.n_parts * 1000, 5).reshape(setting.n_parts, 1000, -1)
    dead = dead_share(jax.jit(jax.vmap(lambda x: sae.encode(x))), many)
    rows = [row(SAE, k, codes, xs, jax.vmap(sae.decode)(codes), minutes, dead)]
    pursued = jax.jit(
        jax.vmap(
            lambda x: (
                orthogonal_matching_pursuit(Dictionary(sae.atoms), x - sae.decoder_bias, n_steps=k).value
            )
        )
    )(xs)
    rows.append(row(OF_ITS_ATOMS, k, pursued, xs, jax.vmap(sae.decode)(pursued)))
    begin = time.perf_counter()
    dictionary = learn_dictionary(images, strength, setting)
    minutes = (time.perf_counter() - begin) / 60
    strength = strength_for(dictionary, xs, k)
    solution = encode_batch(dictionary, xs, L1(strength), tol=1e-5, max_steps=20_000)
    atoms, codes = np.asarray(dictionary.atoms, np.float64), np.asarray(solution.value, np.float64)
    gap = common.certify(atoms, np.asarray(xs), codes, strength)[0]
    dead = dead_share(lambda part: encode_batch(dictionary, part, L1(strength), tol=1e-2).value, many)
    rows.append(row(CODING, k, solution.value, xs, solution.value @ dictionary.atoms, minutes, dead, gap))
    again = refitted(atoms, np.asarray(xs, np.float64), codes)
    rows.append(row(REFITTED, k, again, xs, again @ atoms))
    return rows, strength


def row(
    name, k, codes, xs, reconstructions, minutes=float("nan"), dead=float("nan"), gap=float("nan")
) -> dict:
    """Return a row of the table."""
    return {
        "k": k, "contender": name, "mean L0": float(jnp.mean(n_active(jnp.asarray(codes)))),
        "explained variance": float(explained_variance(xs, jnp.asarray(reconstructions))),
        "dead, %": 100 * dead, "worst relative gap": gap, "minutes of learning": minutes,
    }  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=1).parse_args()
    setting = QUICK if arguments.quick else Setting()
    images, name = common.whitened_images()
    train, held_out = common.split_rows(images)
    xs = jnp.asarray(common.patches(held_out, setting.n_test, 4))
    print({"data": name, **setting._asdict()}, common.machine(), sep="\n", flush=True)
    table, strength = [], 1.5
    for k in setting.ks:
        rows, found = measure(k, train, xs, setting, strength)
        # The next dictionary is learned for about twice as many active units.
        strength = 0.7 * found
        common.print_table(rows)
        table += rows
    settings = {"data": name, **setting._asdict()}
    common.save_results(arguments.results, "sparse_autoencoder", table, settings, _plot(table))


def _plot(table: list[dict]) -> Figure:
    figure = Figure((6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, style in ((SAE, "o-"), (OF_ITS_ATOMS, "o:"), (CODING, "s-"), (REFITTED, "s:")):
        rows = [row for row in table if row["contender"] == name]
        axes.plot([r["mean L0"] for r in rows], [r["explained variance"] for r in rows], style, label=name)
    axes.set(xlabel="active units a patch (L0)", ylabel="explained variance", xscale="log", ylim=(0, 1))
    ks = sorted({row["k"] for row in table})
    axes.set_xticks(ks, map(str, ks))
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
