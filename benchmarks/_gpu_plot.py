"""The picture of the GPU benchmark: what was measured so far."""

from __future__ import annotations

from typing import Any

from _gpu_codes import CODES, SLOTS
from _gpu_inputs import INPUTS
from _gpu_updates import UPDATES
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = dict[str, Any]
OURS, OTHERS, THIRD = "#0072B2", "0.7", "#D55E00"


def draw(content: Row) -> Figure:
    """Draw codes, slots, updates and input; a panel without figures says so."""
    tables: dict[str, list[Row]] = {}
    for part in content["parts"].values():
        tables |= part["tables"]
    figure = Figure((12, 8), layout="constrained")
    panels = {CODES: _codes, SLOTS: _slots, UPDATES: _updates, INPUTS: _inputs}
    for axes, (title, panel) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        if rows := tables.get(title):
            panel(axes, rows)
        else:
            axes.text(0.5, 0.5, f"{title}: not measured", ha="center", va="center", color="0.4")
            axes.set_axis_off()
        axes.spines[["top", "right"]].set_visible(False)
    device = content["machine"]["devices"]
    figure.suptitle(f"{device}{' (quick settings: no measurement)' if content['setting']['quick'] else ''}")
    return figure


def _codes(axes: Axes, rows: list[Row]) -> None:
    names = [f"{row['contender']}, {row['atoms']} atoms{_gap(row['tol'])}" for row in rows]
    times = [row["ms per 1000 rows"] for row in rows]
    colors = [OURS if row["contender"].startswith("neurojax") else OTHERS for row in rows]
    _bars(axes, names, times, colors)
    axes.set(xscale="log", xlabel="ms per 1000 rows", title="certified codes")
    axes.set_xlim(min(times) / 3, 10 * max(times))


def _gap(tol: Any) -> str:
    return f", gap {tol:.0e}" if isinstance(tol, float) else ""


def _slots(axes: Axes, rows: list[Row]) -> None:
    for i, n_atoms in enumerate(dict.fromkeys(row["atoms"] for row in rows)):
        some = sorted((row for row in rows if row["atoms"] == n_atoms), key=lambda row: row["slots"])
        slots, shares = [r["slots"] for r in some], [100 * r["share of product rate"] for r in some]
        axes.plot(slots, shares, "o-", label=f"{n_atoms} atoms", color=(OURS, THIRD, OTHERS)[i % 3])
    axes.set(xscale="log", xlabel="slots", ylabel="% of the rate of float32 products", title="slots")
    numbers = sorted({row["slots"] for row in rows})
    axes.set_xticks(numbers, map(str, numbers))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _updates(axes: Axes, rows: list[Row]) -> None:
    columns = {"fit": ("ms an update", OURS), "its products alone": ("ms of its products alone", OTHERS)}
    for i, (label, (column, color)) in enumerate(columns.items()):
        places = [place + (i - 0.5) * 0.4 for place in range(len(rows))]
        bars = axes.barh(places, [row[column] for row in rows], 0.4, color=color, label=label)
        axes.bar_label(bars, [f"{row[column]:.3g}" for row in rows], padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), [row["update"] for row in rows], fontsize=8)
    values = [row[column] for row in rows for column, _ in columns.values()]
    axes.set(xscale="log", xlabel="ms an update", title="updates")
    axes.set_xlim(min(values) / 3, 10 * max(values))
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)


def _inputs(axes: Axes, rows: list[Row]) -> None:
    names = [f"{row['input of fit']}{kind}" for row in rows for kind in ("", ", batches ready")]
    columns = ("ms a step", "ms a step, batches ready")
    _bars(axes, names, [row[c] for row in rows for c in columns], [OURS, OTHERS] * len(rows))
    axes.set(xlabel="ms a step", title="input of fit")
    axes.margins(x=0.15)


def _bars(axes: Axes, names: list[str], values: list[float], colors: list[str]) -> None:
    bars = axes.barh(range(len(names)), values, color=colors)
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
