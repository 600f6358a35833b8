"""The table of `neurojax.plotting`."""

from ._entry import others

ENTRIES = others(
    "plotting",
    "pictures",
    "active_units atom_grid code_histogram code_raster code_stem confusion decoded_against_true "
    "decoded_on_circle error_against_angle error_histogram filter_pairs gabor_fits gabor_shapes history "
    "hourglass image_sheet latent_scatter lca_trajectories manifold network_diagram orientation_frequency "
    "penalties reconstructions regularization_path response_matrix score_comparison spectrum thresholds "
    "tuning_curves tuning_grid unit_activity weight_matrix",
)
