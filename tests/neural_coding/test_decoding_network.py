"""The source's network: its start, its objective, gradient descent in NumPy, and the same in row space."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax
from scipy.stats import kstest

from neurojax.neural_coding import (
    DecodingNetwork,
    DecodingObjective,
    RowSpaceNetwork,
    RowSpaceObjective,
    RowSpaceTrials,
    fit_decoding_network,
)
from neurojax.training import fit

RNG = np.random.default_rng(0)
N_TRIALS, N_NEURONS, N_HIDDEN = 10, 40, 6
XS, HELD = RNG.normal(size=(N_TRIALS, N_NEURONS)), RNG.normal(size=(7, N_NEURONS))
DEGREES = RNG.uniform(0, 360, (N_TRIALS, 1))
CLASSES, HELD_CLASSES = np.arange(N_TRIALS) % 4, np.arange(7) % 4
KEY = jax.random.key(0)


def network(n_outputs, dtype=jnp.float64):
    return DecodingNetwork.from_sizes(N_NEURONS, N_HIDDEN, n_outputs, KEY, dtype=dtype)


def forward(w_in, b_in, w_out, b_out, xs):
    hidden = np.maximum(xs @ w_in.T + b_in, 0)
    return hidden, hidden @ w_out.T + b_out


def parameters(model):
    return [
        np.array(p, float)
        for p in (model.input_weights, model.input_bias, model.output_weights, model.output_bias)
    ]


def test_start_is_uniform_by_fan_in():
    model = DecodingNetwork.from_sizes(400, 50, 30, jax.random.key(3))
    for leaf, fan_in in zip(parameters(model), (400, 400, 50, 50), strict=True):
        scaled = leaf.ravel() * fan_in**0.5
        assert np.abs(scaled).max() <= 1
        assert kstest(scaled, "uniform", args=(-1, 2)).pvalue > 1e-3
    assert model.n_parameters == 400 * 50 + 50 + 50 * 30 + 30
    assert model.input_weights.dtype == jnp.float32


def test_objective_restated(x64):
    model = network(4)
    _, outputs = forward(*parameters(model), XS)
    objective = DecodingObjective(l1=0.01, l2=0.2)
    loss, (_, metrics) = jax.jit(objective)(model, None, (jnp.asarray(XS), jnp.asarray(CLASSES)), KEY)
    data_loss = -log_softmax(outputs, axis=1)[np.arange(N_TRIALS), CLASSES].mean()
    w_in = parameters(model)[0]
    np.testing.assert_allclose(metrics["data_loss"], data_loss, rtol=1e-12)
    np.testing.assert_allclose(
        loss, data_loss + 0.01 * np.abs(w_in).sum() + 0.2 * (w_in**2).sum(), rtol=1e-12
    )
    numbers = RNG.normal(size=(N_TRIALS, 4))
    loss, _ = jax.jit(DecodingObjective())(model, None, (jnp.asarray(XS), jnp.asarray(numbers)), KEY)
    np.testing.assert_allclose(loss, np.mean((outputs - numbers) ** 2), rtol=1e-12)


@pytest.mark.parametrize("in_row_space", [False, True])
def test_gradient_descent_on_degrees_by_hand(x64, in_row_space):
    start = network(1)
    w_in, b_in, w_out, b_out = parameters(start)
    losses = []
    for _ in range(5):
        hidden, outputs = forward(w_in, b_in, w_out, b_out, XS)
        losses.append(np.mean((outputs - DEGREES) ** 2))
        error = 2 * (outputs - DEGREES) / N_TRIALS
        back = (error @ w_out) * (hidden > 0)
        w_out, b_out = w_out - 1e-4 * error.T @ hidden, b_out - 1e-4 * error.sum(0)
        w_in, b_in = w_in - 1e-4 * back.T @ XS, b_in - 1e-4 * back.sum(0)
    trained, history = fit_decoding_network(
        start,
        jnp.asarray(XS),
        jnp.asarray(DEGREES),
        step_size=1e-4,
        n_steps=5,
        key=KEY,
        in_row_space=in_row_space,
    )
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-12)
    for found, expected in zip(parameters(trained), (w_in, b_in, w_out, b_out), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_row_space_takes_the_steps_of_the_direct_form(x64):
    def train(in_row_space, dtype):
        held = jnp.asarray(HELD, dtype), jnp.asarray(HELD_CLASSES)
        shared = {"step_size": 0.1, "n_steps": 50, "key": KEY, "l2": 1e-2, "held_out": held}
        data = jnp.asarray(XS, dtype), jnp.asarray(CLASSES)
        start = jax.tree.map(lambda leaf: leaf.astype(dtype), network(4))
        return fit_decoding_network(start, *data, in_row_space=in_row_space, **shared)

    direct, of_direct = train(False, np.dtype("float64"))
    assert of_direct["loss"][-1] < 0.7 * of_direct["loss"][0]
    # What was held out is the data loss of the trained network, without penalties.
    _, outputs = forward(*parameters(direct), HELD)
    last = -log_softmax(outputs, axis=1)[np.arange(7), HELD_CLASSES].mean()
    np.testing.assert_allclose(of_direct.evaluation["loss"][-1], last, rtol=1e-9)
    forms = (True, "float64", 1e-10), (True, "float32", 1e-4), (False, "float32", 1e-4)
    for form, dtype, tolerance in forms:
        row, of_row = train(form, np.dtype(dtype))
        assert row.input_weights.dtype == dtype
        for name in ("loss", "data_loss"):
            np.testing.assert_allclose(of_row[name], of_direct[name], rtol=tolerance)
        np.testing.assert_allclose(of_row.evaluation["loss"], of_direct.evaluation["loss"], rtol=tolerance)
        np.testing.assert_array_equal(of_row.evaluation_steps, of_direct.evaluation_steps)
        for found, expected in zip(parameters(row), parameters(direct), strict=True):
            np.testing.assert_allclose(found, expected, atol=tolerance)
        # The loss has the penalty of the start at the first step, exactly.
        penalty = 1e-2 * np.sum(parameters(network(4))[0] ** 2)
        np.testing.assert_allclose(of_row["loss"][0] - of_row["data_loss"][0], penalty, atol=tolerance)


def test_row_space_with_momentum_and_its_square(x64):
    optimizer = optax.sgd(1e-2, momentum=0.9, nesterov=True)
    start, xs = network(2), jnp.asarray(XS)
    targets = jnp.asarray(RNG.normal(size=(N_TRIALS, 2)))
    trials = RowSpaceTrials.from_responses(start, xs, xs, targets)
    shared = {"optimizer": optimizer, "n_steps": 50, "key": KEY, "progress": False}
    direct = fit(start, DecodingObjective(l2=0.02), (xs, targets), **shared)
    row = fit(RowSpaceNetwork.from_network(start, N_TRIALS), RowSpaceObjective(l2=0.02), trials, **shared)
    np.testing.assert_allclose(row.history["loss"], direct.history["loss"], rtol=1e-10)
    back = row.model.to_network(start, xs)
    for found, expected in zip(parameters(back), parameters(direct.model), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-10)
    np.testing.assert_allclose(row.model.input_square(trials), jnp.sum(back.input_weights**2), rtol=1e-12)
    assert row.model.start_square == RowSpaceNetwork.from_network(start, N_TRIALS).start_square
    # New trials, seen from the span.
    new = RowSpaceTrials.from_responses(start, xs, jnp.asarray(HELD), jnp.zeros((7, 2)))
    np.testing.assert_allclose(row.model(new), back(jnp.asarray(HELD)), atol=1e-11)


def test_going_to_row_space_and_back_changes_nothing(x64):
    start, xs = network(2), jnp.asarray(XS)
    back = RowSpaceNetwork.from_network(start, N_TRIALS).to_network(start, xs)
    for found, expected in zip(parameters(back), parameters(start), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_row_space_is_taken_where_it_can_be(x64):
    """More neurons than trials and no L1: the history tells nothing, but the L1 term must be there."""
    shared = {"step_size": 0.1, "n_steps": 2, "key": KEY}
    arguments = network(4), jnp.asarray(XS), jnp.asarray(CLASSES)
    _, history = fit_decoding_network(*arguments, l1=0.1, **shared)
    penalty = 0.1 * np.abs(parameters(network(4))[0]).sum()
    np.testing.assert_allclose(history["loss"][0] - history["data_loss"][0], penalty, rtol=1e-10)
    with pytest.raises(
        ValueError, match=r"in_row_space: expected no L1 penalty, which leaves the span, got l1 0\.1"
    ):
        fit_decoding_network(*arguments, l1=0.1, in_row_space=True, **shared)
    trials = RowSpaceTrials.from_responses(arguments[0], *arguments[1:2], *arguments[1:])
    with pytest.raises(
        ValueError, match=r"batch: expected all 10 trials at each update .* got rows of shape \(4, 10\)"
    ):
        fit(
            RowSpaceNetwork.from_network(arguments[0], N_TRIALS),
            RowSpaceObjective(),
            trials,
            optimizer=optax.sgd(0.1),
            n_steps=1,
            key=KEY,
            batch_size=4,
            progress=False,
        )
