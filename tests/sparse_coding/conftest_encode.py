"""The library's functions compiled once for each shape and setting; the certificate restated in NumPy."""

import equinox as eqx
import jax
import numpy as np
from sklearn.linear_model import Lasso

from neurojax import convergence, sparse_coding
from neurojax.sparse_coding import FISTA, ISTA, LCA, CoordinateDescent, Dictionary

SOLVERS = {
    "ista": ISTA(),
    "ista-backtracking": ISTA(backtracking=True),
    "fista": FISTA(),
    "fista-backtracking": FISTA(backtracking=True),
    "lca": LCA(),
    "coordinates": CoordinateDescent(),
}

encode = eqx.filter_jit(sparse_coding.encode)
make_problem = eqx.filter_jit(sparse_coding.make_problem)
trace = eqx.filter_jit(convergence.trace)
encode_path = eqx.filter_jit(sparse_coding.encode_path)
energy = eqx.filter_jit(sparse_coding.energy)
duality_gap = eqx.filter_jit(sparse_coding.duality_gap)


@eqx.filter_jit
def encode_rows(atoms, xs, penalty, init=None, **settings):
    """Map `encode` over the rows."""

    def one(x, init):
        return sparse_coding.encode(Dictionary(atoms), x, penalty, init=init, **settings)

    return jax.vmap(one, in_axes=(0, None if init is None else 0))(xs, init)


def lasso(atoms, x, strength, **settings):
    """Return scikit-learn's code under L1; strengths per atom by scaling the atoms."""
    strength = np.broadcast_to(strength, len(atoms))
    model = Lasso(1 / x.size, fit_intercept=False, tol=1e-14, max_iter=10**6, **settings)
    return model.fit((atoms / strength[:, None]).T, x).coef_ / strength


def relative_gap(atoms, x, code, l1, l2=0.0, is_nonnegative=False):
    """Return the duality gap by ½‖x‖² in float64, with the dual point s·(x − code @ atoms)."""
    x, code = np.asarray(x, float), np.asarray(code, float)
    scale = np.max(np.abs(x))
    x, code, l1 = x / scale, code / scale, np.broadcast_to(l1 / scale, code.shape)
    error = x - code @ atoms
    pull = atoms @ error - l2 * code
    is_allowed = np.isfinite(l1)
    assert np.all(code[~is_allowed] == 0)
    reach = np.max(((pull if is_nonnegative else np.abs(pull)) / l1)[is_allowed])
    dual = min(1, 1 / reach) if reach > 0 else 1
    primal = 0.5 * error @ error + 0.5 * l2 * code @ code + np.sum((l1 * np.abs(code))[is_allowed])
    # The dual of L1 on (x, 0) and the atoms (atoms, √l2): y = dual·(error, −√l2·code).
    other = dual * error @ x - 0.5 * dual**2 * (error @ error + l2 * code @ code)
    return (primal - other) / (0.5 * x @ x)
