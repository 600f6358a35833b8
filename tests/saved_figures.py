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


def everything(ax):
    """Return the words and the numbers that are drawn on Axes, and on those inside of them."""
    words = [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *texts(ax)]
    words += [] if ax.get_legend() is None else legend(ax)
    numbers = [line.get_xydata() for line in ax.lines] + [image.get_array() for image in ax.images]
    numbers += [collection.get_offsets() for collection in ax.collections]
    numbers += [patch.get_path().vertices for patch in ax.patches]
    numbers += [[*ax.get_xlim(), *ax.get_ylim()]]
    for child in ax.child_axes:
        of_child = everything(child)
        words, numbers = words + of_child[0], numbers + of_child[1]
    return words, [np.ma.filled(np.ma.asarray(values, float), np.nan) for values in numbers]


def assert_drawn_alike(ax, other):
    """Check that two Axes show the same, but for rounding to single precision."""
    (words, numbers), (other_words, other_numbers) = everything(ax), everything(other)
    assert words == other_words and len(numbers) == len(other_numbers) and len(numbers) > 1
    for one, two in zip(numbers, other_numbers, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
