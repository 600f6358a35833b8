"""Encoding and decoding by neural populations: stimuli, tuning, decoders, encoders, and what they are worth.

Angles are in degrees and lie on a circle, of 360° for directions of motion and of 180° for orientations.
Responses are (trials, neurons).
"""

from ._angles import AngleBins, circular_difference, circular_mean, wrap_degrees
from ._baselines import linear_baseline, null_baseline, paired_mean_baseline, repeat_mean_baseline
from ._decoding import (
    AbstractClassDecoder,
    AbstractDecoder,
    AbstractFittedDecoder,
    AbstractProbabilisticDecoder,
    posterior_mean_degrees,
)
from ._encoders import AbstractEncoder, ConvolutionalEncoder
from ._encoding_objective import EncodingObjective
from ._explained import ExplainedFraction, explainable_variance, feve
from ._filters import center_surround, course_filters, gabor_bank, gabor_filter
from ._folds import stratified_folds
from ._gabor_energy import GaborEnergy
from ._glm import LinearNonlinearPoisson, PoissonFit, fit_poisson
from ._lags import lagged
from ._likelihood_decoders import GaussianDecoder, PoissonDecoder
from ._linear_decoders import BumpRidge, PopulationVector, SinCosRidge
from ._metrics import (
    bits_per_spike,
    circular_errors,
    confusion_matrix,
    fraction_correct,
    mean_circular_error,
    median_circular_error,
    poisson_pseudo_r2,
    response_correlation,
)
from ._multinomial import MultinomialDecoder, MultinomialProblem, fit_multinomial
from ._network import DecodingNetwork, DecodingObjective
from ._network_decoders import NetworkClassifier, NetworkRegression, fit_decoding_network
from ._poisson_problem import Smoothness
from ._readouts import AbstractReadout, DenseReadout, FactorizedReadout
from ._ridge import LinearMap, ridge
from ._row_space import RowSpaceNetwork, RowSpaceObjective, RowSpaceTrials
from ._simulate import (
    SimulatedPopulation,
    simulate,
)
from ._standard_errors import (
    PoissonErrors,
    multinomial_standard_errors,
    poisson_standard_errors,
    von_mises_standard_errors,
)
from ._stimuli import course_grating, course_gratings, grating
from ._tuned import Tuned
from ._tuning import (
    BinnedResponses,
    bin_responses,
    circular_smooth,
    circular_variance,
    direction_selectivity,
    orientation_selectivity,
    peak_angle,
    preferred_direction,
    preferred_orientation,
    tuning_curves,
)
from ._validation import CrossValidation, MeanWithError, chance_level, cross_validate
from ._variability import (
    constant_neurons,
    noise_correlations,
    signal_correlations,
    split_half_reliability,
    trial_to_trial_reliability,
)
from ._von_mises import (
    VonMises,
    von_mises,
)
from ._von_mises_fit import (
    VonMisesFit,
    fit_von_mises,
    fit_von_mises_batch,
)

__all__ = [
    "AbstractClassDecoder",
    "AbstractDecoder",
    "AbstractEncoder",
    "AbstractFittedDecoder",
    "AbstractProbabilisticDecoder",
    "AbstractReadout",
    "AngleBins",
    "BinnedResponses",
    "BumpRidge",
    "ConvolutionalEncoder",
    "CrossValidation",
    "DecodingNetwork",
    "DecodingObjective",
    "DenseReadout",
    "EncodingObjective",
    "ExplainedFraction",
    "FactorizedReadout",
    "GaborEnergy",
    "GaussianDecoder",
    "LinearMap",
    "LinearNonlinearPoisson",
    "MeanWithError",
    "MultinomialDecoder",
    "MultinomialProblem",
    "NetworkClassifier",
    "NetworkRegression",
    "PoissonDecoder",
    "PoissonErrors",
    "PoissonFit",
    "PopulationVector",
    "RowSpaceNetwork",
    "RowSpaceObjective",
    "RowSpaceTrials",
    "SimulatedPopulation",
    "SinCosRidge",
    "Smoothness",
    "Tuned",
    "VonMises",
    "VonMisesFit",
    "bin_responses",
    "bits_per_spike",
    "center_surround",
    "chance_level",
    "circular_difference",
    "circular_errors",
    "circular_mean",
    "circular_smooth",
    "circular_variance",
    "confusion_matrix",
    "constant_neurons",
    "course_filters",
    "course_grating",
    "course_gratings",
    "cross_validate",
    "direction_selectivity",
    "explainable_variance",
    "feve",
    "fit_decoding_network",
    "fit_multinomial",
    "fit_poisson",
    "fit_von_mises",
    "fit_von_mises_batch",
    "fraction_correct",
    "gabor_bank",
    "gabor_filter",
    "grating",
    "lagged",
    "linear_baseline",
    "mean_circular_error",
    "median_circular_error",
    "multinomial_standard_errors",
    "noise_correlations",
    "null_baseline",
    "orientation_selectivity",
    "paired_mean_baseline",
    "peak_angle",
    "poisson_pseudo_r2",
    "poisson_standard_errors",
    "posterior_mean_degrees",
    "preferred_direction",
    "preferred_orientation",
    "repeat_mean_baseline",
    "response_correlation",
    "ridge",
    "signal_correlations",
    "simulate",
    "split_half_reliability",
    "stratified_folds",
    "trial_to_trial_reliability",
    "tuning_curves",
    "von_mises",
    "von_mises_standard_errors",
    "wrap_degrees",
]
