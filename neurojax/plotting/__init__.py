"""Every picture of the library: functions that take arrays and an Axes, and return the Axes.

Arrays may be NumPy's or JAX's. Without an Axes each function makes a new figure with pyplot and draws
there; nothing is shown, saved or changed globally. Signed filters and codes are drawn on scales that are
symmetric about 0, so that mid-gray (or white) is always zero.

Example:
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from neurojax import plotting
    >>> ax = Figure().subplots()
    >>> atoms = np.random.default_rng(0).standard_normal((100, 256))
    >>> plotting.atom_grid(atoms, (16, 16), ax) is ax
    True
"""

from ._autoencoders import latent_scatter, manifold, spectrum
from ._codes import active_units, code_histogram, code_raster, code_stem, unit_activity
from ._curves import history, lca_trajectories, penalties, thresholds
from ._decoding import (
    confusion,
    decoded_against_true,
    decoded_on_circle,
    error_against_angle,
    error_histogram,
)
from ._filters import atom_grid, gabor_fits, gabor_shapes, orientation_frequency
from ._images import image_sheet, reconstructions
from ._network import hourglass, network_diagram
from ._scores import regularization_path, score_comparison
from ._tuning import response_matrix, tuning_curves, tuning_grid
from ._weights import filter_pairs, weight_matrix

__all__ = [
    "active_units",
    "atom_grid",
    "code_histogram",
    "code_raster",
    "code_stem",
    "confusion",
    "decoded_against_true",
    "decoded_on_circle",
    "error_against_angle",
    "error_histogram",
    "filter_pairs",
    "gabor_fits",
    "gabor_shapes",
    "history",
    "hourglass",
    "image_sheet",
    "latent_scatter",
    "lca_trajectories",
    "manifold",
    "network_diagram",
    "orientation_frequency",
    "penalties",
    "reconstructions",
    "regularization_path",
    "response_matrix",
    "score_comparison",
    "spectrum",
    "thresholds",
    "tuning_curves",
    "tuning_grid",
    "unit_activity",
    "weight_matrix",
]
