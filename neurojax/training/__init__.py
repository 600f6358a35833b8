"""The training loop: any model, any objective, any Optax optimiser, in blocks of steps on the device.

``fit`` takes batches on the device, records every step, saves the run so that it goes on bit for bit
after it was cut off, evaluates on held-out data, and stops at the first number that is not finite.
"""

from ._checkpoint import Checkpoint
from ._fit import FitResult, fit
from ._history import Evaluation, History
from ._interruption import InterruptedRunError, TerminatedError
from ._loop import NonFiniteLossError
from ._objectives import AbstractGradientObjective, AbstractObjective
from ._sources import BatchIterator

__all__ = [
    "AbstractGradientObjective",
    "AbstractObjective",
    "BatchIterator",
    "Checkpoint",
    "Evaluation",
    "FitResult",
    "History",
    "InterruptedRunError",
    "NonFiniteLossError",
    "TerminatedError",
    "fit",
]
