"""Data that the sparse-coding tests share."""

import numpy as np
import pytest


def random_problem(n_samples, n_features, n_atoms, seed=0):
    """Unit-length Gaussian atoms and data of a few atoms with noise, in float64."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(n_atoms, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = rng.normal(size=(n_samples, n_atoms)) * (rng.random((n_samples, n_atoms)) < 0.1)
    return atoms, codes @ atoms + 0.05 * rng.normal(size=(n_samples, n_features))


@pytest.fixture(scope="session")
def small():
    """30 atoms of 20 features, 8 data."""
    return random_problem(8, 20, 30)
