"""The table of `neurojax.training`."""

from ._entry import others

ENTRIES = [
    *others("training", "host program", "fit"),
    *others("training", "settings", "Checkpoint Evaluation", "It is an argument of fit, a host program."),
    *others("training", "record", "FitResult History"),
    *others("training", "abstract class", "AbstractGradientObjective AbstractObjective"),
    *others("training", "type", "BatchIterator"),
    *others("training", "exception", "InterruptedRunError NonFiniteLossError TerminatedError"),
]
