"""Layouts and agreements that one process can show: axes, shares of rows, atoms over a mesh, and votes."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from neurojax import distributed
from neurojax.sparse_coding import Dictionary


def abstract_mesh(n_data, n_model):
    axes = (distributed.DATA, distributed.MODEL)
    return AbstractMesh((n_data, n_model), axes, axis_types=(AxisType.Auto,) * 2)


def test_the_model_axis_is_the_last(monkeypatch, untyped):
    monkeypatch.setattr(jax, "make_mesh", lambda shape, names, **settings: abstract_mesh(*shape))
    mesh = distributed.make_mesh(n_model=2, devices=range(6))
    assert dict(mesh.shape) == {"data": 3, "model": 2}


def test_rows_lie_over_the_data_axis_alone():
    assert distributed.n_shards(None) == 1
    assert distributed.n_shards(abstract_mesh(3, 2)) == 3


def test_atoms_lie_over_the_model_axis():
    mesh = distributed.make_mesh(devices=jax.devices()[:1])
    atoms = distributed.shard_atoms(Dictionary(jnp.eye(4)), mesh).atoms
    assert atoms.sharding.spec == PartitionSpec(distributed.MODEL)


@pytest.mark.parametrize("flags, expected", [([True, False], True), ([False, False], False)])
def test_one_process_speaks_for_all(flags, expected, monkeypatch):
    monkeypatch.setattr(distributed, "all_processes", lambda flag: flags)
    assert distributed.any_process(flags[0]) is expected
    assert distributed.any_process(flags[1]) is expected
