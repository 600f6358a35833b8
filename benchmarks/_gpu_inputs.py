"""`fit` through the input pipelines, beside the same batches ready in a list."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

import _common as common
import input_pipeline
import numpy as np
from _gpu_report import Part

from neurojax import data

INPUTS = "input of fit"
# Measured group by group; `training_rows` warms up on the shards, so they are in each.
GROUPS = (
    (input_pipeline.ARRAY, input_pipeline.SHARDS, input_pipeline.PATCHES),
    (input_pipeline.SHARDS, input_pipeline.DECODED),
)


class Setting(NamedTuple):
    """Sizes of the part."""

    n_rows: int = 100_000
    n_steps: int = 40
    repeats: int = 3


QUICK = Setting(3000, 2, 1)


def measure(part: Part, setting: Setting, images: np.ndarray) -> None:
    """Time `fit` with each pipeline; grain, which the pipelines stand on, is an extra."""
    if importlib.util.find_spec("grain") is None:
        part.leave_out("fit with the input pipelines (grain is not installed)")
        return
    rows = common.patches(images, setting.n_rows, seed=3)
    with tempfile.TemporaryDirectory() as folder:
        shards = data.write_shards(Path(folder) / "rows", rows, 20_000)
        photographs = input_pipeline.photographs(images, Path(folder) / "images")
        pipelines = input_pipeline.sources(rows, shards, photographs)
        for names in GROUPS:
            found = part.attempt(
                f"fit from {names[-1]}", "fit", 40.0,
                lambda names=names: input_pipeline.training_rows(
                    {name: pipelines[name] for name in names}, setting.n_steps, setting.repeats
                ),
            )  # fmt: skip
            known = [row["input of fit"] for row in part.tables.get(INPUTS, [])]
            for row in found or []:
                if row["input of fit"] not in known:
                    part.add(INPUTS, row)
