"""The training loop: closed forms, batches, evaluation, and each message."""

import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import killed_training
import numpy as np
import optax
import pytest
from training_runs import ROWS, Counting, n_rows, newest, same, simple, watch

from neurojax.training import (
    AbstractGradientObjective,
    AbstractObjective,
    Checkpoint,
    Evaluation,
    NonFiniteLossError,
)

# Closed forms


def test_gradient_descent_follows_its_closed_form(x64):
    rows = jnp.asarray(np.asarray(ROWS), jnp.float64)
    result = simple(jnp.zeros(2), data=rows, n_steps=25)
    mean = np.mean(np.asarray(rows), 0)
    np.testing.assert_allclose(result.model, mean * (1 - 0.9**25), rtol=1e-12)
    spread = np.mean(np.sum((np.asarray(rows) - mean) ** 2, -1))
    at = np.arange(25)
    np.testing.assert_allclose(
        result.history["loss"], 0.5 * (spread + np.sum(mean**2) * 0.81**at), rtol=1e-12
    )
    assert len(result.history) == 25 and result.model.dtype == jnp.float64


def test_adam_reaches_the_minimum_of_a_quadratic():
    matrix = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    target = jnp.array([1.0, -3.0])

    def objective(model, state, batch, key):
        return 0.5 * model @ batch["matrix"][0] @ model - batch["target"][0] @ model, (state, {})

    data = {"matrix": matrix[None], "target": target[None]}
    schedule = optax.cosine_decay_schedule(0.1, 800)
    result = simple(objective=objective, data=data, optimizer=optax.adam(schedule), n_steps=800)
    np.testing.assert_allclose(result.model, np.linalg.solve(matrix, target), atol=1e-4)


def test_what_is_not_trained_may_be_infinite():
    def objective(model, state, batch, key):
        return jnp.sum(jnp.minimum(model["w"], model["bound"]) ** 2), (state, {})

    model = {"w": jnp.ones(2), "bound": jnp.array(jnp.inf)}
    result = simple(model, objective, trainable={"w": True, "bound": False})
    np.testing.assert_allclose(result.model["w"], 0.8**6, rtol=1e-6)


def test_an_objective_may_supply_its_own_gradient():
    class Constant(AbstractGradientObjective):
        gradient: jax.Array

        def value_and_grad(self, model, state, batch, key):
            return (jnp.sum(model), (state, {})), self.gradient

    result = simple(objective=Constant(jnp.array([1.0, -2.0])), n_steps=5)
    np.testing.assert_allclose(result.model, [-0.5, 1.0], rtol=1e-6)


def test_after_update_runs_last_and_sees_everything():
    def normalise(model, opt_state, state, batch, key):
        return model / jnp.linalg.norm(model), opt_state, state + jnp.sum(batch)

    result = simple(jnp.ones(2), after_update=normalise, state=0.0, n_steps=4)
    assert float(jnp.linalg.norm(result.model)) == pytest.approx(1, abs=1e-6)
    assert float(result.state) == pytest.approx(4 * float(jnp.sum(ROWS)))


def test_each_update_has_keys_of_its_own_and_the_optimiser_sees_the_loss():
    def objective(model, state, batch, key):
        noise = jax.random.normal(key)
        return jnp.sum(model**2) + noise, (state, {"batch": batch, "noise": noise, "update": state})

    result = simple(
        objective=objective,
        data=jax.random.normal,
        state=0.0,
        after_update=lambda model, opt_state, state, batch, key: (model, opt_state, jax.random.normal(key)),
        optimizer=optax.GradientTransformationExtraArgs(
            lambda params: jnp.zeros(()), lambda gradient, state, params, *, value, **_: (gradient, value)
        ),
        n_steps=20,
    )
    draws = np.concatenate([result.history[name] for name in ("batch", "noise", "update")])
    assert len(set(draws.tolist())) == 60
    assert float(result.opt_state) == result.history["loss"][-1]


@pytest.mark.parametrize(
    "trainable", [lambda leaf: eqx.is_array(leaf) and leaf.ndim == 1, {"a": True, "b": False, "f": False}]
)
def test_only_trainable_leaves_change(trainable):
    model = {"a": jnp.ones(2), "b": jnp.ones((1, 2)), "f": jnp.tanh}

    def objective(model, state, batch, key):
        return jnp.sum(model["f"](model["a"]) ** 2 + model["b"] ** 2), (state, {})

    result = simple(model, objective, trainable=trainable, optimizer=optax.adam(0.1))
    assert result.opt_state[0].mu["b"] is None
    assert result.model["f"] is jnp.tanh
    np.testing.assert_array_equal(result.model["b"], np.ones((1, 2)))
    assert np.all(np.asarray(result.model["a"]) < 1)


# Batches


def seen_rows(result):
    return np.asarray(result.state).reshape(-1)


@pytest.mark.parametrize("n_rows", [6, 7])
def test_an_epoch_visits_rows_once_in_an_order_of_its_own_and_drops_its_remainder(n_rows):
    data, state = np.arange(n_rows, dtype=np.float32), jnp.full((3, 2), -1.0)
    settings = {"objective": watch, "data": data, "batch_size": 2, "state": state}
    epochs = [seen_rows(simple(n_steps=n_steps, **settings)) for n_steps in (3, 6, 9)]
    assert all(len(set(rows)) == 6 and set(rows) <= set(data) for rows in epochs)
    assert len({tuple(rows) for rows in epochs}) == 3


def test_without_batch_size_each_update_has_all_rows_in_their_order():
    rows = simple(objective=watch, data=ROWS, state=jnp.zeros((3, 4, 2)), n_steps=3).state
    np.testing.assert_array_equal(rows, np.broadcast_to(ROWS, (3, 4, 2)))


def test_rows_of_all_leaves_stay_together():
    def objective(model, state, batch, key):
        return jnp.sum(model**2), (state, {"apart": jnp.max(jnp.abs(batch["x"] * 2 - batch["y"]))})

    data = {"x": np.arange(9.0), "y": 2 * np.arange(9.0)}
    assert np.all(simple(objective=objective, data=data, batch_size=4).history["apart"] == 0)


def test_rows_of_another_byte_order_are_converted():
    foreign = simple(data=np.asarray(ROWS).astype(">f4")).model
    np.testing.assert_array_equal(foreign, simple().model)


def test_a_sampler_draws_on_the_device_with_a_new_key_each_step():
    class Sampler(eqx.Module):
        rows: jax.Array

        def __call__(self, key):
            return self.rows[jax.random.randint(key, (2,), 0, 1000)]

    sampler = Sampler(jnp.arange(1000.0))
    rows = seen_rows(simple(objective=watch, data=sampler, state=jnp.zeros((3, 2)), n_steps=3))
    assert len(set(rows)) > 3
    again = seen_rows(simple(objective=watch, data=sampler, state=jnp.zeros((3, 2)), n_steps=3))
    np.testing.assert_array_equal(rows, again)


def test_an_iterator_gives_its_batches_in_turn():
    result = simple(objective=watch, data=Counting(), state=jnp.zeros((3, 2)), n_steps=5, steps_per_block=2)
    np.testing.assert_array_equal(result.state[:, 0], [2, 3, 4])
    plain = simple(objective=watch, data=iter(Counting()), state=jnp.zeros((3, 2)), n_steps=5)
    np.testing.assert_array_equal(plain.state, result.state)


def test_an_iterator_that_ends_is_named():
    with pytest.raises(ValueError, match=r"data: expected batches for all n_steps, got 3, then no more"):
        simple(data=Counting(end=3))


# One compilation, the same numbers wherever blocks end


def test_blocks_of_all_lengths_trace_the_objective_once_and_change_nothing():
    traces = []

    def objective(model, state, batch, key):
        traces.append(1)
        return jnp.mean((batch - model) ** 2) + 0.1 * jax.random.normal(key), (state, {})

    results = []
    for steps_per_block in (100, 7):
        results.append(simple(objective=objective, batch_size=3, n_steps=23, steps_per_block=steps_per_block))
    simple(objective=objective, batch_size=3, n_steps=200, steps_per_block=7)
    assert len(traces) == 1
    np.testing.assert_array_equal(results[0].history["loss"], results[1].history["loss"])
    np.testing.assert_array_equal(results[0].model, results[1].model)


def test_strengths_are_arguments_not_constants():
    traces = []

    class Traced(AbstractObjective):
        strength: jax.Array

        def __call__(self, model, state, batch, key):
            traces.append(1)
            return self.strength * jnp.sum(model**2), (state, {})

    first = simple(jnp.ones(2), Traced(jnp.array(1.0)))
    compiled = len(traces)
    second = simple(jnp.ones(2), Traced(jnp.array(2.0)))
    # Checking the objective traces it once more; compiling it again would trace it twice.
    assert len(traces) <= compiled + 1
    np.testing.assert_allclose(second.history["loss"][0], 2 * first.history["loss"][0])


# Non-finite numbers


def explosive(model, state, batch, key):
    fatal = state >= 7
    return jnp.where(fatal, jnp.nan, jnp.sum(model**2)), (state + 1, {"other": 1.0 * state})


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    with pytest.raises(
        NonFiniteLossError, match=r"step 8: expected a finite loss, got nan; go back .* step 6"
    ) as info:
        simple(objective=explosive, state=0, n_steps=20, checkpoint=Checkpoint(tmp_path, every=3))
    assert (info.value.step, info.value.metric) == (8, "loss") and "step 6 in" in info.value.checkpoint
    assert newest(tmp_path) == n_rows(tmp_path) == 6


def test_a_metric_or_a_parameter_that_is_not_finite_stops_the_run():
    def objective(model, state, batch, key):
        return jnp.sum(model["w"]), (state + 1, {"ratio": 1 / (2.0 - state)})

    with pytest.raises(NonFiniteLossError, match=r"step 3: expected a finite ratio, got inf; there is no"):
        simple({"w": jnp.ones(2)}, objective, state=0)

    def spoil(model, opt_state, state, batch, key):
        return {"w": jnp.where(state == 6, jnp.inf, model["w"])}, opt_state, state

    def harmless(model, state, batch, key):
        return jnp.sum(model["w"]), (state + 1, {})

    with pytest.raises(NonFiniteLossError, match=r"step 6: expected a finite model\['w'\], got inf"):
        simple({"w": jnp.ones(2)}, harmless, state=0, after_update=spoil)


# Evaluation, callback


def scripted(losses):
    """Return an evaluation that reads its losses from a list, by the model's number of updates."""
    return lambda model, state, key: {"loss": losses[int(state) // 2 - 1], "key": jax.random.uniform(key)}


def counting(model, state, batch, key):
    return jnp.sum((model - 1) ** 2), (state + 1, {})


def test_early_stopping_keeps_the_best_and_is_final(tmp_path):
    evaluate = Evaluation(scripted([3.0, 2.0, 2.5, 2.0, 1.0]), every=2, patience=2, keep_best=True)
    settings = {"objective": counting, "state": 0}
    stopping = {"evaluate": evaluate, "checkpoint": Checkpoint(tmp_path, 3), **settings}
    result = simple(n_steps=40, **stopping)
    assert len(result.history) == 8 and int(result.state) == 4
    np.testing.assert_array_equal(result.history.evaluation_steps, [2, 4, 6, 8])
    np.testing.assert_array_equal(result.history.evaluation["loss"], [3, 2, 2.5, 2])
    assert len(set(result.history.evaluation["key"].tolist())) == 1
    np.testing.assert_array_equal(result.model, simple(n_steps=4, **settings).model)
    with pytest.warns(UserWarning, match="stopped early at step 8"):
        again = simple(n_steps=60, **stopping)
    assert same(killed_training.numbers(result), killed_training.numbers(again))


def test_without_patience_the_best_model_survives_a_resume(tmp_path):
    evaluate = Evaluation(scripted([3.0, 1.0, 2.5, 2.0, 1.5]), every=2, keep_best=True)
    settings = {"objective": counting, "state": 0, "evaluate": evaluate}
    for n_steps in (6, 10):
        result = simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path, 3), **settings)
        assert int(result.state) == 4 and len(result.history) == n_steps


def test_callback_sees_each_block_and_may_stop(tmp_path):
    calls = []

    def callback(step, model, state, metrics):
        calls.append((step, len(metrics["loss"])))
        return np.bool_(step == 8)

    settings = {"n_steps": 20, "steps_per_block": 4, "checkpoint": Checkpoint(tmp_path, every=6)}
    stopped = simple(callback=callback, **settings)
    assert calls == [(4, 4), (6, 2), (8, 2)] and len(stopped.history) == 8
    assert newest(tmp_path) == 8
    resumed = simple(**settings)
    np.testing.assert_array_equal(resumed.history["loss"], simple(n_steps=20).history["loss"])


def test_progress_is_drawn_only_on_request(capsys):
    simple(progress=True)
    assert "6/6" in capsys.readouterr().err
    simple()
    assert capsys.readouterr().err == ""


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_steps": 0}, r"n_steps: expected a whole number ≥ 1, got 0"),
        ({"steps_per_block": 0}, r"steps_per_block: expected a whole number ≥ 1"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"key: expected one typed key"),
        ({"data": jnp.zeros((0, 2))}, r"data: expected at least one row, got none"),
        ({"data": {}}, r"data: expected at least one array, got none"),
        ({"data": {"x": ROWS, "y": ROWS[:3]}}, r"data\['y'\]: expected 4 rows as in data\['x'\], got 3"),
        ({"data": {"x": ROWS, "y": 3.0}}, r"data\['y'\]: expected an array with a leading axis"),
        ({"data": np.ma.masked_equal(ROWS, 0)}, r"data: expected an array without a mask"),
        ({"data": {"x": np.array(["a"])}}, r"data\['x'\]: expected numbers, got an array of dtype <U1"),
        ({"batch_size": 5}, r"batch_size: expected at most the 4 rows of data, got 5"),
        ({"batch_size": 0}, r"batch_size: expected a whole number ≥ 1, got 0"),
        ({"data": lambda key: ROWS, "batch_size": 2}, r"batch_size: expected None with a sampler"),
        ({"data": iter([ROWS]), "batch_size": 2}, r"batch_size: expected None with an iterator"),
        ({"model": jnp.array([1.0, jnp.nan])}, r"model: expected finite numbers, got 1 that are NaN"),
        ({"model": jnp.arange(2)}, r"trainable: expected at least one leaf"),
        ({"trainable": lambda leaf: False}, r"trainable: expected at least one leaf"),
        ({"trainable": lambda leaf: True, "model": {"w": jnp.ones(2), "n": 3}}, r"selects model\['n'\] = 3"),
        ({"trainable": {"v": True}}, r"trainable: expected truth values in a tree that fits the model"),
        ({"evaluate": Evaluation(dict, every=0)}, r"evaluate.every: expected a whole number ≥ 1"),
        ({"evaluate": Evaluation(dict, 1, patience=0)}, r"evaluate.patience: expected a whole number ≥ 1"),
        ({"evaluate": Evaluation(lambda *_: {}, 1, patience=1)}, r"evaluate.function: expected a 'loss'"),
        ({"evaluate": Evaluation(lambda *_: 1.0, 1)}, r"evaluate.function: expected a dict of scalars"),
    ],
)
def test_bad_arguments_are_named(untyped, settings, message):
    with pytest.raises(ValueError, match=message):
        simple(**settings)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda model, state: jnp.sum(model), r"objective: expected \(loss, \(state, metrics\)\), got"),
        (lambda model, state: (model, (state, {})), r"expected a real scalar loss, got float32\[2\]"),
        (lambda model, state: (model[0], (state, [])), r"expected metrics as a dict, got list"),
        (lambda model, state: (model[0], (state, {"loss": 1.0})), r"names other than .*, got 'loss'"),
        (lambda model, state: (model[0], (state, {"m": model})), r"scalar metrics, got 'm' of shape \(2,\)"),
        (lambda model, state: (model[0], (1.0, {})), r"objective: state: .* expected nothing, got"),
    ],
)
def test_bad_objectives_are_named(output, message):
    with pytest.raises(ValueError, match=message):
        simple(objective=lambda model, state, batch, key: output(model, state))


def test_bad_gradients_and_updates_are_named(tmp_path):
    class Wrong(AbstractGradientObjective):
        gradient: object

        def value_and_grad(self, model, state, batch, key):
            return (jnp.sum(model["w"]), (state, {})), self.gradient

    model = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"gradient: .*\['w'\]: expected float32\[2\], got float32\[3\]"):
        simple(model, Wrong({"w": jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"objective: gradient: expected a tree like the model"):
        simple(model, Wrong(jnp.ones(2)))
    with pytest.raises(ValueError, match=r"after_update: .*expected float32\[2\], got float32\[1\]"):
        simple(after_update=lambda model, opt_state, state, batch, key: (model[:1], opt_state, state))
    with pytest.raises(ValueError, match=r"after_update: expected \(model, opt_state, state\), got"):
        simple(after_update=lambda model, opt_state, state, batch, key: model)
    with pytest.raises(ValueError, match=r"data: expected an iterator with get_state and set_state"):
        simple(data=iter([ROWS]), checkpoint=Checkpoint(tmp_path, every=3))


def test_nothing_is_warned_of_in_an_ordinary_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_steps in (4, 6):
            simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path, every=3))
    assert Path(tmp_path / "metrics.jsonl").is_file()
