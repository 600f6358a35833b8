"""Devices and processes of the commands: which there are, and what each of them does."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._checks import check_at_least
from ..distributed import (
    all_processes,
    check_same_settings,
    gather,
    is_main_process,
    make_mesh,
    n_shards,
    start_processes,
)
from ..runs import plain_settings

__all__ = ["Devices", "check_divides", "fetch", "only_on_main", "say", "start_devices", "together"]

_MAY_DIFFER = ("progress",)


@dataclass(frozen=True)
class Devices:
    """The devices of a run; only rounding depends on them, so a resumed run may change them."""

    devices: int | Literal["all"] | None = None
    """Devices of this process that share each batch: a number, or all; by default 1, with distributed all."""
    distributed: bool = False
    """Join the other processes of this command, on this machine or others, and take the devices of all."""
    model_devices: int = 1
    """Devices among which the atoms of a dictionary are shared out (sparse-coding); they divide the number of
    devices, and the rest of it shares the batch."""


def start_devices(settings: Any, *, has_atoms: bool = False) -> Mesh | None:
    """Join the other processes, if asked to, and return the mesh; before anything else of JAX.

    Args:
        settings: of the command, with ``devices``.
        has_atoms: whether it has atoms to share out.

    Returns:
        The mesh, or ``None`` for one device.

    Raises:
        ValueError: for devices that there are not, and in every process for settings that differ in one.
    """
    asked = settings.devices
    _check(asked, has_atoms)
    if asked.distributed:
        try:
            start_processes()
        except ValueError as error:
            raise ValueError(
                "--distributed: expected SLURM, Open MPI or the variables JAX_COORDINATOR_ADDRESS, "
                f"JAX_NUM_PROCESSES and JAX_PROCESS_ID to say which processes there are ({error})"
            ) from error
        check_same_settings("settings", _flags(settings))
    mesh = _make_mesh(asked)
    say(_described(mesh))
    return mesh


def _check(asked: Devices, has_atoms: bool) -> None:
    check_at_least("model_devices", asked.model_devices, 1)
    if asked.model_devices > 1 and not has_atoms:
        raise ValueError(
            "model_devices: expected 1, as only sparse-coding has atoms to share out, got "
            f"{asked.model_devices}."
        )
    if isinstance(asked.devices, int):
        check_at_least("devices", asked.devices, 1)
        if asked.distributed:
            raise ValueError(
                f"devices: expected all with --distributed, which takes those of all processes, got "
                f"{asked.devices}."
            )


def _flags(settings: Any) -> dict[str, Any]:
    """Return every setting by the name of its flag."""
    sections = plain_settings(settings).values()
    return {name: value for part in sections for name, value in part.items() if name not in _MAY_DIFFER}


def _make_mesh(asked: Devices) -> Mesh | None:
    devices = jax.devices()
    if not asked.distributed and asked.devices != "all":
        n_devices = asked.devices or 1
        if n_devices > len(devices):
            raise ValueError(f"devices: expected at most the {len(devices)} there are, got {n_devices}.")
        devices = devices[:n_devices]
    if len(devices) % asked.model_devices:
        raise ValueError(
            f"model_devices: expected a divisor of the {len(devices)} devices, got {asked.model_devices}."
        )
    if len(devices) == 1 and not asked.distributed:
        return None
    return make_mesh(n_model=asked.model_devices, devices=devices)


def _described(mesh: Mesh | None) -> str | None:
    if mesh is None:
        return None
    n_data, n_model = mesh.devices.shape
    atoms = "" if n_model == 1 else f", atoms among {n_model} of them"
    return f"devices: {n_data * n_model} in {jax.process_count()} processes{atoms}"


def check_divides(name: str, number: int | None, mesh: Mesh | None) -> None:
    """Raise ``ValueError`` for rows, of the setting ``name``, that the devices cannot share evenly."""
    if number is not None and number % n_shards(mesh):
        raise ValueError(
            f"{name}: expected a multiple of the {n_shards(mesh)} devices that share them, got {number}."
        )


@contextmanager
def together() -> Iterator[None]:
    """Be in a part of the program where what goes wrong in one process is raised in all.

    All processes enter it. Nothing within it waits for the others: at its end each hears of all.
    """
    caught = None
    try:
        yield
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        caught = error
    is_of_arguments = isinstance(caught, ValueError | OSError)
    everyone = all_processes(None if caught is None else [is_of_arguments, str(caught)])
    if caught is not None:
        raise caught
    for number, told in enumerate(everyone):
        if told is not None:
            raise (ValueError if told[0] else RuntimeError)(f"process {number}: {told[1]}")


@contextmanager
def only_on_main() -> Iterator[bool]:
    """Give whether this is the process that writes and draws; in its end all wait for that one."""
    with together():
        yield is_main_process()


def say(text: str | None) -> None:
    """Print in one process."""
    if text is not None and is_main_process():
        print(text, flush=True)


def fetch(tree: Any, mesh: Mesh | None) -> Any:
    """Return the tree with its arrays off the mesh, whole in each process; all must ask."""
    if mesh is None:
        return tree

    def bring(leaf):
        return jnp.asarray(np.asarray(leaf)) if isinstance(leaf, jax.Array | np.ndarray) else leaf

    return jax.tree.map(bring, gather(tree))


def with_own_devices(plain: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return a run's settings without the devices that it ran on, which are those of a call alone."""
    has_devices = any(field.name == "devices" for field in dataclasses.fields(kind))
    return plain | {"devices": plain_settings(Devices())} if has_devices else plain
