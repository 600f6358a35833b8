"""The reference systems, as their authors had them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax import data, receptive_fields, training
from neurojax import neural_coding as nc
from neurojax.cli import _sparse_coding
from neurojax.convergence import Detached, Truncated
from neurojax.penalties import SmoothL1, soft_threshold
from neurojax.sparse_coding import Dictionary, SparseCodingLayer, rmsprop_inference

N_ATOMS, SIDE = 49, 16
GAMMA, EPSILON = 0.1, 1e-7


def whitened_patches(n_patches, std):
    """Return patches of the bundled photographs, whitened as in 1996, at a standard deviation."""
    images = data.whiten_1996(data.natural_images())[:, 8:-8, 8:-8]
    patches, _ = data.remove_pixel_mean(data.random_patches(images, jax.random.key(0), n_patches, SIDE))
    return patches * (std / patches.std())


def published_layer(atoms, gradient, n_steps):
    return SparseCodingLayer(
        Dictionary(atoms),
        SmoothL1(GAMMA / 2, EPSILON),
        solver=rmsprop_inference(),
        gradient=gradient,
        returns="reconstruction",
        max_steps=n_steps,
        steps_per_check=n_steps,
    )


def published_objective(layer, state, batch, key):
    error = jnp.mean((batch - jax.vmap(layer)(batch)) ** 2)
    return error + 5e-5 * jnp.sum(layer.dictionary.atoms**2), (state, {"mse": error})


def learned_atoms(patches, gradient, n_inference, n_updates):
    """Train the published layer: RMSprop with step 0.1, batches of 100, Glorot-uniform atoms."""
    glorot = jax.nn.initializers.glorot_uniform()(jax.random.key(1), (N_ATOMS, SIDE**2))
    return training.fit(
        published_layer(glorot, gradient, n_inference),
        published_objective,
        patches,
        optimizer=optax.rmsprop(0.1, decay=0.9, eps=1e-8),
        n_steps=n_updates,
        batch_size=100,
        key=jax.random.key(2),
        progress=False,
    ).model.dictionary.atoms


def gabor_like(atoms):
    fits = receptive_fields.fit_gabor_batch(atoms, (SIDE, SIDE))
    return receptive_fields.is_gabor_like(fits), np.asarray(fits.r_squared) >= 0.7


@pytest.mark.slow
def test_D41_wavelets_of_the_differentiable_layer_come_back():
    patches = whitened_patches(50_000, 0.05)
    found, is_good = gabor_like(learned_atoms(patches, Detached(), 99, 2400))
    assert is_good.mean() >= 0.3 and found.mean() >= 0.2
    # Atoms of noise are fitted as often as by chance.
    noise, is_good = gabor_like(jax.random.normal(jax.random.key(3), (N_ATOMS, SIDE**2)))
    assert not noise.any() and not is_good.any()
    # The scale decides: at 0.28 the same data leave no wavelet.
    found, is_good = gabor_like(learned_atoms(patches * (0.28 / 0.05), Detached(), 99, 500))
    assert not is_good.any()


@pytest.mark.slow
def test_D41_wavelets_are_seen_after_few_updates():
    atoms = learned_atoms(whitened_patches(5000, 0.05), Detached(), 99, 200)
    # Cheaper than fits: a wavelet has most of its power in a few pixels, here in a fifth of them.
    by_chance = np.random.default_rng(0).normal(size=(5000, SIDE**2))
    found = share_of_largest(atoms) > share_of_largest(by_chance).max()
    assert found.mean() >= 0.2


def share_of_largest(atoms, n_pixels=51):
    power = np.sort(np.square(np.asarray(atoms)), axis=1)
    return power[:, -n_pixels:].sum(axis=1) / power.sum(axis=1)


def rmsprop_codes(atoms, xs, n_steps):
    """Return the codes of the published loop in NumPy: descent on ‖x − zA‖² + γ Σ √(z² + ε)."""
    z = v = m = np.zeros((len(xs), len(atoms)))
    for _ in range(n_steps):
        gradient = -2 * (xs - z @ atoms) @ atoms.T + GAMMA * z / np.sqrt(z**2 + EPSILON)
        v = 0.9 * v + 0.1 * gradient**2
        step = 1e-3 * gradient / np.sqrt(v + 1e-8)
        m = 0.9 * m - step
        z = z + 0.9 * m - step
    return z


def test_D42_the_published_truncation_is_a_constant_code(x64):
    """With ``return_reconstruction`` the layer returns ẑA for the ẑ that its last step starts from."""
    rng, n_steps = np.random.default_rng(0), 20
    atoms, xs = 0.3 * rng.normal(size=(7, 12)), 0.05 * rng.normal(size=(5, 12))
    constant = rmsprop_codes(atoms, xs, n_steps - 1)
    # The derivative of mean (x − ẑA)² with ẑ constant.
    published = -2 * constant.T @ (xs - constant @ atoms) / xs.size
    layer = published_layer(jnp.asarray(atoms), Detached(), n_steps - 1)
    ours = jax.jit(jax.grad(lambda layer: jnp.mean((xs - jax.vmap(layer)(jnp.asarray(xs))) ** 2)))(layer)
    np.testing.assert_allclose(ours.dictionary.atoms, published, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_D42_one_differentiated_step_is_another_gradient(x64):
    patches = np.asarray(whitened_patches(1000, 0.05), np.float64)[:100]
    glorot = jax.nn.initializers.glorot_uniform()(jax.random.key(1), (N_ATOMS, SIDE**2), jnp.float64)

    def gradient(mode, n_steps):
        def loss(atoms):
            layer = published_layer(atoms, mode, n_steps)
            return jnp.mean((patches - jax.vmap(layer)(jnp.asarray(patches))) ** 2)

        return jax.jit(jax.grad(loss))(glorot)

    published = gradient(Detached(), 99)
    off = jnp.linalg.norm(gradient(Truncated(1), 100) - published) / jnp.linalg.norm(published)
    assert off > 0.01


def test_D43_the_soft_threshold_is_the_least_of_its_cases():
    """The cost is a parabola on either side of 0; the operator is a vertex on its own side, or else 0."""
    u, strength = np.linspace(-4, 4, 80_001), 0.5
    for y in (-2.0, -0.5, -0.3, 0.0, 0.3, 0.5, 2.0):
        cost = 0.5 * (y - u) ** 2 + strength * np.abs(u)
        right = 0.5 * (u - (y - strength)) ** 2 + strength * y - strength**2 / 2
        left = 0.5 * (u - (y + strength)) ** 2 - strength * y - strength**2 / 2
        np.testing.assert_allclose(cost, np.where(u >= 0, right, left), atol=1e-12)
        assert float(soft_threshold(y, strength)) == pytest.approx(u[np.argmin(cost)], abs=1e-4)


@pytest.mark.slow
def test_D44_units_and_weights_of_the_encoder():
    n_neurons, n_units = 3, 6 * 12 * 16
    filters = jnp.asarray(nc.course_filters(), jnp.float32)
    encoder = nc.ConvolutionalEncoder.from_filters(filters, (12, 16), n_neurons, jax.random.key(0))
    assert n_units == 1152 and filters.shape == (6, 7, 7)
    assert encoder.n_parameters == (6 * 49 + 6) + n_neurons * (n_units + 1)


@pytest.mark.slow
def test_D44_both_penalties_are_learned_together():
    """L2 1e-2 and L1 5e-4 on W_in: the gradient of both, held against finite differences."""
    rng = np.random.default_rng(0)
    network = nc.DecodingNetwork.from_sizes(7, 3, 4, jax.random.key(0))
    responses, labels = jnp.asarray(rng.normal(size=(9, 7)), jnp.float32), jnp.arange(9) % 4
    objective = nc.DecodingObjective(l2=1e-2, l1=5e-4)
    loss, (_, measured) = objective(network, None, (responses, labels), jax.random.key(1))
    weights = np.asarray(network.input_weights, float)
    penalty = 1e-2 * np.sum(weights**2) + 5e-4 * np.sum(np.abs(weights))
    assert float(loss) == pytest.approx(float(measured["data_loss"]) + penalty, rel=1e-5)


@pytest.mark.slow
def test_D46_low_frequencies_are_no_gabor_functions():
    """An edge is fitted well by the lowest frequency that is allowed, which is not a grating."""
    rows, _ = np.indices((SIDE, SIDE))
    edge = (rows - 7.5) * np.exp(-((rows - 7.5) ** 2) / (2 * 1.5**2))
    fits = receptive_fields.fit_gabor_batch(jnp.asarray(edge.reshape(1, -1), jnp.float32), (SIDE, SIDE))
    assert fits.r_squared[0] > 0.95 and fits.gabor.frequency[0] < 1 / (2 * SIDE)
    assert not receptive_fields.is_gabor_like(fits)[0]
    assert receptive_fields.gabor_summary(fits)["edge_share"] == 1


@pytest.mark.parametrize(("n_images", "patience"), [(10, None), (10, 3), (2, 3), (1, None), (1, 3)])
def test_C38_what_is_reported_on_chose_no_model_and_lies_on_no_seam(n_images, patience):
    """Every pixel says where it is: image, row and column."""
    n_rows, n_columns, side = 40, 64, 8
    places = np.arange(n_images * n_rows * n_columns, dtype=np.float64).reshape(n_images, n_rows, n_columns)
    seen, held_out = _sparse_coding._hold_out([jnp.asarray(image) for image in places], side)
    parts = (held_out,) if patience is None else _sparse_coding._halves(held_out, side)
    sets = [np.concatenate([np.ravel(image) for image in part]) for part in (seen, *parts)]
    assert all(len(one) and len(one) == len(set(one)) for one in sets)
    assert len(set(np.concatenate(sets))) == sum(map(len, sets)) == places.size
    assert n_images < 6 or all(image.shape == (n_rows, n_columns) for part in parts for image in part)
    columns = np.concatenate(sets[1:]) % n_columns
    assert n_images >= 6 or (columns.min() > side and columns.max() < n_columns - side)
    assert all(min(image.shape) >= side for part in (seen, *parts) for image in part)
