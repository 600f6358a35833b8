"""A schematic drawing of a two-layer network."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyArrowPatch

from .._checks import check_at_least
from ._canvas import COLOURS, FAINT, INK, new_axes

__all__ = ["network_diagram"]


def network_diagram(
    n_inputs: int,
    n_units: int,
    ax: Axes | None = None,
    *,
    input_label: str = "inputs",
    unit_label: str = "units",
    has_competition: bool = False,
    n_drawn: int = 9,
) -> Axes:
    """Draw a layer of inputs, a layer of units above it, and the connections between all of them.

    A layer of more than ``n_drawn`` nodes is drawn with its first ones, three dots and its last one; the
    numbers are written beside the layers.

    Args:
        n_inputs: nodes of the lower layer, ≥ 1.
        n_units: nodes of the upper layer, ≥ 1.
        ax: where to draw; ``None`` makes a new figure.
        input_label: the word behind the number of inputs.
        unit_label: the word behind the number of units.
        has_competition: whether arcs of mutual inhibition join neighbouring units.
        n_drawn: the most places in a layer, ≥ 4.

    Returns:
        The Axes.

    Raises:
        ValueError: for counts below their least.
    """
    check_at_least("n_inputs", n_inputs, 1)
    check_at_least("n_units", n_units, 1)
    check_at_least("n_drawn", n_drawn, 4)
    ax = new_axes(ax, (8, 4))
    lower, upper = _places(n_inputs, n_drawn), _places(n_units, max(4, n_drawn - 2))
    lines = [[(a, 0.0), (b, 1.0)] for a in lower[0] for b in upper[0]]
    ax.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.7, zorder=1))
    layers = ((0, lower, COLOURS[0], n_inputs, input_label), (1, upper, COLOURS[1], n_units, unit_label))
    for height, (nodes, dots), colour, number, label in layers:
        ax.scatter(
            nodes, np.full(len(nodes), height), s=330, color=colour, edgecolors="white", lw=1.5, zorder=3
        )
        ax.scatter(dots, np.full(len(dots), height), s=14, color=INK, zorder=3)
        ax.text(1.13, height, f"{number} {label}", va="center", ha="left", fontsize=11, color=INK)
    if has_competition:
        for left, right in zip(upper[0][:-1], upper[0][1:], strict=True):
            ax.add_patch(_inhibition(left, right))
        ax.text(1.13, 1.2, "competition", va="center", ha="left", fontsize=9, color=INK)
    ax.set(xlim=(-1.15, 1.9), ylim=(-0.2, 1.4 if has_competition else 1.2))
    ax.set_axis_off()
    return ax


def _places(n_nodes: int, n_drawn: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the nodes of a layer are drawn, and where the dots that stand for the rest."""
    if n_nodes <= n_drawn:
        return (np.linspace(-1, 1, n_nodes) if n_nodes > 1 else np.zeros(1)), np.zeros(0)
    places = np.linspace(-1, 1, n_drawn)
    middle, gap = places[-2], places[1] - places[0]
    return np.delete(places, -2), middle + gap * np.array([-0.22, 0.0, 0.22])


def _inhibition(left: float, right: float) -> FancyArrowPatch:
    bend = -0.45 if right - left < 0.4 else -0.25
    return FancyArrowPatch(
        (left, 1.055),
        (right, 1.055),
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="|-|,widthA=2,widthB=2",
        color=INK,
        lw=0.9,
        shrinkA=4,
        shrinkB=4,
    )
