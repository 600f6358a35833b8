"""Figures of a command, kept when they are saved: what is drawn is checked on the axes, not by its pixels."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

LEAST_PIXELS = 200


class Kept(NamedTuple):
    """The figures of a run by the stem of their file, and where those written to disk are."""

    figures: dict[str, Figure]
    written: list[Path]


@contextlib.contextmanager
def keep_figures(*written):
    """Keep each figure that is saved; write only the pictures with these stems, since drawing is slow."""
    kept, save = Kept({}, []), Figure.savefig

    def keep(figure, path, *, dpi):
        kept.figures[Path(path).stem] = figure
        assert min(figure.get_size_inches()) * dpi > LEAST_PIXELS, path
        if Path(path).stem in written:
            save(figure, path, dpi=dpi)
            kept.written.append(Path(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", keep)
        yield kept


def assert_pictures(folder, stems):
    """Check that exactly these pictures were drawn in a folder, each large enough and not blank."""
    assert {path.stem for path in folder.glob("*.png")} == set(stems)
    for stem in stems:
        with Image.open(folder / f"{stem}.png") as image:
            assert min(image.size) > LEAST_PIXELS and np.ptp(np.asarray(image.convert("L"))) > 100, stem


def picture(ax):
    """Return the array of an image, NaN where it is masked."""
    return np.ma.filled(ax.images[0].get_array().astype(float), np.nan)


def cells(ax, n, shape, n_columns):
    """Return the first ``n`` cells of a sheet of images."""
    sheet, (height, width) = picture(ax), shape[:2]
    places = [divmod(i, n_columns) for i in range(n)]
    return np.stack([sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])


def scaled(rows, shape):
    """Return rows as images, each divided by its largest absolute value."""
    rows = np.asarray(rows, float)
    return (rows / np.abs(rows).max(axis=1, keepdims=True)).reshape(-1, *shape)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def assert_line(line, x, y, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(line.get_xdata(), x, rtol, atol)
    np.testing.assert_allclose(line.get_ydata(), y, rtol, atol)


def assert_history(ax, steps, values, evaluation=None):
    """Check the curve of a history, and the points that were measured now and then."""
    assert_line(ax.lines[0], steps, values)
    assert ax.get_xlabel() == "step"
    if evaluation is not None:
        assert_line(ax.lines[-1], *evaluation)
