"""The table of `neurojax.chains`."""

import jax

from neurojax import chains

from ._entry import Entry, key, normal, others


def _kernel(state, key):
    return 0.9 * state + jax.random.normal(key, state.shape, state.dtype)


def _sample_chain(state, key):
    return chains.sample_chain(_kernel, state, key, n_samples=4, n_burn_in=2, thin=2)


def _sample_chains(states, key):
    return chains.sample_chains(_kernel, states, key, n_samples=4)


ENTRIES = [
    Entry(
        "chains.sample_chain",
        _sample_chain,
        lambda: {"state": normal(2, 3), "key": key()},  # a list would be a tree of numbers
        differentiable=("state",),
    ),
    Entry(
        "chains.sample_chains",
        _sample_chains,
        lambda: {"states": normal(5, 3), "key": key()},
        differentiable=("states",),
    ),
    Entry("chains.autocorrelation", chains.autocorrelation, lambda: {"x": normal(12)}, differentiable=("x",)),
    *(
        Entry(f"chains.{name}", getattr(chains, name), lambda: {"x": normal(3, 12)}, differentiable=("x",))
        for name in ("autocorrelation_time", "effective_sample_size", "split_r_hat")
    ),
    *others("chains", "record", "Chain"),
]
