"""Annealing in few steps: a rough path leaves the mean of the weights exact, and shows a wrong transition."""

import jax
import jax.numpy as jnp
import numpy as np
from boltzmann_truth import bernoulli_rbm, enumerate_rbm, parameters

from neurojax import boltzmann as bm

N_CHAINS = 20_000


def test_the_mean_weight_is_exact_with_one_temperature_between_the_ends(x64):
    rbm, base = bernoulli_rbm(8, 5, 4, 0.8), jnp.zeros(5)
    truth = enumerate_rbm(*parameters(rbm))
    rows = np.random.default_rng(1).choice(len(truth.p), N_CHAINS, p=truth.p)
    there = bm.log_partition_ais(
        rbm, jax.random.key(0), base_visible_bias=base, n_chains=N_CHAINS, n_temperatures=3
    )
    back = bm.log_partition_reverse_ais(
        rbm, jnp.asarray(truth.v[rows]), jax.random.key(1), base_visible_bias=base, n_temperatures=3
    )
    for estimate in (there, back):
        assert estimate.standard_error < 0.03
        assert abs(estimate.value - truth.log_z) < 4 * estimate.standard_error
