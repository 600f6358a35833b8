"""The library's functions compiled once for each shape and setting, for tests that call them often."""

import equinox as eqx

from neurojax import sparse_coding

encode = eqx.filter_jit(sparse_coding.encode)
encode_path = eqx.filter_jit(sparse_coding.encode_path)
energy = eqx.filter_jit(sparse_coding.energy)
duality_gap = eqx.filter_jit(sparse_coding.duality_gap)
