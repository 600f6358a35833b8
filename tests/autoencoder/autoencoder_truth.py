"""What the tests of autoencoders share: finite differences, scores, and a model whose likelihood is known."""

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from scipy import stats

from neurojax import autoencoder as ae


def array(values, dtype=None):
    """NumPy's numbers on the device, in JAX's default precision if none is given; compiles no program."""
    return jax.device_put(np.asarray(values, dtype))


def zeros(*shape):
    return array(np.zeros(shape))


def quick(function, **settings):
    """Compile in a hurry: most functions here run once. Methods of modules that hold arrays may come too."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(lambda *args, **kwargs: function(*args, **kwargs), compiler_options=options, **settings)


def flat(tree):
    """The trainable numbers of a tree, in a row."""
    return np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]
    )


def filled(tree, row):
    """A tree like this one with the trainable numbers of a row."""
    leaves, structure = jax.tree.flatten(tree)
    start = 0
    for i, leaf in enumerate(leaves):
        if eqx.is_inexact_array(leaf):
            leaves[i] = row[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
    return jax.tree.unflatten(structure, leaves)


def finite_differences(function, tree, step=1e-5):
    """Central differences of a scalar function of a tree, as `flat` has them; it is compiled, or NumPy's."""
    row, slopes = flat(tree), []
    for i in range(row.size):
        moved = np.repeat(row[None], 2, axis=0)
        moved[:, i] += step, -step
        slopes.append(np.subtract(*(float(function(filled(tree, x))) for x in moved)) / (2 * step))
    return np.array(slopes)


def standard_scores(values, expected, floor=1e-12):
    """(mean − expected)/standard error over the leading axis of independent values."""
    values = np.asarray(values, float)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return (values.mean(axis=0) - expected) / np.maximum(error, floor)


def layer(weight, bias, dtype=float):
    """A dense layer of given numbers."""
    n_out, n_in = np.shape(weight)
    new = eqx.filter_eval_shape(eqx.nn.Linear, n_in, n_out, dtype=dtype, key=jax.random.key(0))
    return eqx.tree_at(lambda x: (x.weight, x.bias), new, (array(weight, dtype), array(bias, dtype)))


def drawn(make, seed, scale=0.8):
    """What ``make()`` returns with numbers of NumPy's: its own start is neither drawn nor compiled."""
    rng = np.random.default_rng(seed)

    def numbers(leaf):
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        return array(rng.normal(0, scale, leaf.shape), leaf.dtype) if is_shape else leaf

    return jax.tree.map(numbers, eqx.filter_eval_shape(make))


def prototypes(seed, n_rows, n_features=12, n_kinds=4, flip=0.05):
    """Binary rows around a few patterns, and which pattern each has."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(7).integers(0, 2, (n_kinds, n_features))
    kinds = rng.integers(0, n_kinds, n_rows)
    flips = rng.random((n_rows, n_features)) < flip
    return np.where(flips, 1 - patterns[kinds], patterns[kinds]).astype(float), kinds.astype("int32")


class Gaussian(NamedTuple):
    """x = W z + b + scale·noise: all that can be asked of it has a closed form."""

    weights: np.ndarray
    bias: np.ndarray
    scale: float

    @property
    def posterior_covariance(self):
        n_latent = self.weights.shape[1]
        return np.linalg.inv(np.eye(n_latent) + self.weights.T @ self.weights / self.scale**2)

    @property
    def gain(self):
        """Of the posterior mean, gain @ (x − bias)."""
        return self.posterior_covariance @ self.weights.T / self.scale**2

    def log_p(self, x):
        covariance = self.weights @ self.weights.T + self.scale**2 * np.eye(len(self.bias))
        return stats.multivariate_normal(self.bias, covariance).logpdf(x)

    def gap(self, x, vae):
        """KL(q(z | x) ‖ p(z | x)) of the machine's q."""
        q = vae.posterior(array(x))
        variance, mean = np.exp(2 * np.asarray(q.log_scale)), np.asarray(q.mean)
        precision = np.linalg.inv(self.posterior_covariance)
        away = mean - self.gain @ (np.asarray(x) - self.bias)
        logs = np.linalg.slogdet(self.posterior_covariance)[1] - np.sum(np.log(variance))
        return 0.5 * (np.diag(precision) @ variance + away @ precision @ away - len(mean) + logs)

    def vae(self, inflation=1.0, dtype=float):
        """The machine with the exact posterior's mean, and its variances' roots times ``inflation``."""
        n_latent = self.weights.shape[1]
        weight = np.concatenate([self.gain, np.zeros_like(self.gain)])
        log_scale = np.log(inflation * np.sqrt(np.diag(self.posterior_covariance)))
        bias = np.concatenate([-self.gain @ self.bias, log_scale])
        assert len(log_scale) == n_latent
        return ae.VariationalAutoencoder(
            (),
            layer(weight, bias, dtype),
            (layer(self.weights, self.bias, dtype),),
            ae.GaussianOutput(self.scale),
        )


# The columns of the first are orthogonal, so that its posterior is diagonal; the second's is not.
DIAGONAL = Gaussian(
    np.array([[1.0, 0.5], [1.0, -0.5], [0.5, 1.0], [0.5, -1.0]]), np.array([0.3, -0.2, 0.1, 0.5]), 0.7
)
SKEWED = Gaussian(
    np.array([[1.0, 0.8], [0.2, 0.9], [-0.5, 0.4], [0.7, 0.1]]), np.array([0.3, -0.2, 0.1, 0.5]), 0.7
)
POINTS = np.array([[0.5, -1.0, 0.2, 0.9], [2.0, 1.0, -1.5, 0.0], [0.3, -0.2, 0.1, 0.5]])
