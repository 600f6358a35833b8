"""The published sparse-coding loop, restated in NumPy: the time and the codes that others are held against.

Proximal gradient on a batch with one stopping rule for all of it, then one gradient step on the dictionary
(Φ here is features × atoms, codes are samples × atoms), driven by NumPy's legacy generator so that its
printed errors come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

PRINTED_ERRORS = (0.05376330, 0.04936407, 0.04899764, 0.04885324, 0.04789606)
"""Moving error at steps 100, 200, … 500."""


@dataclass(frozen=True)
class Settings:
    """The published settings."""

    n_atoms: int = 100
    patch_size: int = 16
    batch_size: int = 250
    n_steps: int = 500
    max_inner: int = 999
    code_step: float = 1e-2
    atom_step: float = 1e-2
    threshold: float = 5e-3
    tol: float = 1e-2


@dataclass
class Run:
    """What a run leaves: the dictionary, the error of each step and the inner updates taken."""

    phi: np.ndarray
    errors: list[float] = field(default_factory=list)
    n_inner: list[int] = field(default_factory=list)

    def moving_error(self, step: int) -> float:
        """Average the errors of steps ``step − 100 … step − 2``."""
        return float(np.mean(self.errors[step - 100 : step - 1]))


def random_sequence(
    images: np.ndarray, settings: Settings, seed: int = 0
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Return the start dictionary and the batches that seed 0 gave (``images``: image, row, column)."""
    rng = np.random.RandomState(seed)
    p, n = settings.patch_size, settings.batch_size
    phi = rng.randn(p * p, settings.n_atoms).astype(np.float32) * np.float32(np.sqrt(1 / settings.n_atoms))

    def batches() -> Iterator[np.ndarray]:
        while True:
            columns = rng.randint(0, images.shape[2] - p, n)
            rows = rng.randint(0, images.shape[1] - p, n)
            batch = np.zeros((n, p * p))
            for i in range(n):
                image = images[rng.randint(0, images.shape[0])]
                patch = image[rows[i] : rows[i] + p, columns[i] : columns[i] + p].reshape(-1)
                batch[i] = patch - patch.mean()
            yield batch

    return phi, batches()


def soft(v: np.ndarray, threshold: float) -> np.ndarray:
    """Shrink towards 0 by ``threshold``."""
    return np.maximum(v - threshold, 0) - np.maximum(-v - threshold, 0)


def infer(batch: np.ndarray, phi: np.ndarray, settings: Settings) -> tuple[np.ndarray, int, bool]:
    """Return the codes at the published stop, the updates taken, and whether the batch got there."""
    codes = np.zeros((batch.shape[0], phi.shape[1]))
    for n_inner in range(1, settings.max_inner + 1):
        previous = codes
        codes = soft(codes + settings.code_step * (batch - codes @ phi.T) @ phi, settings.threshold)
        change = np.linalg.norm(codes - previous, ord=2) / (1e-2 + np.linalg.norm(previous, ord=2))
        if change < settings.tol:
            codes = soft(codes + settings.code_step * (batch - codes @ phi.T) @ phi, settings.threshold)
            return codes, n_inner + 1, True
    return codes, settings.max_inner, False


def run(
    images: np.ndarray,
    settings: Settings = Settings(),
    *,
    n_steps: int | None = None,
    callback: Callable[[int, Run], None] | None = None,
) -> Run:
    """Learn for ``n_steps`` steps (default: all) on whitened ``images`` of shape (image, row, column)."""
    phi, batches = random_sequence(images, settings)
    result = Run(phi)
    for step, batch in zip(range(n_steps or settings.n_steps), batches, strict=False):
        result.phi = phi = phi / np.maximum(np.linalg.norm(phi, axis=0, keepdims=True), 1e-8)
        codes, n_inner, has_converged = infer(batch, phi, settings)
        error = batch - codes @ phi.T
        if has_converged:
            result.phi = phi = (phi + settings.atom_step * error.T @ codes).astype(np.float32)
        result.errors.append(float(np.mean(error**2) + settings.threshold * np.mean(np.abs(codes))))
        result.n_inner.append(n_inner)
        if callback is not None:
            callback(step + 1, result)
    return result
