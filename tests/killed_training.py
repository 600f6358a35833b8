"""A training run to be killed, `killed_training.py FOLDER`; imported for the run that is not."""

import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from neurojax.training import Checkpoint, Evaluation, fit

N_STEPS = 200
OPTIMIZER = optax.adam(1e-2)


class Regression(eqx.Module):
    strength: jax.Array

    def __call__(self, model, state, batch, key):
        inputs, targets = batch
        hidden = jnp.tanh(inputs @ model["first"]) + 0.01 * jax.random.normal(key, (8,))
        loss = jnp.mean((hidden @ model["second"] - targets) ** 2)
        return loss + self.strength * jnp.sum(model["second"] ** 2), (state + loss, {"error": loss})


def jitter(model, opt_state, state, batch, key):
    noise = 1e-3 * jax.random.normal(key, model["first"].shape)
    return {**model, "first": model["first"] + noise}, opt_state, state


def run(folder, pause=0.0, n_steps=N_STEPS, strength=0.01):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(37, 3)).astype(np.float32)
    targets = np.sin(inputs[:, :1]).astype(np.float32)
    model = {
        "first": random.normal(size=(3, 8)).astype(np.float32),
        "second": random.normal(size=(8, 1)).astype(np.float32),
    }
    return fit(
        model,
        Regression(jnp.array(strength)),
        (inputs, targets),
        optimizer=OPTIMIZER,
        n_steps=n_steps,
        batch_size=5,
        key=jax.random.key(3),
        state=0.0,
        after_update=jitter,
        evaluate=Evaluation(lambda model, state, key: {"loss": jnp.sum(model["second"] ** 2)}, every=9),
        checkpoint=None if folder is None else Checkpoint(folder, every=11, settings={"seed": 0}),
        callback=lambda *_: time.sleep(pause),
        progress=False,
        steps_per_block=4,
    )


def numbers(result):
    leaves = jax.tree.leaves((result.model, result.opt_state, result.state))
    return [np.asarray(leaf) for leaf in leaves] + list(result.history.to_arrays().values())


if __name__ == "__main__":
    run(sys.argv[1], pause=0.04)
