"""Autoencoders: plain, denoising, contractive, stacked, sparse and variational.

A model holds parameters and takes one sample (``vmap`` for many): ``encode``, ``decode``, ``reconstruct``.
What it learns to be is its objective's affair: the same `Autoencoder` is a denoising, a contractive or a
sparse one by a setting of `ReconstructionObjective`.

Losses are sums over the units of a datum, in nats where they are −log p, and means over the batch, so that
strengths mean the same at every batch size. (One term is of the batch as a whole: the divergence of mean
activities from a target.)

Example:
    >>> import jax, optax
    >>> from neurojax import autoencoder as ae, data, training
    >>> digits = data.mnist_subset().images.reshape(-1, 784)
    >>> model = ae.Autoencoder.from_sizes(784, [50], jax.random.key(0))
    >>> result = training.fit(model, ae.ReconstructionObjective(), digits, optimizer=optax.sgd(0.1),
    ...                       n_steps=500, batch_size=20, key=jax.random.key(1))
    >>> bool(result.history["loss"][-20:].mean() < 130)  # nats a digit; it starts above 500
    True
"""

from ._bounds import ELBOObjective, ImportanceWeightedObjective
from ._classifier import ClassificationObjective, Classifier
from ._contraction import contraction, jacobian_norm, jacobian_singular_values
from ._layers import TiedLinear
from ._models import AbstractAutoencoder, Autoencoder
from ._noise import AbstractNoise, BitFlipNoise, GaussianNoise, MaskingNoise, SaltAndPepperNoise
from ._objectives import ReconstructionObjective
from ._outputs import AbstractOutput, BernoulliOutput, GaussianOutput, cross_entropy, squared_error
from ._selection import (
    AbstractSelection,
    BatchTopK,
    JumpReLU,
    ReLU,
    TopK,
    jump_relu,
    top_k,
    top_k_batch,
)
from ._sparse import (
    SparseAutoencoder,
    SparseAutoencoderObjective,
    SparseAutoencoderState,
    SparseAutoencoderUpkeep,
)
from ._stack import StackedAutoencoder, fit_stacked_autoencoder
from ._variational import (
    GaussianPosterior,
    LogLikelihood,
    VariationalAutoencoder,
    elbo,
    importance_weighted_bound,
    log_likelihood,
    log_weights,
)

__all__ = [
    "AbstractAutoencoder",
    "AbstractNoise",
    "AbstractOutput",
    "AbstractSelection",
    "Autoencoder",
    "BatchTopK",
    "BernoulliOutput",
    "BitFlipNoise",
    "ClassificationObjective",
    "Classifier",
    "ELBOObjective",
    "GaussianNoise",
    "GaussianOutput",
    "GaussianPosterior",
    "ImportanceWeightedObjective",
    "JumpReLU",
    "LogLikelihood",
    "MaskingNoise",
    "ReLU",
    "ReconstructionObjective",
    "SaltAndPepperNoise",
    "SparseAutoencoder",
    "SparseAutoencoderObjective",
    "SparseAutoencoderState",
    "SparseAutoencoderUpkeep",
    "StackedAutoencoder",
    "TiedLinear",
    "TopK",
    "VariationalAutoencoder",
    "contraction",
    "cross_entropy",
    "elbo",
    "fit_stacked_autoencoder",
    "importance_weighted_bound",
    "jacobian_norm",
    "jacobian_singular_values",
    "jump_relu",
    "log_likelihood",
    "log_weights",
    "squared_error",
    "top_k",
    "top_k_batch",
]
