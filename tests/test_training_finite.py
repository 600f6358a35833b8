"""One broken parameter among sound ones ends a run, by its name."""

import jax
import jax.numpy as jnp
import optax
import pytest

from neurojax.training import NonFiniteLossError, fit


@pytest.mark.parametrize("broken", ["first", "second"])
def test_one_broken_parameter_of_two_stops_the_run_by_its_name(broken):
    def objective(model, state, batch, key):
        return jnp.mean((batch - model["first"] - model["second"]) ** 2), (state, {})

    def spoil(model, opt_state, state, batch, key):
        return {**model, broken: jnp.full_like(model[broken], jnp.nan)}, opt_state, state

    model = {"first": jnp.array(0.0), "second": jnp.array(1.0)}
    settings = {"optimizer": optax.sgd(0.1), "n_steps": 1, "key": jax.random.key(0), "after_update": spoil}
    with pytest.raises(NonFiniteLossError, match=broken) as raised:
        fit(model, objective, jnp.ones(4), **settings)
    assert raised.value.step == 1 and raised.value.metric == f"model['{broken}']"
