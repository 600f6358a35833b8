"""Proximal-gradient methods: minimize a smooth term plus a penalty, over any pytree.

`minimize` takes a function, or a smooth term such as `LeastSquares`, and a penalty of
`neurojax.penalties`; ISTA, FISTA and SpaRSA are its solvers. Sparse coding, multinomial decoders and
Poisson models stand on what is here, and so can a model of your own.
"""

from ._eigenvalue import largest_eigenvalue
from ._least_squares import AbstractLinearMap, LeastSquares, Matrix
from ._likelihoods import Logistic, Poisson
from ._minimize import minimize, minimize_batch
from ._problem import AbstractCompositeProblem, CompositeProblem, make_composite
from ._smooth import AbstractSmooth, FunctionSmooth, Misfit, Point
from ._sparsa import SpaRSA, SpaRSAState
from ._steps import FISTA, ISTA, AbstractProximalGradient

__all__ = [
    "FISTA",
    "ISTA",
    "AbstractCompositeProblem",
    "AbstractLinearMap",
    "AbstractProximalGradient",
    "AbstractSmooth",
    "CompositeProblem",
    "FunctionSmooth",
    "LeastSquares",
    "Logistic",
    "Matrix",
    "Misfit",
    "Point",
    "Poisson",
    "SpaRSA",
    "SpaRSAState",
    "largest_eigenvalue",
    "make_composite",
    "minimize",
    "minimize_batch",
]
