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
DIRECTIONS = jnp.array([0.0, 30.0, 90.0, 155.0])


def neurons(output="energy", directions=DIRECTIONS):
    ones = jnp.ones_like(directions)
    return nc.GaborEnergy(
        row=15 * ones,
        column=21 * ones,
        direction_degrees=directions,
        frequency=0.16 * ones,
        width_across=4.5 * ones,
        width_along=4.0 * ones,
        amplitude=3 * ones,
        baseline=0.5 * ones,
        image_shape=SHAPE,
        output=output,
    )


@eqx.filter_jit
def respond(model, directions, phases, contrast=1.0):
    def one(direction, phase):
        image = nc.grating(direction, SHAPE, period=1 / 0.16, phase_degrees=phase, contrast=contrast)
        return model(image)

    return jax.vmap(one)(directions, phases)


def test_the_formula_restated():
    image = jax.random.normal(KEY, SHAPE)
    came, root = neurons()(image), neurons("root")(image)
    image = np.asarray(image)
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
    phases = jnp.arange(0, 360, 30.0)
    for i, direction in enumerate(DIRECTIONS):
        came = respond(neurons(output), jnp.full_like(phases, direction), phases)[:, i]
        assert came.max() - came.min() < 2e-3 * came.mean()
        np.testing.assert_allclose(came, 3.5, rtol=3e-3)


def test_energy_grows_with_the_square_of_contrast_and_its_root_with_contrast():
    zeros = jnp.zeros(1)
    for output, share in (("energy", 0.25), ("root", 0.5)):
        full, half = (respond(neurons(output), zeros, zeros, contrast)[0] - 0.5 for contrast in (1.0, 0.5))
        np.testing.assert_allclose(half, share * full, rtol=1e-4, atol=1e-5)


def test_tuning_peaks_at_the_direction_and_repeats_after_half_a_turn():
    angles = jnp.arange(0, 360, 5.0)
    curves = respond(neurons(), angles, jnp.zeros(72))
    peaks = angles[jnp.argmax(curves, axis=0)]
    np.testing.assert_array_equal(jnp.mod(peaks, 180), DIRECTIONS)
    np.testing.assert_allclose(curves[:36], curves[36:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jnp.diagonal(curves[jnp.argmax(curves, axis=0) - 18]), 0.5, atol=0.01)
    turned = neurons(directions=DIRECTIONS + 180)
    np.testing.assert_allclose(respond(turned, angles, jnp.zeros(72)), curves, rtol=1e-4, atol=1e-4)


def test_uniform_light_has_the_baseline_and_a_finite_gradient():
    for output in ("energy", "root"):
        image = jnp.full(SHAPE, 7.0)
        np.testing.assert_allclose(neurons(output)(image), 0.5, atol=1e-4)
        slopes = eqx.filter_grad(lambda model: jnp.sum(model(0 * image)))(neurons(output))  # noqa: B023
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_a_neuron_is_learned_from_its_responses():
    shape, truth = (12, 16), nc.GaborEnergy.random((12, 16), 3, jax.random.key(1), output="root")
    images = jax.random.normal(jax.random.key(2), (300, *shape))
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
