"""A run is resumed as itself: what may change without a word, and what is refused by name."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import ROWS, Counting, n_rows, newest, simple

from neurojax.training import (
    AbstractGradientObjective,
    AbstractObjective,
    Checkpoint,
    Evaluation,
)
from neurojax.training import _checkpoint as checkpoints

KEY_1 = jax.random.key(1)


def pull(model, state, batch, key):
    """Be the objective that all the others are compared with."""
    noise = 0.01 * jax.random.normal(key, model.shape)
    return 0.5 * jnp.mean(jnp.sum((batch - model - noise) ** 2, -1)), (state, {})


# The same, with other names, comments, types and places of its parts.
def another_name(weights, carried, rows, key):
    # A comment.
    noise = 0.01 * jax.random.normal(key, weights.shape)
    loss: jax.Array = 0.5 * jnp.mean(jnp.sum((rows - weights - noise) ** 2, -1))
    return loss, (carried, {})


class SomeModule(AbstractObjective):
    def __call__(self, model, state, batch, key):
        return pull(model, state, batch, key)


def scaled(scale):
    return lambda model, state, batch, key: (scale * pull(model, state, batch, key)[0], (state, {}))


def offset(array):
    return lambda model, state, batch, key: pull(model + array, state, batch, key)


def wide(model, state, batch, key):
    return jnp.mean(jnp.sum(jnp.abs(batch - model) ** 3, -1)), (state, {})


def shrink(model, opt_state, state, batch, key):
    return 0.99 * model, opt_state, state


def evaluation(scale):
    return Evaluation(jax.jit(lambda model, state, key: {"loss": scale * jnp.sum(model**2)}), 2)


def on_host(model, state, key):
    return {"loss": float(np.sum(np.asarray(model) ** 2))}


BEGUN = {
    "objective": pull, "optimizer": optax.adam(0.1), "batch_size": 2, "after_update": shrink,
    "evaluate": evaluation(1.0), "model": jnp.zeros(2), "state": jnp.ones(3), "data": ROWS,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a run that was begun, and is never taken further."""
    folder = tmp_path_factory.mktemp("begun")
    simple(n_steps=4, checkpoint=Checkpoint(folder, 4), **BEGUN)
    return folder


def go_on(folder, may_change=(), **changed):
    return simple(n_steps=4, checkpoint=Checkpoint(folder, 4, may_change=may_change), **{**BEGUN, **changed})


@pytest.mark.parametrize(
    "same",
    [
        {"objective": another_name},
        {"objective": SomeModule()},
        {"objective": lambda *arguments: pull(*arguments)},
        {"optimizer": optax.chain(optax.adam(0.1))},
        {"after_update": lambda m, o, s, b, k: (0.99 * m, o, s)},
        {"evaluate": Evaluation(jax.jit(lambda model, carried, key: {"loss": 1.0 * jnp.sum(model**2)}), 2)},
        {"evaluate": Evaluation(on_host, 2)},  # which is not traced, and not compared
        {"data": np.asarray(ROWS)},
        {"model": jnp.zeros(2) * (1 + 1e-7)},
    ],
)
def test_names_comments_and_places_refuse_no_run(folder, same):
    with pytest.warns(UserWarning, match="had taken all its steps; it is returned as it is"):
        assert len(go_on(folder, **same).history) == 4


OTHERS = {
    "another start": ({"model": jnp.full(2, 100.0)}, r"model: the array differs, .*0, 0.* and .*100"),
    "another state": ({"state": jnp.zeros(3)}, r"state: the array differs, \[1, 1, 1\] before"),
    "another objective": ({"objective": wide}, r"objective: computes something else\. "),
    "another factor": ({"objective": scaled(2.0)}, "objective: computes something else"),
    "another closed-over array": ({"objective": offset(np.ones(2))}, "objective: computes something else"),
    "another learning rate": (
        {"optimizer": optax.adam(0.2)},
        "numbers: -0.1 before and -0.2 now",
    ),
    "another decay": (
        {"optimizer": optax.adam(0.1, b1=0.8)},
        r"0.9 before and 0.8 now",
    ),
    "another optimizer": ({"optimizer": optax.sgd(0.1)}, r"optimizer: 3 arrays before and 0 now\. "),
    "a nesterov step": ({"optimizer": optax.nadam(0.1)}, "optimizer: computes something else"),
    "another hook": (
        {"after_update": lambda m, o, s, b, k: (m, o, s)},
        "after_update: computes",
    ),
    "no hook": ({"after_update": None}, "after_update: is no longer there"),
    "another evaluation": (
        {"evaluate": evaluation(2.0)},
        "numbers: 1 before and 2 now",
    ),
    "a patience": (
        {"evaluate": Evaluation(BEGUN["evaluate"].function, 2, 3)},
        r"evaluate: from \[2, None",
    ),
    "other data": ({"data": ROWS.at[0, 0].add(1)}, r"data: the array differs\. "),
    "another order": ({"data": ROWS[::-1]}, r"data: the array differs\. "),
    "more data": (
        {"data": jnp.concatenate([ROWS, ROWS])},
        r"data: .*\[4, 2\] before and .*\[8, 2\]",
    ),
    "another batch size": ({"batch_size": 4}, r"changed: batch_size: from 2 to 4\. "),
    "another key": ({"key": KEY_1}, r"key: from \[0, 0\] to \[0, 1\]"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_by_name(folder, name):
    changed, message = OTHERS[name]
    with pytest.raises(ValueError, match=rf"expected the run that it belongs to, but .*{message}"):
        go_on(folder, **changed)
    assert newest(folder) == 4


@pytest.mark.parametrize("name", ["another learning rate", "another batch size", "other data", "more data"])
def test_what_is_named_may_change(folder, tmp_path, name):
    part = {"another learning rate": "optimizer", "another batch size": "batch_size"}.get(name, "data")
    with pytest.warns(UserWarning, match="it is returned as it is"):
        go_on(folder, (part,), **OTHERS[name][0])


def test_the_constants_of_a_closure_are_compared(tmp_path):
    big = np.arange(2000.0, dtype=np.float32).reshape(1000, 2)
    kept = Checkpoint(tmp_path, 4)
    simple(objective=offset(big[:1]), n_steps=4, checkpoint=kept)
    with pytest.raises(ValueError, match="objective: computes with another array that it closes over"):
        simple(objective=offset(big[1:2]), n_steps=8, checkpoint=kept)
    simple(objective=offset(big[:1].copy()), n_steps=8, checkpoint=kept)


def injected(rate):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=0.9)


def test_an_injected_rate_is_refused_or_taken_on_purpose(tmp_path):
    """A resumed run goes on with the new rate and the old momentum, as one does in which the rate was set."""
    kept = Checkpoint(tmp_path, 3)
    half = simple(optimizer=injected(0.1), n_steps=3, checkpoint=kept)
    with pytest.raises(ValueError, match=r"learning_rate'\] differs, 0.1 before and 0.001 now"):
        simple(optimizer=injected(0.001), checkpoint=kept)
    came = simple(optimizer=injected(0.001), checkpoint=Checkpoint(tmp_path, 3, may_change=("optimizer",)))
    assert float(came.opt_state.hyperparams["learning_rate"]) == np.float32(0.001)
    model, momentum = np.asarray(half.model), np.asarray(half.opt_state.inner_state[0].trace)
    for _ in range(3):
        momentum = 0.9 * momentum + (model - ROWS.mean(axis=0))
        model = model - 0.001 * momentum
    np.testing.assert_allclose(came.model, model, rtol=1e-5)
    again = simple(optimizer=injected(0.001), n_steps=9, checkpoint=kept)  # the change is the run's own now
    assert len(again.history) == 9


def test_another_rate_is_taken_on_purpose(tmp_path):
    simple(n_steps=3, checkpoint=Checkpoint(tmp_path, 3))
    came = simple(optimizer=optax.sgd(0.0), checkpoint=Checkpoint(tmp_path, 3, may_change=["optimizer"]))
    np.testing.assert_array_equal(came.model, simple(n_steps=3).model)


def test_parts_that_there_are_not_are_refused(tmp_path):
    for names in ("optimizer", ["optimiser"]):
        with pytest.raises(ValueError, match=r"checkpoint.may_change: expected a sequence of settings, key"):
            simple(checkpoint=Checkpoint(tmp_path, 3, may_change=names))


def as_by_another_version(monkeypatch, **changed):
    now = checkpoints.versions()
    monkeypatch.setattr(checkpoints, "versions", lambda: {**now, "jax": "0.0.1"} | changed)


def twice(model, state, batch, key):
    """Be the objective `pull` as another program."""
    loss, rest = pull(model, state, batch, key)
    return loss / 2 + loss / 2, rest


def test_by_another_version_of_jax_the_first_update_decides(tmp_path, monkeypatch):
    kept = Checkpoint(tmp_path, 3)
    with monkeypatch.context() as patch:
        as_by_another_version(patch)
        simple(objective=pull, n_steps=3, checkpoint=kept)
    with pytest.raises(ValueError, match=r"jax 0.0.1 then, .*first update .* loss 15.* then, 184"):
        simple(objective=wide, checkpoint=kept)
    with pytest.raises(ValueError, match=r"the first update .* it differs: change of array 0 .* then"):
        simple(objective=pull, optimizer=optax.sgd(0.11), checkpoint=kept)
    with pytest.warns(UserWarning, match="objective: computes .*: the first update is the same"):
        came = simple(objective=twice, checkpoint=kept)
    np.testing.assert_allclose(came.model, simple(objective=pull).model, rtol=1e-5)
    simple(objective=twice, n_steps=9, checkpoint=kept)  # which has taken the other's place


SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax, equinox as eqx
from neurojax import penalties, sparse_coding as sc
from neurojax.training import Checkpoint, fit
MATRIX = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
{comment}
def {name}(model, state, batch, key):
    {docstring}
    values = jnp.tanh(batch @ MATRIX.T @ MATRIX)
    objective = sc.SparseCodingObjective(penalties.L1(0.3), tol=1e-2, max_steps=50)
    return objective(model, state, batch + 0.01 * values, key)
rows = jnp.asarray(MATRIX)
fit(sc.Dictionary(rows), {name}, rows, optimizer=optax.adam(0.1), n_steps={n_steps}, key=jax.random.key(0),
    batch_size=5, checkpoint=Checkpoint({folder!r}, 2), progress=False)
"""


@pytest.mark.slow
def test_the_same_run_is_known_in_another_process_and_file(tmp_path):
    forms = [
        {"name": "first", "comment": "", "docstring": "", "n_steps": 2},
        {"name": "second", "comment": "# moved\n\n", "docstring": '"""Words."""', "n_steps": 4},
    ]
    for number, form in enumerate(forms):
        path = tmp_path / f"script_{number}.py"
        path.write_text(SCRIPT.format(folder=str(tmp_path / "run"), **form))
        command = [sys.executable, "-W", "error::UserWarning", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (newest(tmp_path / "run"), n_rows(tmp_path / "run")) == (4, 4)


def begin(folder, n_steps=2, **settings):
    return simple(n_steps=n_steps, checkpoint=Checkpoint(folder, 2), **settings)


def resume(folder, n_steps=4, may_change=(), **settings):
    return simple(n_steps=n_steps, checkpoint=Checkpoint(folder, 2, may_change=may_change), **settings)


MASKS = [np.where(np.eye(3, 2)[::step], -np.inf, 0).astype(np.float32) for step in (1, -1)]
LONG = np.zeros((2**19 + 7, 2), np.float32)


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        ({"data": LONG}, {"data": LONG + np.float32([0, 1])}, "data"),
        ({"state": MASKS[0]}, {"state": MASKS[1]}, "state"),
        ({"state": np.float32([1e3, 0.01])}, {"state": np.float32([1e3, 0.1])}, "state"),
        (
            {"objective": offset(LONG[0] + 1)},
            {"objective": offset(LONG[0] + np.float32(1.000001))},
            "objective",
        ),
    ],
)
def test_rounding_is_no_excuse_for_other_numbers(tmp_path, one, other, part):
    rest = {"batch_size": 2} if "data" in one else {}
    begin(tmp_path, **one, **rest)
    with pytest.raises(ValueError, match=rf"these changed: {part}: "):
        resume(tmp_path, **other, **rest)


def test_numbers_that_another_processor_rounds_go_on_with_a_word(tmp_path):
    start = np.float32([0.3, 0.7])
    begin(tmp_path, model=start)
    with pytest.warns(UserWarning, match="model began with numbers that differ by rounding"):
        resume(tmp_path, model=np.nextafter(start, 1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": optax.sgd(0.3)}, "optimizer: computes with other numbers"),
        ({"after_update": shrink}, "after_update: is new"),
    ],
)
def test_leave_to_change_the_batches_is_no_leave_for_more(tmp_path, changed, message):
    begin(tmp_path, batch_size=2)
    with pytest.raises(ValueError, match=message):
        resume(tmp_path, batch_size=4, may_change=["batch_size"], **changed)


def test_leave_to_change_the_batches_says_what_is_not_compared(tmp_path):
    begin(tmp_path, batch_size=2)
    with pytest.warns(UserWarning, match=r"what was changed on purpose, .*objective cannot be compared"):
        resume(tmp_path, batch_size=4, may_change=["batch_size"])


def stepping(rate):
    """Keep the rate as an array in the transformation itself."""
    update = jax.tree_util.Partial(lambda rate, g, state, params=None: (-rate * g, state), jnp.float32(rate))
    return optax.GradientTransformation(lambda params: (), update)


def called_back(number):
    def objective(model, state, batch, key):
        shift = jax.pure_callback(lambda: np.float32(number), jax.ShapeDtypeStruct((), jnp.float32))
        return jnp.sum((model - shift) ** 2), (state, {})

    class ByHand(AbstractGradientObjective):
        def value_and_grad(self, model, state, batch, key):
            loss, rest = objective(model, state, batch, key)
            return (loss, rest), model

    return ByHand()


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"optimizer": stepping(0.1)}, {"optimizer": stepping(0.5)}, "optimizer: "),
        (
            {"objective": called_back(1)},
            {"objective": called_back(7)},
            r"by callbacks.*: expected the first update",
        ),
        (
            {"key": jax.random.key(0, impl="rbg")},
            {"key": jax.random.key(0, impl="unsafe_rbg")},
            "key: implementation",
        ),
    ],
)
def test_what_no_jaxpr_tells_is_compared_otherwise(tmp_path, one, other, message):
    begin(tmp_path, **one)
    assert len(resume(tmp_path, **one).history) == 4
    with pytest.raises(ValueError, match=message):
        resume(tmp_path, n_steps=6, **other)


def test_evaluations_are_not_run_for_their_description(tmp_path):
    came = []

    def evaluate(model, state, key):
        came.append(float(np.sum(np.asarray(model))))
        return {"loss": float(len(came))}

    for n_steps in (2, 4):
        simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path, 2), evaluate=Evaluation(evaluate, 2))
    assert len(came) == 2


def test_an_iterator_at_its_end_is_no_error(tmp_path):
    data = Counting(end=6)
    first = simple(data=data, checkpoint=Checkpoint(tmp_path, 2))
    with pytest.warns(UserWarning, match="had taken all its steps"):
        again = simple(data=data, checkpoint=Checkpoint(tmp_path, 2))
    np.testing.assert_array_equal(first.model, again.model)
    longer = simple(data=Counting(end=9), n_steps=9, checkpoint=Checkpoint(tmp_path, 2))
    assert len(longer.history) == 9
    begin(tmp_path / "rows")
    with pytest.raises(ValueError, match=r"data: expected rows in memory as before in .*, got an iterator"):
        resume(tmp_path / "rows", data=Counting(), may_change=["data"])


def test_a_change_on_purpose_is_what_another_version_is_compared_with(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        as_by_another_version(patch)
        begin(tmp_path, objective=pull)
        resume(tmp_path, objective=pull, optimizer=optax.sgd(0.05), may_change=["optimizer"])
    with pytest.warns(UserWarning, match="the first update is the same"):
        simple(objective=twice, optimizer=optax.sgd(0.05), checkpoint=Checkpoint(tmp_path, 2))


def test_rounding_resets_no_optimizer(tmp_path):
    optimizer = optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9)
    start = jnp.array([10.05, -7.07])
    begin(tmp_path, n_steps=50, model=start, optimizer=optimizer)
    other = {"model": jnp.nextafter(start, 0), "optimizer": optimizer}
    with pytest.warns(UserWarning, match="rounding"):
        came = resume(tmp_path, n_steps=52, may_change=["optimizer"], **other)
    whole = simple(n_steps=52, model=start, optimizer=optimizer)
    np.testing.assert_allclose(came.opt_state.z, whole.opt_state.z, rtol=1e-4)
