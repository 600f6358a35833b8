"""Encoding and decoding by neural populations: stimuli, tuning, decoders, encoders, and what they are worth.

Angles are in degrees and lie on a circle, of 360° for directions of motion and of 180° for orientations.
Responses are (trials, neurons).
"""

from ._angles import AngleBins, circular_difference, circular_mean, wrap_degrees

__all__ = [
    "AngleBins",
    "circular_difference",
    "circular_mean",
    "wrap_degrees",
]
