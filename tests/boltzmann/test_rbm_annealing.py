"""Annealing in few steps: a rough path leaves the mean of the weights exact, and shows a wrong transition."""

import jax
import numpy as np
from boltzmann_truth import array, bernoulli_rbm, enumerate_rbm, parameters

from neurojax import boltzmann as bm

N_CHAINS = 20_000


def test_the_mean_weight_is_exact_with_one_temperature_between_the_ends(x64):
    rbm, base = bernoulli_rbm(8, 5, 4, 0.8), array(np.zeros(5))
    truth = enumerate_rbm(*parameters(rbm))
    rows = np.random.default_rng(1).choice(len(truth.p), N_CHAINS, p=truth.p)
    settings = {"base_visible_bias": base, "n_temperatures": 3}

    @jax.jit
    def both(samples):
        there = bm.log_partition_ais(rbm, jax.random.key(0), n_chains=N_CHAINS, **settings)
        return there, bm.log_partition_reverse_ais(rbm, samples, jax.random.key(1), **settings)

    for value, error, _ in both(truth.v[rows]):
        assert float(error) < 0.03
        assert abs(float(value) - truth.log_z) < 4 * float(error)
