"""Rows and small helpers for the tests of shards, batches and patches."""

import numpy as np

ROWS = np.arange(46, dtype=np.float32).reshape(23, 2)


def write_five(folder):
    """Write twenty-three rows into five shards without an index."""
    for number, rows in enumerate(np.split(ROWS, [5, 10, 15, 20])):
        np.save(folder / f"part-{number}.npy", rows)
    return folder


def numbers(batch):
    """Return the sorted numbers of the rows in a batch."""
    return sorted((np.asarray(batch)[:, 0] / 2).astype(int).tolist())


def take(stream, n):
    return [next(stream) for _ in range(n)]


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])
