"""Learning of the plain autoencoder: its updates by hand, in NumPy and in PyTorch."""

from functools import cache

import jax
import numpy as np
import optax
import pytest
from autoencoder_truth import (
    array,
    drawn,
    flat,
    prototypes,
    quick,
)
from autoencoder_truth import (
    layer as dense,
)

from neurojax import autoencoder as ae
from neurojax.training import NonFiniteLossError, fit

KEY = jax.random.key(0)
STEPS, STEP_SIZE = 5, 0.3
SGD = optax.sgd(STEP_SIZE)


def start(is_tied, dtype="float64"):
    return drawn(lambda: ae.Autoencoder.from_sizes(12, [5], KEY, is_tied=is_tied, dtype=dtype), 3)


def batch(dtype="float64"):
    return np.random.default_rng(0).random((8, 12)).astype(dtype)


@cache
def learned(is_tied, dtype="float64"):
    """Run once for the comparisons with NumPy and with PyTorch."""
    result = fit(
        start(is_tied, dtype),
        ae.ReconstructionObjective(),
        array(batch(dtype)),
        optimizer=SGD,
        n_steps=STEPS,
        key=KEY,
        progress=False,
    )
    return numbers(result.model), result.history["loss"]


def numbers(model):
    """Encoder weight and bias, decoder weight (units to features) and bias; tied: without the third."""
    decoder = model.decoder[0]
    of_decoder = () if model.is_tied else (decoder.weight,)
    return [np.array(x) for x in (model.encoder[0].weight, model.encoder[0].bias, *of_decoder, decoder.bias)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slopes(parameters, rows):
    """The loss and its derivatives, written out."""
    w, b, *v, c = parameters
    back = w if not v else v[0].T  # (units, features)
    y = sigmoid(rows @ w.T + b)
    p = sigmoid(y @ back + c)
    loss = -np.mean(np.sum(rows * np.log(p) + (1 - rows) * np.log(1 - p), axis=1))
    of_logits = (p - rows) / len(rows)
    of_codes = of_logits @ back.T * y * (1 - y)
    of_back, of_w = y.T @ of_logits, of_codes.T @ rows
    of_v = [] if not v else [of_back.T]
    return loss, [of_w if v else of_w + of_back, of_codes.sum(axis=0), *of_v, of_logits.sum(axis=0)]


@pytest.mark.parametrize("is_tied", [True, False])
def test_five_updates_are_those_of_numpy(x64, is_tied):
    parameters, losses = numbers(start(is_tied)), []
    for _ in range(STEPS):
        loss, gradient = slopes(parameters, batch())
        parameters = [x - STEP_SIZE * g for x, g in zip(parameters, gradient, strict=True)]
        losses.append(loss)
    came, history = learned(is_tied)
    np.testing.assert_allclose(history, losses, rtol=1e-12)
    assert losses[-1] < losses[0] - 0.1
    for x, y in zip(came, parameters, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("is_tied", [True, False])
def test_five_updates_are_those_of_torch(x64, is_tied):
    torch = pytest.importorskip("torch")
    parameters = [torch.tensor(x, requires_grad=True) for x in numbers(start(is_tied))]
    w, b, *v, c = parameters
    rows = torch.tensor(batch())
    optimizer, losses = torch.optim.SGD(parameters, lr=STEP_SIZE), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        codes = torch.sigmoid(torch.nn.functional.linear(rows, w, b))
        logits = torch.nn.functional.linear(codes, v[0] if v else w.T, c)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, rows, reduction="none")
        loss = entropy.sum(dim=1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    came, history = learned(is_tied)
    np.testing.assert_allclose(history, losses, rtol=1e-5)
    for x, y in zip(came, parameters, strict=True):
        np.testing.assert_allclose(x, y.detach().numpy(), rtol=1e-5, atol=1e-8)


def test_tied_weights_receive_both_gradients(x64):
    tied = drawn(lambda: ae.Autoencoder.from_sizes(12, [5, 3], KEY), 3)
    transposes = []
    for own, layer in zip(tied.decoder, reversed(tied.encoder), strict=True):
        transposes.append(dense(np.asarray(layer.weight).T, own.bias))
    untied = ae.Autoencoder(tied.encoder, tuple(transposes))
    rows = batch()
    gradient = quick(jax.value_and_grad(lambda m, rows: ae.ReconstructionObjective()(m, None, rows, KEY)[0]))
    (loss, of_tied), (same_loss, of_untied) = jax.device_get((gradient(tied, rows), gradient(untied, rows)))
    np.testing.assert_allclose(loss, same_loss, rtol=1e-13)
    for i, layer in enumerate(of_tied.encoder):
        alone, back = of_untied.encoder[i].weight, of_untied.decoder[-1 - i].weight.T
        np.testing.assert_allclose(layer.weight, alone + back, rtol=1e-11, atol=1e-14)
        assert np.abs(alone).max() > 1e-4 and np.abs(back).max() > 1e-4
        np.testing.assert_allclose(layer.bias, of_untied.encoder[i].bias, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(of_tied.decoder[i].bias, of_untied.decoder[i].bias, rtol=1e-11)


def test_a_diverging_run_stops_with_the_step():
    settings = {"output": ae.GaussianOutput(), "activation": jax.nn.relu, "is_tied": False}
    model = drawn(lambda: ae.Autoencoder.from_sizes(12, [4], KEY, **settings), 0)
    rows = array(prototypes(0, 30)[0], "float32")
    with pytest.raises(NonFiniteLossError, match=r"step \d+: expected a finite") as caught:
        fit(
            model,
            ae.ReconstructionObjective(),
            rows,
            optimizer=optax.sgd(1e4),
            n_steps=60,
            key=KEY,
            progress=False,
        )
    assert 1 < caught.value.step < 60


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_saturated_models_are_finite(x64, dtype):
    """Weights of 10⁴, every unit saturated, right and wrong; with all penalties."""
    model = jax.tree.map(lambda x: array(1e4 * np.asarray(x)), start(False, dtype))
    rows = batch(dtype).round()
    objective = ae.ReconstructionObjective(contraction=0.1, sparsity=1.0, l1=0.1)
    loss, gradient = quick(jax.value_and_grad(lambda m, rows: objective(m, None, rows, KEY)[0]))(model, rows)
    assert loss.dtype == dtype and np.isfinite(loss) and loss > 1e4
    assert np.isfinite(flat(gradient)).all() and np.abs(flat(gradient)).max() > 0.01
