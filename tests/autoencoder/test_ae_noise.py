"""Corruptions: how often, of what, and what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    drawn,
    quick,
    standard_scores,
)

from neurojax import autoencoder as ae

KEY, RATE, N = jax.random.key(3), 0.3, 200_000


def values(dtype="float32"):
    return np.random.default_rng(0).uniform(0.05, 0.95, (N // 100, 100)).astype(dtype)


@quick
def corrupted(noise, x, key):
    """One program for each noise and dtype: rates and scales are arguments."""
    return noise(x, key)


def is_rate(count, n, p):
    return abs(count - n * p) < 4 * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masking(x64, dtype):
    x = values(dtype)
    came = np.asarray(corrupted(ae.MaskingNoise(RATE), x, KEY))
    hit = came == 0
    assert came.dtype == dtype and is_rate(hit.sum(), N, RATE)
    np.testing.assert_array_equal(came[~hit], np.asarray(x)[~hit])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_salt_and_pepper_half_each(x64, dtype):
    x = values(dtype)
    came = np.asarray(corrupted(ae.SaltAndPepperNoise(RATE), x, KEY))
    salt, pepper = came == 1, came == 0
    assert came.dtype == dtype and is_rate(salt.sum(), N, RATE / 2) and is_rate(pepper.sum(), N, RATE / 2)
    untouched = ~(salt | pepper)
    np.testing.assert_array_equal(came[untouched], np.asarray(x)[untouched])


def test_bit_flips_of_bits_and_of_grey_values():
    bits = (values() > 0.4).astype("float32")
    came = np.asarray(corrupted(ae.BitFlipNoise(RATE), bits, KEY))
    assert np.isin(came, [0, 1]).all() and is_rate((came != bits).sum(), N, RATE)
    for state in (0, 1):  # both states alike
        mine = np.asarray(bits) == state
        assert is_rate((came[mine] != state).sum(), mine.sum(), RATE)
    x = np.asarray(values())
    grey = np.asarray(corrupted(ae.BitFlipNoise(RATE), x, KEY))
    np.testing.assert_array_equal(np.where(grey == x, x, 1 - x), grey)


def test_gaussian_noise():
    x = values()
    noise = (np.asarray(corrupted(ae.GaussianNoise(0.4), x, KEY)) - x).ravel()
    assert abs(noise.mean()) < 4 * 0.4 / N**0.5
    assert abs(noise.std() - 0.4) < 4 * 0.4 / (2 * N) ** 0.5
    np.testing.assert_array_equal(corrupted(ae.GaussianNoise(0.0), x, KEY), x)
    assert np.max(corrupted(ae.GaussianNoise(3.0), x, KEY)) > 1  # not clipped


NOISES = [ae.MaskingNoise(RATE), ae.SaltAndPepperNoise(RATE), ae.BitFlipNoise(RATE), ae.GaussianNoise(0.2)]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_each_number_on_its_own(noise):
    x = np.full((2000, 100), 0.6, "float32")
    came = np.asarray(corrupted(noise, x, KEY))
    hit = came.astype(float) - x
    # Neighbours of a row, of a column, and the halves of a random word have nothing in common.
    centred = hit - hit.mean()
    for a, b in (
        (centred[:, :-1], centred[:, 1:]),
        (centred[:-1], centred[1:]),
        (centred[:1000], centred[1000:]),
    ):
        assert abs(standard_scores((a * b).ravel(), 0)) < 4
    assert len(np.unique(hit, axis=0)) > 1990
    np.testing.assert_array_equal(corrupted(noise, x, KEY), came)
    assert not np.array_equal(corrupted(noise, x, jax.random.key(4)), came)


def test_a_rate_of_zero_changes_nothing():
    for noise in (ae.MaskingNoise(0.0), ae.SaltAndPepperNoise(0.0), ae.BitFlipNoise(0.0)):
        np.testing.assert_array_equal(corrupted(noise, values(), KEY), values())


def test_a_rate_may_be_traced_and_swept():
    rates = np.array([0.1, 0.5, 0.9], "float32")
    share = quick(jax.vmap(lambda rate: jnp.mean(ae.MaskingNoise(rate)(jnp.ones(20_000), KEY) == 0)))
    shares = np.asarray(share(rates))
    assert (np.abs(shares - rates) < 4 * np.sqrt(rates * (1 - rates) / 20_000)).all()


def test_the_target_of_denoising_stays_clean(x64):
    """The encoder sees the corrupted rows alone, the loss has the clean ones."""
    model = drawn(lambda: ae.Autoencoder.from_sizes(6, [4], KEY), 0)
    rows, noise = np.random.default_rng(1).random((5, 6)), ae.MaskingNoise(0.5)

    @quick
    def run(rows):
        seen = noise(rows, KEY)
        loss, _ = ae.ReconstructionObjective(corruption=noise)(model, None, rows, KEY)
        return loss, seen, jax.vmap(model.reconstruct)(seen)

    loss, seen, p = map(np.asarray, run(rows))

    def entropy(target):
        return -np.sum(target * np.log(p) + (1 - target) * np.log(1 - p), axis=1).mean()

    np.testing.assert_allclose(loss, entropy(rows), rtol=1e-12)
    assert abs(loss - entropy(seen)) > 0.01
    assert (seen == 0).any(axis=1).all() and len({tuple(row) for row in seen == 0}) > 1
