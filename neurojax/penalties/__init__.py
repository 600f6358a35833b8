"""Penalties on codes: thresholding operators as functions, and penalties as modules with value and prox.

A penalty says what a good code is; ``value`` is what the energy adds, ``prox`` is what a solver applies.
Solvers ask for an interface, not for a class: `AbstractValuedPenalty`, `AbstractProximalPenalty`.
"""

from neurojax.penalties._abstract import AbstractPenalty, AbstractProximalPenalty, AbstractValuedPenalty
from neurojax.penalties._group import GroupL2
from neurojax.penalties._separable import L0, L1, Cauchy, ElasticNet, Gaussian, Log, NonNegativeL1, SmoothL1
from neurojax.penalties._thresholds import (
    cauchy_threshold,
    hard_threshold,
    log_threshold,
    nonnegative_soft_threshold,
    soft_threshold,
)

__all__ = [
    "L0",
    "L1",
    "AbstractPenalty",
    "AbstractProximalPenalty",
    "AbstractValuedPenalty",
    "Cauchy",
    "ElasticNet",
    "Gaussian",
    "GroupL2",
    "Log",
    "NonNegativeL1",
    "SmoothL1",
    "cauchy_threshold",
    "hard_threshold",
    "log_threshold",
    "nonnegative_soft_threshold",
    "soft_threshold",
]
