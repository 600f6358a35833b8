"""Many devices, many processes: meshes, where arrays lie on them, and processes that agree.

A mesh has the axis ``"data"``, over which rows, batches and chains lie, and may have ``"model"``, over which
the atoms of a large dictionary lie; everything else is on every device. `fit`, `encode_batch`,
`encode_stream`, `sample_chains` take it as ``mesh``; inside ``jit`` they see the one that ``jax.set_mesh``
has set. The same program runs on one device and on many.

Example:
    >>> import jax.numpy as jnp
    >>> from neurojax.distributed import make_mesh, shard_rows
    >>> mesh = make_mesh()
    >>> shard_rows(jnp.zeros((8, 3)), mesh).sharding.mesh == mesh
    True
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ._arrays import native_leaves
from ._checks import check_at_least, differ, is_concrete, is_elsewhere, is_key

__all__ = [
    "DATA",
    "MODEL",
    "all_processes",
    "ambient_mesh",
    "any_process",
    "check_mesh",
    "check_same_settings",
    "constrain_everywhere",
    "constrain_rows",
    "gather",
    "is_main_process",
    "join_rows",
    "make_mesh",
    "n_shards",
    "over_rows",
    "place",
    "set_mesh",
    "shard_atoms",
    "shard_rows",
    "start_processes",
    "wait_for_all",
]

DATA, MODEL = "data", "model"


def make_mesh(*, n_model: int = 1, devices: Any = None) -> Mesh:
    """Return a mesh of all devices of all processes, ``"data"`` by ``"model"``.

    Args:
        n_model: devices along ``"model"``, ≥ 1; a divisor of the number of devices.
        devices: which devices; ``None``: all there are.

    Raises:
        ValueError: if the devices cannot be laid out so.
    """
    check_at_least("n_model", n_model, 1)
    devices = jax.devices() if devices is None else list(devices)
    if len(devices) % n_model:
        raise ValueError(f"n_model: expected a divisor of the {len(devices)} devices, got {n_model}.")
    shape = (len(devices) // n_model, n_model)
    return jax.make_mesh(shape, (DATA, MODEL), devices=devices, axis_types=(AxisType.Auto,) * 2)


def check_mesh(mesh: Mesh | AbstractMesh) -> None:
    """Raise ``ValueError`` unless ``mesh`` has the axis ``"data"``, and none but that and ``"model"``."""
    if not isinstance(mesh, (Mesh, AbstractMesh)):
        raise ValueError(f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}.")
    if not _has_our_axes(mesh):
        raise ValueError(
            f"mesh: expected the axes {DATA!r} and, if need be, {MODEL!r}, got {mesh.axis_names}."
        )
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"mesh: expected axes of type Auto, as make_mesh makes them, got {mesh.axis_types}.")


def ambient_mesh() -> AbstractMesh | None:
    """Return the mesh that ``jax.set_mesh`` has set, if it is one of ours and not being mapped over."""
    mesh = jax.sharding.get_abstract_mesh()
    is_ours = _has_our_axes(mesh) and all(kind == AxisType.Auto for kind in mesh.axis_types)
    return mesh if is_ours else None


def set_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """Return a context in which ``mesh`` is the ambient one; ``None`` changes nothing."""
    if mesh is None:
        return contextlib.nullcontext()
    check_mesh(mesh)
    return jax.set_mesh(mesh)


def n_shards(mesh: Mesh | AbstractMesh | None) -> int:
    """Return over how many devices rows are sharded."""
    return 1 if mesh is None else mesh.shape[DATA]


def shard_rows(tree: Any, mesh: Mesh, *, name: str = "tree") -> Any:
    """Lay the leading axis of every array over ``"data"``, inside ``jit`` or outside.

    Args:
        tree: arrays that every process has whole; rows divisible by the mesh's devices along ``"data"``.
        mesh: the mesh.
        name: what the tree is called in a message.

    Raises:
        ValueError: for rows that do not divide; the message names the array.
    """
    check_mesh(mesh)
    tree = native_leaves(name, tree)
    _check_divisible(name, tree, mesh.shape[DATA])
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(DATA)))


def join_rows(tree: Any, mesh: Mesh, *, name: str = "tree") -> Any:
    """Join the rows that each process has, in the order of the processes, into arrays over ``"data"``.

    Args:
        tree: this process's part; as many rows in every process.
        mesh: the mesh.
        name: what the tree is called in a message.

    Raises:
        ValueError: for rows that do not divide over this process's devices, and for a mesh on which two
            processes would have to give the same rows, as where ``"model"`` spans them.
    """
    check_mesh(mesh)
    _check_rows_have_one_owner(mesh)
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    tree = native_leaves(name, tree)
    _check_divisible(name, tree, max(1, mesh.shape[DATA] // jax.process_count()))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def shard_atoms(dictionary: Any, mesh: Mesh) -> Any:
    """Lay the atoms of a dictionary, the leading axis of its arrays, over ``"model"``.

    Raises:
        ValueError: for a mesh without ``"model"``, and for atoms that do not divide over it.
    """
    check_mesh(mesh)
    if MODEL not in mesh.axis_names:
        raise ValueError(f"mesh: expected an axis {MODEL!r} for the atoms, got {mesh.axis_names}.")
    arrays, rest = eqx.partition(dictionary, eqx.is_array)
    _check_divisible("dictionary", arrays, mesh.shape[MODEL], MODEL)
    arrays = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec(MODEL)))
    return eqx.combine(arrays, rest)


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Put every JAX array on the mesh: those that lie over it stay so, all others are on every device.

    Traced arrays, and NumPy's, are returned as they are.
    """
    if mesh is None:
        return tree

    def put(leaf):
        if not isinstance(leaf, jax.Array) or not is_concrete(leaf):
            return leaf
        is_placed = isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh == mesh
        return leaf if is_placed else jax.device_put(leaf, NamedSharding(mesh, PartitionSpec()))

    return jax.tree.map(put, tree)


def constrain_rows(tree: Any) -> Any:
    """Inside ``jit``, lay the leading axis of every array over ``"data"`` of the ambient mesh, if any."""
    tree = native_leaves("tree", tree)
    if ambient_mesh() is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(DATA))


def constrain_everywhere(tree: Any) -> Any:
    """Inside ``jit``, have every array whole on every device of the ambient mesh, if there is one."""
    tree = native_leaves("tree", tree)
    if ambient_mesh() is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def over_rows(
    function: Callable[..., Any], mesh: Mesh | AbstractMesh | None, *, shared: tuple = (), name: str = "rows"
) -> Callable[..., Any]:
    """Return ``function`` with each device of a mesh at work on its own rows, nothing moved between them.

    Args:
        function: called with what is shared, then with arrays of equal leading axes, row by row; it returns
            such arrays.
        mesh: the mesh; ``None``: the ambient one; without that, ``function`` is called as it is.
        shared: pytrees that every device has whole, such as a model. (Arrays in a closure are not taken
            along: operations that look at where their operands lie, as indexing does, refuse them.)
        name: what the rows are called in a message.

    Returns:
        A function of the rows.

    Raises:
        ValueError: when called, for rows that do not divide over the mesh.
    """
    if mesh is not None:
        check_mesh(mesh)
    chosen = ambient_mesh() if mesh is None else mesh
    if chosen is None:
        return lambda *trees: function(*shared, *native_leaves(name, trees))
    arrays, static = eqx.partition(shared, eqx.is_array)
    rows = PartitionSpec(DATA)
    mapped = jax.shard_map(
        lambda arrays, trees: function(*eqx.combine(arrays, static), *trees),
        mesh=chosen,
        in_specs=(PartitionSpec(), rows),
        out_specs=rows,
        axis_names={DATA},
        check_vma=False,
    )

    def run(*trees):
        trees = native_leaves(name, trees)
        _check_divisible(name, trees[0], n_shards(chosen))
        return jax.jit(mapped)(arrays, trees)  # without jit JAX wants every axis of the mesh named

    return run


def gather(tree: Any) -> Any:
    """Return the tree with the arrays that lie in other processes too as whole ones of this process.

    All must ask. NumPy arrays, and typed keys on this process's device; what is here alone stays as it is.
    """

    def fetch(leaf):
        if not is_elsewhere(leaf):
            return leaf
        if is_key(leaf):
            return jax.random.wrap_key_data(fetch(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if leaf.is_fully_replicated:
            return np.asarray(leaf)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(fetch, tree)


def start_processes(**settings: Any) -> None:
    """Join the other processes of this program; call it before anything else of JAX.

    Without settings from the environment: under SLURM, Open MPI, Kubernetes and on TPUs as
    ``jax.distributed.initialize`` reads it, else from ``JAX_COORDINATOR_ADDRESS`` (host:port),
    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``.

    Args:
        **settings: those of ``jax.distributed.initialize``.

    Raises:
        ValueError: if part of the environment is missing or is not a number; the message names it.
    """
    names = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    if "JAX_COORDINATOR_ADDRESS" in os.environ and any(name in os.environ for name in names.values()):
        for argument, name in names.items():
            text = os.environ.get(name)
            if text is None or not text.isdecimal():
                raise ValueError(f"{name}: expected a whole number, got {text!r}.")
            settings.setdefault(argument, int(text))
    # Its own service would swallow SIGTERM wherever `fit` does not listen for it.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(**settings)


def is_main_process() -> bool:
    """Return whether this process is the one that prints and draws."""
    return jax.process_index() == 0


def all_processes(value: Any) -> list[Any]:
    """Return what each process gives, in their order, in every process; all must ask.

    Args:
        value: what JSON can hold; anything else comes as text.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    text = json.dumps(value, sort_keys=True, default=str).encode()
    sizes = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.frombuffer(text.ljust(int(np.max(sizes)), b" "), np.uint8)
    return [
        json.loads(bytes(part).decode()) for part in np.asarray(multihost_utils.process_allgather(padded))
    ]


def any_process(flag: bool) -> bool:
    """Return whether ``flag`` is true in any process; all must ask."""
    return any(all_processes(bool(flag)))


def wait_for_all(name: str) -> None:
    """Wait until all processes are here; ``name`` is the same in all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def check_same_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError``, in every process, for the first entry that is not the same in all; all must ask.

    Args:
        name: what the settings are called in the message.
        settings: what JSON can hold.
    """
    everyone = all_processes(dict(settings))
    for number, other in enumerate(everyone):
        for key in sorted(set(everyone[0]) | set(other)):
            first, here = everyone[0].get(key, "nothing"), other.get(key, "nothing")
            if differ(first, here):
                raise ValueError(
                    f"{name}: expected the same in all processes, but {key} is {first!r} in process 0 and "
                    f"{here!r} in process {number}."
                )


def _has_our_axes(mesh: Mesh | AbstractMesh) -> bool:
    return DATA in mesh.axis_names and not set(mesh.axis_names) - {DATA, MODEL}


def _check_rows_have_one_owner(mesh: Mesh) -> None:
    along_data = np.moveaxis(mesh.devices, mesh.axis_names.index(DATA), 0)
    for i, devices in enumerate(along_data.reshape(len(along_data), -1)):
        owners = sorted({device.process_index for device in devices})
        if len(owners) > 1:
            raise ValueError(
                f"mesh: expected the devices at one place along {DATA!r} in one process, which has the rows, "
                f"got processes {owners} at place {i}."
            )


def _check_divisible(name: str, tree: Any, n: int, axis: str = DATA) -> None:
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = name + jax.tree_util.keystr(keys)
        if not jnp.shape(leaf):
            raise ValueError(f"{path}: expected an array with a leading axis, got {leaf!r:.60}.")
        if jnp.shape(leaf)[0] % n:
            raise ValueError(
                f"{path}: expected a leading axis that divides over {n} devices along {axis!r}, "
                f"got shape {jnp.shape(leaf)}."
            )
