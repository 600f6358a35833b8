"""Pictures of a run: each says which data it shows and how many, and is saved into the run folder."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..runs import RunFolder

__all__ = ["grid", "name_of", "save_figures"]

_LETTERS_AN_INCH, _N_COLUMNS = 15, 4


def save_figures(run: RunFolder, figures: Mapping[str, Figure], data: str, *, dpi: int = 150) -> None:
    """Write the data and their number below every figure, and save each as NAME.png in the run folder.

    Args:
        run: the folder.
        figures: by the stem of their file.
        data: the data set, and the numbers of samples and units.
        dpi: pixels an inch.
    """
    for name, figure in figures.items():
        _add_caption(figure, data)
        figure.savefig(run.picture_path(name), dpi=dpi)


def name_of(data: str, names: Mapping[str, str]) -> str:
    """Return the words for a data set of the library, or the file's own name for a path."""
    return names.get(data) or Path(data).name


def grid(n_panels: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels side by side, each of that many inches, at most four in a row."""
    n_columns = min(n_panels, _N_COLUMNS)
    n_rows = -(-n_panels // n_columns)
    figure = Figure((width * n_columns, height * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for ax in axes[n_panels:]:
        ax.remove()
    return figure, axes[:n_panels]


def _add_caption(figure: Figure, data: str) -> None:
    lines = textwrap.wrap(f"data: {data}", int(_LETTERS_AN_INCH * figure.get_figwidth()))
    above = figure.get_supxlabel()
    figure.supxlabel("\n".join([above, *lines] if above else lines), fontsize=8, color="#555555")
