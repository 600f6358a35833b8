"""Positions of iterators over batches, as JSON holds them, of one process or of many."""

import base64
import json
from typing import Any

import jax

from ..distributed import all_processes

__all__ = ["decode_position", "encode_position", "position_as_json"]


def encode_position(position: Any) -> Any:
    """Return the position for JSON; where processes have different ones, all of them."""
    everyone = all_processes(position_as_json(position))
    same = all(other == everyone[0] for other in everyone)
    return everyone[0] if same else {"by_process": everyone}


def decode_position(stored: Any, where: str) -> Any:
    """Return this process's position of those that `encode_position` stored."""
    if "by_process" in stored:
        everyone = stored["by_process"]
        if len(everyone) != jax.process_count():
            raise ValueError(
                f"{where}: expected {len(everyone)} processes as before, in each of which the data was at "
                f"a place of its own, got {jax.process_count()}."
            )
        stored = everyone[jax.process_index()]
    return base64.b64decode(stored["bytes"]) if "bytes" in stored else stored["json"]


def position_as_json(position: Any) -> Any:
    """Return an iterator's position as JSON holds it; raise ``ValueError`` for one that it cannot hold."""
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    try:
        return {"json": json.loads(json.dumps(position))}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data: expected a get_state that returns bytes or what JSON can hold, got {position!r:.80}."
        ) from error
