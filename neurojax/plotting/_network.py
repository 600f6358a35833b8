"""Schematic drawings of networks: two layers, and the layers of an autoencoder."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyArrowPatch

from .._checks import check_at_least
from ._canvas import ACCENT, COLOURS, FAINT, INK, new_axes

__all__ = ["hourglass", "network_diagram"]


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
    _connect(ax, [(place, 0.0) for place in lower[0]], [(place, 1.0) for place in upper[0]])
    layers = ((0, lower, COLOURS[0], n_inputs, input_label), (1, upper, COLOURS[1], n_units, unit_label))
    for height, (nodes, dots), colour, number, label in layers:
        _draw_nodes(ax, [(place, height) for place in nodes], [(place, height) for place in dots], colour)
        ax.text(1.13, height, f"{number} {label}", va="center", ha="left", fontsize=11, color=INK)
    if has_competition:
        for left, right in zip(upper[0][:-1], upper[0][1:], strict=True):
            ax.add_patch(_inhibition(left, right))
        ax.text(1.13, 1.2, "competition", va="center", ha="left", fontsize=9, color=INK)
    ax.set(xlim=(-1.15, 1.9), ylim=(-0.2, 1.4 if has_competition else 1.2))
    ax.set_axis_off()
    return ax


def hourglass(
    layer_sizes: Sequence[int],
    ax: Axes | None = None,
    *,
    code_layer: int | None = None,
    n_drawn: int = 11,
) -> Axes:
    """Draw an autoencoder: its layers as columns of nodes from input to output, and their connections.

    The largest layer is drawn with at most ``n_drawn`` nodes, the others with fewer in proportion to their
    sizes (but at least four, or all they have), so that the drawing is an hourglass where the code is a
    bottleneck; three dots stand for the rest, and the size is written below. The code has another color.

    Args:
        layer_sizes: nodes of the input, of each hidden layer, and of the output, each ≥ 1; three or more.
        ax: where to draw; ``None`` makes a new figure.
        code_layer: which of ``layer_sizes`` is the code, counted from 0, neither the first nor the last;
            ``None`` takes the middle one of an odd number.
        n_drawn: the most places in a layer, ≥ 4.

    Returns:
        The Axes.

    Raises:
        ValueError: for fewer than three layers, numbers below their least, and a code layer that is none
            within.
    """
    last = len(layer_sizes) - 1
    if last < 2:
        raise ValueError(f"layer_sizes: expected at least three layers, got {last + 1}.")
    for i, size in enumerate(layer_sizes):
        check_at_least(f"layer_sizes[{i}]", size, 1)
    check_at_least("n_drawn", n_drawn, 4)
    if code_layer is None and last % 2 == 1:
        raise ValueError(f"code_layer: expected a number, as {last + 1} layers have no middle one, got None.")
    code_layer = last // 2 if code_layer is None else code_layer
    if not 0 < code_layer < last:
        raise ValueError(f"code_layer: expected a layer from 1 to {last - 1}, got {code_layer}.")
    ax = new_axes(ax, (1.6 * (last + 1), 4))
    layers = [_column(i, size, max(layer_sizes), n_drawn) for i, size in enumerate(layer_sizes)]
    for (nodes, _), (following, _) in pairwise(layers):
        _connect(ax, nodes, following)
    names = ["input"] + ["hidden"] * (last - 1) + ["output"]
    names[code_layer] = "code"
    for i, (nodes, dots) in enumerate(layers):
        colour = ACCENT if i == code_layer else COLOURS[0]
        _draw_nodes(ax, nodes, dots, colour, area=150.0)
        ax.text(i, -1.18, f"{layer_sizes[i]}\n{names[i]}", va="top", ha="center", fontsize=11, color=colour)
    ax.set(xlim=(-0.4, last + 0.4), ylim=(-1.55, 1.1))
    ax.set_axis_off()
    return ax


def _column(layer: int, size: int, largest: int, n_drawn: int) -> tuple[list, list]:
    """Return the points of a layer's nodes and of its dots, one spacing for all layers of a picture."""
    n_places = min(size, max(4, round(n_drawn * size / largest)))
    half = (n_places - 1) / (n_drawn - 1)
    # From the top down, so that the dots and the last node are at the bottom.
    nodes, dots = _places(size, n_places)
    return [(layer, -half * place) for place in nodes], [(layer, -half * place) for place in dots]


def _connect(ax: Axes, points, others) -> None:
    lines = [[point, other] for point in points for other in others]
    ax.add_collection(LineCollection(lines, colors=FAINT, linewidths=0.7, zorder=1))


def _draw_nodes(ax: Axes, nodes, dots, colour: str, area: float = 330.0) -> None:
    ax.scatter(*_coordinates(nodes), s=area, color=colour, edgecolors="white", lw=1.5, zorder=3)
    ax.scatter(*_coordinates(dots), s=14 * area / 330, color=INK, zorder=3)


def _coordinates(points) -> np.ndarray:
    return np.reshape(points, (-1, 2)).T


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
