"""The library's functions compiled once for each shape and setting, for tests that call them often."""

import equinox as eqx

from neurojax import convergence, sparse_coding
from neurojax.sparse_coding import FISTA, ISTA, LCA, CoordinateDescent

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
