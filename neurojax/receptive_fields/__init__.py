"""Gabor fits of learned atoms, and the statistics by which receptive fields are compared with neurons.

A Gabor function is a grating under a Gaussian envelope whose axes are those of the grating::

    g(row, column) = amplitude · exp(−u²/(2 width_across²) − w²/(2 width_along²))
                     · cos(2π frequency u + phase)
    u = (row − row₀) cos θ + (column − column₀) sin θ      across the bars
    w = (column − column₀) cos θ − (row − row₀) sin θ      along the bars

with θ the orientation of the bars, counter-clockwise from horizontal as the patch is drawn with row 0 on
top: 0° is a horizontal bar, 90° a vertical one.

Reference:
    Jones & Palmer 1987, J. Neurophysiol. 58, 1233-1258, eq. 1 (the function and its fit to simple cells).
"""

from ._fit import GaborFit, fit_gabor, fit_gabor_batch
from ._gabor import Gabor, gabor, gabor_batch
from ._statistics import (
    aspect_ratio,
    envelope_cycles,
    frequency_bandwidth,
    gabor_share,
    gabor_summary,
    is_gabor_like,
    orientation_bandwidth,
)

__all__ = [
    "Gabor",
    "GaborFit",
    "aspect_ratio",
    "envelope_cycles",
    "fit_gabor",
    "fit_gabor_batch",
    "frequency_bandwidth",
    "gabor",
    "gabor_batch",
    "gabor_share",
    "gabor_summary",
    "is_gabor_like",
    "orientation_bandwidth",
]
