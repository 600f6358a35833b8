"""The energy model: phase, orientation, contrast, and learning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax import neural_coding as nc
from neurojax.training import fit

KEY = jax.random.key(0)
SHAPE = (32, 40)
DIRECTIONS = np.float32([0, 30, 90, 155])
ANGLES, ZEROS = np.arange(0, 360, 5, dtype=np.float32), np.zeros(72, np.float32)


def neurons(output="energy", directions=DIRECTIONS):
    ones = np.ones_like(directions)
    settings = {"row": 15, "column": 21, "frequency": 0.16, "width_across": 4.5, "width_along": 4.0}
    settings |= {"amplitude": 3, "baseline": 0.5}
    arrays = {name: jnp.asarray(value * ones) for name, value in settings.items()}
    return nc.GaborEnergy(
        direction_degrees=jnp.asarray(directions), image_shape=SHAPE, output=output, **arrays
    )


@eqx.filter_jit
def respond(model, directions, phases, contrast=np.float32(1)):  # noqa: B008
    """Return the responses to 72 gratings, so that the program is one for each output."""

    def one(direction, phase):
        image = nc.grating(direction, SHAPE, period=1 / 0.16, phase_degrees=phase, contrast=contrast)
        return model(image)

    return jax.vmap(one)(directions, phases)


@eqx.filter_jit
def respond_and_slope(model, image):
    """Return the responses to an image, and the derivative of their sum by the model's parameters."""
    return model(image), eqx.filter_grad(lambda model: jnp.sum(model(image)))(model)


def test_the_formula_restated():
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    came, root = (respond_and_slope(neurons(output), image)[0] for output in ("energy", "root"))
    rows, columns = np.indices(SHAPE)
    for i, degrees in enumerate(DIRECTIONS):
        angle = np.deg2rad(float(degrees))
        y, x = rows - 15, columns - 21
        u, w = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
        envelope = np.exp(-(u**2) / (2 * 4.5**2) - w**2 / (2 * 4.0**2))
        even, odd = (
            2 / envelope.sum() * np.sum(envelope * (wave - np.average(wave, weights=envelope)) * image)
            for wave in (np.cos(2 * np.pi * 0.16 * u), np.sin(2 * np.pi * 0.16 * u))
        )
        np.testing.assert_allclose(came[i], 0.5 + 3 * (even**2 + odd**2), rtol=1e-4)
        np.testing.assert_allclose(root[i], 0.5 + 3 * np.hypot(even, odd), rtol=1e-4)


@pytest.mark.parametrize("output", ["energy", "root"])
def test_phase_does_not_matter_and_the_preferred_grating_has_energy_one(output):
    for i, direction in enumerate(DIRECTIONS):
        came = np.asarray(respond(neurons(output), np.full_like(ANGLES, direction), ANGLES))[:, i]
        assert came.max() - came.min() < 2e-3 * came.mean()
        np.testing.assert_allclose(came, 3.5, rtol=3e-3)


def test_energy_grows_with_the_square_of_contrast_and_its_root_with_contrast():
    for output, share in (("energy", 0.25), ("root", 0.5)):
        full, half = (
            np.asarray(respond(neurons(output), ANGLES, ZEROS, np.float32(contrast))) - 0.5
            for contrast in (1, 0.5)
        )
        np.testing.assert_allclose(half, share * full, rtol=1e-4, atol=1e-5)


def test_tuning_peaks_at_the_direction_and_repeats_after_half_a_turn():
    curves = np.asarray(respond(neurons(), ANGLES, ZEROS))
    peaks = curves.argmax(0)
    np.testing.assert_array_equal(np.mod(ANGLES[peaks], 180), DIRECTIONS)
    np.testing.assert_allclose(curves[:36], curves[36:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.diagonal(curves[peaks - 18]), 0.5, atol=0.01)
    turned = neurons(directions=DIRECTIONS + 180)
    np.testing.assert_allclose(respond(turned, ANGLES, ZEROS), curves, rtol=1e-4, atol=1e-4)


def test_uniform_light_has_the_baseline_and_a_finite_gradient():
    for output in ("energy", "root"):
        uniform, dark = (np.full(SHAPE, level, np.float32) for level in (7, 0))
        np.testing.assert_allclose(respond_and_slope(neurons(output), uniform)[0], 0.5, atol=1e-4)
        for image in (uniform, dark):
            slopes = respond_and_slope(neurons(output), image)[1]
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_a_neuron_is_learned_from_its_responses():
    shape, truth = (12, 16), nc.GaborEnergy.random((12, 16), 3, jax.random.key(1), output="root")
    images = np.random.default_rng(2).normal(size=(300, *shape)).astype(np.float32)
    responses = eqx.filter_jit(eqx.filter_vmap(truth))(images)
    start = eqx.tree_at(
        lambda m: (m.row, m.column, m.direction_degrees, m.baseline),
        truth,
        (truth.row + 0.7, truth.column - 0.7, truth.direction_degrees + 12, truth.baseline + 0.2),
    )
    # Degrees are small units: in Adam's steps, hundredths of one.
    steps = eqx.tree_at(lambda m: m.direction_degrees, jax.tree.map(lambda _: "pixels", start), "degrees")
    optimizer = optax.multi_transform(
        {"pixels": optax.adam(0.02), "degrees": optax.adam(0.5)}, lambda _: steps
    )
    objective = nc.EncodingObjective()
    result = fit(start, objective, (images, responses), optimizer=optimizer, n_steps=300, key=KEY)
    losses = result.history["data_loss"]
    assert losses[-1] < 1e-3 * losses[0]
    off = nc.circular_difference(result.model.direction_degrees, truth.direction_degrees, 180)
    assert np.abs(off).max() < 1


def test_bad_parameters_are_named(untyped):
    with pytest.raises(ValueError, match="output: expected one of"):
        neurons("cube")
    with pytest.raises(ValueError, match=r"column: expected shape \(4,\)"):
        eqx.tree_at(lambda m: m.column, neurons(), jnp.ones(3)).__check_init__()
    with pytest.raises(ValueError, match="image: expected shape"):
        neurons()(jnp.ones((3, 3)))
    with pytest.raises(ValueError, match="n_neurons"):
        nc.GaborEnergy.random(SHAPE, 0, KEY)
    with pytest.raises(ValueError, match="shape"):
        nc.GaborEnergy.random((3,), 1, KEY)
