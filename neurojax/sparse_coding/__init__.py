"""Sparse coding: explain a datum by few atoms of a dictionary, and learn the dictionary from data.

E(z) = ½‖x − z @ atoms‖² + penalty(z)   (Olshausen & Field 1996)

`encode` minimizes E over the code z with a certificate; ``training.fit`` with a
`SparseCodingObjective` learns the atoms.
"""

from ..proximal import FISTA, ISTA, SpaRSA, SpaRSAState
from ._batch import encode_batch, encode_path_batch
from ._choice import StrengthChoice, strength_by_activity, strength_by_held_out
from ._dictionary import (
    AbstractDictionary,
    Dictionary,
    correlate,
    energy,
    normalize_atoms,
    random_dictionary,
    reconstruct,
)
from ._encode import encode, encode_path
from ._greedy import matching_pursuit, orthogonal_matching_pursuit
from ._layer import SparseCodingLayer, rmsprop_inference
from ._learned import (
    ALISTA,
    LISTA,
    AmortizedInferenceObjective,
    CodedData,
    CodeRegressionObjective,
    analytic_weights,
)
from ._learning import AtomUsage, DictionaryUpkeep, SparseCodingObjective, WeightedData
from ._online import (
    BlockCoordinateUpdate,
    DictionaryStatistics,
    OnlineDictionaryObjective,
    fit_dictionary_online,
    update_atoms,
)
from ._problem import duality_gap, make_problem, max_strength
from ._solvers import LCA, CoordinateDescent, Gradient, LCAState
from ._sparse_codes import SparseCodes, sparse_codes
from ._stream import encode_stream
from ._supervised import SparseClassifier, TaskDrivenObjective, normalize_classifier

__all__ = [
    "ALISTA",
    "FISTA",
    "ISTA",
    "LCA",
    "LISTA",
    "AbstractDictionary",
    "AmortizedInferenceObjective",
    "AtomUsage",
    "BlockCoordinateUpdate",
    "CodeRegressionObjective",
    "CodedData",
    "CoordinateDescent",
    "Dictionary",
    "DictionaryStatistics",
    "DictionaryUpkeep",
    "Gradient",
    "LCAState",
    "OnlineDictionaryObjective",
    "SpaRSA",
    "SpaRSAState",
    "SparseClassifier",
    "SparseCodes",
    "SparseCodingLayer",
    "SparseCodingObjective",
    "StrengthChoice",
    "TaskDrivenObjective",
    "WeightedData",
    "analytic_weights",
    "correlate",
    "duality_gap",
    "encode",
    "encode_batch",
    "encode_path",
    "encode_path_batch",
    "encode_stream",
    "energy",
    "fit_dictionary_online",
    "make_problem",
    "matching_pursuit",
    "max_strength",
    "normalize_atoms",
    "normalize_classifier",
    "orthogonal_matching_pursuit",
    "random_dictionary",
    "reconstruct",
    "rmsprop_inference",
    "sparse_codes",
    "strength_by_activity",
    "strength_by_held_out",
    "update_atoms",
]
