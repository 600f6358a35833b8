"""The random order of the rows in an epoch, taken entry by entry: it is never made as a whole."""

import math

import numpy as np

from .._random import MIN_SIDE, N_ROUNDS

__all__ = ["shuffled"]


def shuffled(seed: int, epoch: int, positions: np.ndarray, n: int) -> np.ndarray:
    """Return the entries at these positions of the random permutation of 0 … n − 1 of an epoch.

    The Feistel network of ``neurojax._random.permuted`` in NumPy and 64 bits: cells of a square of at least
    n, whose row and column in turns are shifted by a hash of the other; what falls beyond n goes through
    again. Time and memory are those of the entries asked for, for any n. (So few rows that most cells of the
    least square would lie beyond them are permuted as a whole.)

    Args:
        seed: 0 to 2⁶⁴ − 1.
        epoch: the same range; each (seed, epoch) has a permutation of its own.
        positions: whole numbers from 0 to n − 1; not checked.
        n: how many are permuted, 1 to 2⁶² − 1.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    if n <= MIN_SIDE**2:
        return np.random.Generator(bits).permutation(n)[positions]
    n_left = math.isqrt(n - 1) + 1
    sides = np.uint64(n_left), np.uint64(-(-n // n_left))
    words = bits.random_raw((N_ROUNDS, 2))
    cells = _through(positions.astype(np.uint64), words, sides)
    while np.any(is_outside := cells >= n):
        cells[is_outside] = _through(cells[is_outside], words, sides)
    return cells.astype(np.int64)


def _through(cells: np.ndarray, words: np.ndarray, sides: tuple[np.uint64, np.uint64]) -> np.ndarray:
    left, right = np.divmod(cells, sides[1])
    for first, second in words.reshape(-1, 2, 2):
        left = _shifted(left, right, first, sides[0])
        right = _shifted(right, left, second, sides[1])
    return left * sides[1] + right


def _shifted(value: np.ndarray, by: np.ndarray, words: np.ndarray, side: np.uint64) -> np.ndarray:
    high_half = _mixed(_mixed(by + words[0]) ^ words[1]) >> 32
    value = value + (high_half * side >> 32)
    return np.where(value >= side, value - side, value)


def _mixed(word: np.ndarray) -> np.ndarray:
    """Return words of which about half the bits change with any bit of ``word`` (MurmurHash3's finaliser)."""
    word = (word ^ (word >> 33)) * np.uint64(0xFF51AFD7ED558CCD)
    word = (word ^ (word >> 33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> 33)
