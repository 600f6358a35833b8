"""Restricted Boltzmann machines: energies, Gibbs sampling, learning rules, and their likelihood.

A machine holds parameters; everything else is a pure function of it and one sample (``vmap`` for many).
Sampling is a kernel for `neurojax.chains`, learning an objective for `neurojax.training.fit`.

Random numbers are the hidden cost of sampling: a binary unit takes 16 bits. Keys of JAX's default (threefry)
give the same draws everywhere; ``jax.random.key(seed, impl="rbg")`` is quicker on accelerators, and its draws
change under ``vmap``.

What a likelihood is worth: up to 20 units on the smaller side `log_partition_exact` is the truth. Beyond,
`log_partition_ais` is too low in expectation, so a likelihood from it flatters, and a small standard error
proves nothing; `log_partition_reverse_ais` is too high in expectation if its samples are exact.
`log_partition_bracket` takes both and says if they have crossed, as samples of chains that have not mixed
make them do. Report both, the base rate they start from, and how the data were binarized.

Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> from neurojax import boltzmann, training
    >>> stripes = jnp.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    >>> rbm = boltzmann.BernoulliRBM.from_data(stripes, 3, jax.random.key(0), scale=0.1)
    >>> objective = boltzmann.ContrastiveObjective()
    >>> result = training.fit(rbm, objective, stripes, optimizer=optax.sgd(0.2), n_steps=500,
    ...                       key=jax.random.key(1), state=objective.init(rbm, 50, jax.random.key(2)))
    >>> log_partition = jax.jit(boltzmann.log_partition_exact)(result.model)
    >>> log_likelihoods = jax.jit(jax.vmap(boltzmann.log_likelihood, (None, 0, None)))
    >>> mean = log_likelihoods(result.model, stripes, log_partition).mean()
    >>> bool(mean > -1.0)  # at best -log 2 = -0.69; the base rate has -4 log 2 = -2.77
    True
"""

from ._deep import DeepBeliefNetwork, fit_deep_belief_network
from ._energy import (
    energy,
    free_energy,
    gibbs_step,
    hidden_probabilities,
    mean_field_step,
    sample_hidden,
    visible_probabilities,
)
from ._labels import append_labels, clamped_gibbs_step, class_log_probabilities
from ._learning import CentredGradient, CentredState, ContrastiveObjective
from ._likelihood import free_energy_gap, pseudo_log_likelihood, pseudo_log_likelihood_exact
from ._models import AbstractRBM, BernoulliRBM, GaussianBernoulliRBM, PottsRBM
from ._partition import (
    MOST_ENUMERATED_UNITS,
    Bracket,
    Estimate,
    log_likelihood,
    log_partition_ais,
    log_partition_bracket,
    log_partition_exact,
    log_partition_reverse_ais,
)
from ._phases import (
    AbstractNegativePhase,
    ContrastiveDivergence,
    ParallelTempering,
    PersistentChains,
    PersistentContrastiveDivergence,
    Replicas,
)
from ._samples import AdversarialAccuracy, adversarial_accuracy

__all__ = [
    "MOST_ENUMERATED_UNITS",
    "AbstractNegativePhase",
    "AbstractRBM",
    "AdversarialAccuracy",
    "BernoulliRBM",
    "Bracket",
    "CentredGradient",
    "CentredState",
    "ContrastiveDivergence",
    "ContrastiveObjective",
    "DeepBeliefNetwork",
    "Estimate",
    "GaussianBernoulliRBM",
    "ParallelTempering",
    "PersistentChains",
    "PersistentContrastiveDivergence",
    "PottsRBM",
    "Replicas",
    "adversarial_accuracy",
    "append_labels",
    "clamped_gibbs_step",
    "class_log_probabilities",
    "energy",
    "fit_deep_belief_network",
    "free_energy",
    "free_energy_gap",
    "gibbs_step",
    "hidden_probabilities",
    "log_likelihood",
    "log_partition_ais",
    "log_partition_bracket",
    "log_partition_exact",
    "log_partition_reverse_ais",
    "mean_field_step",
    "pseudo_log_likelihood",
    "pseudo_log_likelihood_exact",
    "sample_hidden",
    "visible_probabilities",
]
