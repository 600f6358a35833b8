"""The record of a run, step by step."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Evaluation", "History"]


def _check_names(source: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the series go on that were begun."""
    if set(before) != set(now):
        raise ValueError(f"{source}: expected {sorted(before)} as before, got {sorted(now)}.")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluate on held-out data now and then, and stop early by it if asked.

    Attributes:
        function: ``function(model, state, key) -> dict of scalars``, called on the host (jit what it
            computes); the key is the same each time, so that differences come from the model. One that is
            jitted itself, or an Equinox module, is compared when a run is resumed.
            ``"loss"`` is the one that is watched.
        every: how many steps lie between evaluations; they fall on its multiples.
        patience: stop after so many evaluations in a row without a new lowest ``"loss"``; ``None``: never.
        keep_best: return model, optimiser state and state as they were at the lowest ``"loss"``.
    """

    function: Any
    every: int
    patience: int | None = None
    keep_best: bool = False


@dataclasses.dataclass(frozen=True)
class History:
    """The series that training leaves.

    Attributes:
        metrics: by name, ``(steps,)`` each: entry i is what the objective gave at update i + 1, before the
            model changed. ``history["loss"]`` is short for ``history.metrics["loss"]``.
        evaluation: by name, ``(evaluations,)`` each.
        evaluation_steps: after how many updates each evaluation was made, ``(evaluations,)``.
    """

    metrics: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    evaluation: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    evaluation_steps: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the series of one metric of the objective."""
        return self.metrics[name]

    def __len__(self) -> int:
        """Return the number of updates recorded."""
        return len(self.metrics["loss"]) if self.metrics else 0

    def extended(self, metrics: Mapping[str, np.ndarray]) -> "History":
        """Return the history with the metrics of further steps."""
        if not self.metrics:
            return dataclasses.replace(self, metrics=dict(metrics))
        _check_names("objective: metrics", self.metrics, metrics)
        joined = {name: np.concatenate([self.metrics[name], values]) for name, values in metrics.items()}
        return dataclasses.replace(self, metrics=joined)

    def evaluated(self, step: int, values: Mapping[str, float]) -> "History":
        """Return the history with one more evaluation."""
        if self.evaluation:
            _check_names("evaluate.function", self.evaluation, values)
        joined = {name: np.append(self.evaluation.get(name, np.zeros(0)), v) for name, v in values.items()}
        return History(self.metrics, joined, np.append(self.evaluation_steps, step))

    def evaluations_since_best(self) -> int:
        """Return how many evaluations followed the first with the lowest loss."""
        losses = self.evaluation["loss"]
        return len(losses) - 1 - int(np.argmin(losses))

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield one dict a step, from the update after ``start``; an evaluation is in the row of its step."""
        evaluated = {int(step): i for i, step in enumerate(self.evaluation_steps)}
        for i in range(start, len(self)):
            row = {"step": i + 1, "loss": self.metrics["loss"][i].item()}
            row |= {name: values[i].item() for name, values in self.metrics.items()}
            if i + 1 in evaluated:
                at = evaluated[i + 1]
                row |= {f"evaluation/{name}": v[at].item() for name, v in self.evaluation.items()}
            yield row

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all series in one flat dict."""
        return (
            {f"metrics/{name}": values for name, values in self.metrics.items()}
            | {f"evaluation/{name}": values for name, values in self.evaluation.items()}
            | {"evaluation_steps": self.evaluation_steps}
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "History":
        """Return the history that ``to_arrays`` took apart."""

        def group(prefix: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}

        return cls(group("metrics/"), group("evaluation/"), arrays["evaluation_steps"])
