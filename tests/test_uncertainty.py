"""Standard errors from curvature: closed forms in double precision, at every scale and without full rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax._uncertainty import least_squares_errors, spread_of_hessian, spread_of_jacobian

RNG = np.random.default_rng(0)
DESIGN = RNG.normal(1, 1, (40, 4)) * [1, 10, 0.1, 1]
RESIDUALS = RNG.normal(size=40)
EXPECTED = np.sqrt(np.diag(np.linalg.inv(DESIGN.T @ DESIGN)))

of_jacobian = jax.jit(lambda j: spread_of_jacobian(j).errors())
of_hessian = jax.jit(lambda h: spread_of_hessian(h).errors())
of_fit = jax.jit(least_squares_errors)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_errors_at_any_scale(scale):
    jacobian, residuals = np.float32(scale * DESIGN), np.float32(scale * RESIDUALS)
    np.testing.assert_allclose(of_jacobian(jacobian), EXPECTED / scale, rtol=1e-5)
    expected = EXPECTED * np.sqrt(np.sum(RESIDUALS**2) / 36)
    np.testing.assert_allclose(of_fit(jacobian, residuals), expected, rtol=1e-5)
    hessian = np.float32(scale * (DESIGN.T @ DESIGN))
    np.testing.assert_allclose(of_hessian(hessian), EXPECTED / np.sqrt(scale), rtol=1e-4)


@pytest.mark.parametrize("unit", [1e-18, 1e12])
def test_parameters_in_units_of_their_own(unit):
    units = np.array([1, unit, 1, 1 / unit])
    np.testing.assert_allclose(of_jacobian(np.float32(DESIGN * units)), EXPECTED / units, rtol=1e-5)
    hessian = np.float32(units[:, None] * (DESIGN.T @ DESIGN) * units)
    np.testing.assert_allclose(of_hessian(hessian), EXPECTED / units, rtol=1e-4)


def test_the_jacobian_keeps_the_digits_that_its_square_loses():
    near = np.c_[DESIGN[:, 0], DESIGN[:, 0] + 1e-3 * DESIGN[:, 3], DESIGN[:, 1:3]].astype(np.float32)
    wide = near.astype(float)
    expected = np.sqrt(np.diag(np.linalg.inv(wide.T @ wide)))
    np.testing.assert_allclose(of_jacobian(near), expected, rtol=1e-3)


def test_what_is_not_determined_is_nan_and_the_rest_is_not():
    twice = DESIGN[:, [0, 1, 1, 3]]
    alone = np.sqrt(np.diag(np.linalg.inv(DESIGN[:, [0, 1, 3]].T @ DESIGN[:, [0, 1, 3]])))
    expected = [alone[0], np.nan, np.nan, alone[2]]
    np.testing.assert_allclose(of_jacobian(np.float32(twice)), expected, rtol=1e-4)
    np.testing.assert_allclose(of_hessian(np.float32(twice.T @ twice)), expected, rtol=1e-4)
    # The sum of the two is determined.
    of_sums = spread_of_jacobian(jnp.asarray(twice, jnp.float32)).errors(jnp.array([[0.0, 1, 1, 0]]))
    np.testing.assert_allclose(of_sums, alone[1:2], rtol=1e-4)
    assert np.isnan(of_hessian(np.float32(np.diag([1, -1, 1, 1])))).all()
    assert np.isnan(of_fit(np.float32(DESIGN[:4]), np.float32(RESIDUALS[:4]))).all()
    assert np.isnan(of_jacobian(np.zeros((40, 4), np.float32))).all()


def test_a_support_holds_the_others_constant():
    support = np.array([True, False, True, True])
    kept = DESIGN[:, support]
    alone = np.sqrt(np.diag(np.linalg.inv(kept.T @ kept)))
    expected = np.insert(alone, 1, np.nan)
    spread = jax.jit(spread_of_jacobian)(np.float32(DESIGN), support)
    np.testing.assert_allclose(spread.errors(), expected, rtol=1e-5)
    by_hessian = jax.jit(spread_of_hessian)(np.float32(DESIGN.T @ DESIGN), support)
    np.testing.assert_allclose(by_hessian.errors(), expected, rtol=1e-4)
    whole = np.array([[1.0, 5.0, 2.0, -1.0]], np.float32)
    square = whole[0, support] @ np.linalg.inv(kept.T @ kept) @ whole[0, support]
    np.testing.assert_allclose(spread.errors(jnp.asarray(whole)), np.sqrt([square]), rtol=1e-5)
    errors = jax.jit(least_squares_errors)(np.float32(DESIGN), np.float32(RESIDUALS), support)
    np.testing.assert_allclose(errors, expected * np.sqrt(np.sum(RESIDUALS**2) / 37), rtol=1e-5)


def test_derivatives_with_equal_eigenvalues(x64):
    """The design of an orthogonal experiment: a decomposition has no derivative there, the errors have."""
    design = np.kron(np.eye(4), np.ones((3, 1)))
    away = RNG.normal(size=design.shape)
    of_sum = jax.jit(jax.value_and_grad(lambda j: jnp.sum(spread_of_jacobian(j).errors())))
    of_other = jax.jit(jax.value_and_grad(lambda j: jnp.sum(spread_of_hessian(j.T @ j).errors())))
    for value in (of_sum, of_other):
        numeric = (value(design + 1e-5 * away)[0] - value(design - 1e-5 * away)[0]) / 2e-5
        np.testing.assert_allclose(np.sum(value(design)[1] * away), numeric, rtol=1e-7)


def test_half_precision_computes_in_single():
    jacobian = jnp.asarray(DESIGN, jnp.bfloat16)
    wide = np.asarray(jacobian, float)
    found = jax.jit(lambda j: spread_of_jacobian(j).errors())(jacobian)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.sqrt(np.diag(np.linalg.inv(wide.T @ wide))), rtol=1e-5)
