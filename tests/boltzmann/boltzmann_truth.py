"""What the tests of Boltzmann machines are held against: sums over all states, in NumPy and float64."""

from itertools import product
from typing import NamedTuple

import jax
import numpy as np
from scipy import stats

from neurojax import boltzmann as bm
from neurojax.boltzmann import AbstractNegativePhase

free_energies = jax.jit(jax.vmap(bm.free_energy, (None, 0)))
hidden_probabilities = jax.jit(jax.vmap(bm.hidden_probabilities, (None, 0)))
visible_probabilities = jax.jit(jax.vmap(bm.visible_probabilities, (None, 0)))
log_partition_exact = jax.jit(bm.log_partition_exact)
# In one program: the variance's logit is otherwise a dozen of them.
gaussian_rbm = jax.jit(bm.GaussianBernoulliRBM, static_argnames="variance_bounds")


def array(values, dtype=None):
    """NumPy's numbers on the device, in JAX's default precision if none is given; compiles no program."""
    return jax.device_put(np.asarray(values, dtype))


def zeros(*shape):
    return array(np.zeros(shape))


def binary_states(n):
    """Every state of n binary units, in the order of `state_index`."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)


def state_index(v):
    return (np.asarray(v) @ 2 ** np.arange(np.shape(v)[-1])).astype(int)


def one_hot_states(n_sites, n_states):
    """Every state of categorical sites, the last site running fastest."""
    return np.array([np.concatenate(rows) for rows in product(np.eye(n_states), repeat=n_sites)])


def parameters(rbm):
    """Weights, visible and hidden bias in float64."""
    return tuple(np.asarray(x, float) for x in (rbm.weights, rbm.visible_bias, rbm.hidden_bias))


def random_parameters(seed, n_visible, n_hidden, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = ((n_visible, n_hidden), (n_visible,), (n_hidden,))
    return tuple(scale * rng.normal(size=shape) for shape in shapes)


def bernoulli_rbm(seed, n_visible, n_hidden, scale=1.0, dtype=None):
    return bm.BernoulliRBM(*(array(x, dtype) for x in random_parameters(seed, n_visible, n_hidden, scale)))


def negative_energies(weights, visible_bias, hidden_bias, v, h, variance=None):
    """−E of every pair of rows of v and h: of Gaussian units if a variance is given."""
    if variance is None:
        return v @ weights @ h.T + (v @ visible_bias)[:, None] + h @ hidden_bias
    alone = -np.sum((v - visible_bias) ** 2 / (2 * variance), axis=1)
    return alone[:, None] + (v / variance) @ weights @ h.T + h @ hidden_bias


class Truth(NamedTuple):
    """The distribution of a machine of discrete units, by enumeration."""

    v: np.ndarray
    h: np.ndarray
    log_z: float
    joint: np.ndarray  # p(v, h)
    p: np.ndarray  # p(v)
    log_p: np.ndarray

    @property
    def transitions(self):
        """T[v, v'] of one Gibbs step v -> h -> v'."""
        return (self.joint / self.p[:, None]) @ (self.joint / self.joint.sum(axis=0)).T

    @property
    def hidden_given_visible(self):
        return self.joint @ self.h / self.p[:, None]


def enumerate_rbm(weights, visible_bias, hidden_bias, v=None):
    """Enumerate a machine of discrete units; ``v``: its visible states, if they are not all binary ones."""
    v, h = binary_states(len(weights)) if v is None else v, binary_states(weights.shape[1])
    minus_e = negative_energies(weights, visible_bias, hidden_bias, v, h)
    log_v = np.logaddexp.reduce(minus_e, axis=1)
    log_z = np.logaddexp.reduce(log_v)
    return Truth(v, h, log_z, np.exp(minus_e - log_z), np.exp(log_v - log_z), log_v - log_z)


def hidden_means(weights, visible_bias, hidden_bias, v, variance=None):
    """E[h | v] of each row, by enumeration of h."""
    h = binary_states(weights.shape[1])
    minus_e = negative_energies(weights, visible_bias, hidden_bias, v, h, variance)
    p = np.exp(minus_e - minus_e.max(axis=1, keepdims=True))
    return p @ h / p.sum(axis=1, keepdims=True)


def mean_free_energy(weights, visible_bias, hidden_bias, v, variance=None):
    h = binary_states(weights.shape[1])
    minus_e = negative_energies(weights, visible_bias, hidden_bias, v, h, variance)
    return -np.mean(np.logaddexp.reduce(minus_e, axis=1))


def finite_differences(function, arrays, step=1e-5):
    """Central differences of a scalar function of several arrays, one gradient for each."""
    gradients = []
    for k, array in enumerate(arrays):
        gradient = np.zeros_like(array)
        for i in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][i] += sign * step
                values.append(function(*moved))
            gradient[i] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def chi_square_p_value(counts, p):
    """P of a larger chi-square statistic, states with fewer than 5 expected counts taken together."""
    counts, expected = np.asarray(counts, float), np.sum(counts) * np.asarray(p)
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert expected[-1] > 0 or counts[-1] == 0, "a state of probability 0 was drawn"
    counts, expected = counts[expected > 0], expected[expected > 0]
    return stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), len(counts) - 1)


def standard_scores(values, expected, floor=1e-12):
    """(mean − expected)/standard error over the leading axis of independent values."""
    values = np.asarray(values, float)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return (values.mean(axis=0) - expected) / np.maximum(error, floor)


class Given(AbstractNegativePhase):
    """A negative phase of samples that are given."""

    samples: jax.Array

    def init(self, rbm, n_chains, key):
        return None

    def draw(self, rbm, state, batch, key):
        return self.samples, state, {}
