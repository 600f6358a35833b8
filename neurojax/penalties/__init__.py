"""Penalties on codes: thresholding operators as functions, and penalties as modules with value and prox.

A penalty says what a good code is; ``value`` is what the energy adds, ``prox`` is what a solver applies.
Solvers ask for an interface, not for a class: `AbstractValuedPenalty`, `AbstractProximalPenalty`.
"""

from ._abstract import (
    AbstractCertifiedPenalty,
    AbstractPenalty,
    AbstractProximalPenalty,
    AbstractValuedPenalty,
    Certificate,
)
from ._certificates import largest_scale, ridge_slack, slack
from ._group import GroupL2, SparseGroupL2
from ._nonconvex import MCP, SCAD
from ._separable import L0, L1, ElasticNet, Log, NonNegativeL1
from ._smooth import Cauchy, Gaussian, Quadratic, SmoothL1
from ._sorted import SLOPE, TopK
from ._strengths import as_code, in_unit, magnitude, nonnegative, positive, step_times, weighted_sum
from ._thresholds import (
    cauchy_threshold,
    hard_threshold,
    log_threshold,
    nonnegative_soft_threshold,
    soft_threshold,
)

__all__ = [
    "L0",
    "L1",
    "MCP",
    "SCAD",
    "SLOPE",
    "AbstractCertifiedPenalty",
    "AbstractPenalty",
    "AbstractProximalPenalty",
    "AbstractValuedPenalty",
    "Cauchy",
    "Certificate",
    "ElasticNet",
    "Gaussian",
    "GroupL2",
    "Log",
    "NonNegativeL1",
    "Quadratic",
    "SmoothL1",
    "SparseGroupL2",
    "TopK",
    "as_code",
    "cauchy_threshold",
    "hard_threshold",
    "in_unit",
    "largest_scale",
    "log_threshold",
    "magnitude",
    "nonnegative",
    "nonnegative_soft_threshold",
    "positive",
    "ridge_slack",
    "slack",
    "soft_threshold",
    "step_times",
    "weighted_sum",
]
