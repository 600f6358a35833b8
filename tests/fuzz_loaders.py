"""Feed damaged files to every loader, and accept only the errors that they document.

    python tests/fuzz_loaders.py [--n 100000] [--seed 0] [--loader NAME] [--only INDEX]

Valid small files of each kind are built and then damaged: bits flipped, bytes cut, inserted, repeated or
taken from another file, numbers in headers replaced by extreme ones; what lies compressed or under a checksum
is also damaged before it is packed, so that the damage is not caught by the packing. A loader may return, or
raise ``ValueError`` or ``OSError`` that name the file and do not come of a ``MemoryError``. It has SECONDS
for an input, EXTRA_BYTES of address space beside what the process has when it begins, and may in all its
inputs take no more than MOST_GROWN beside what the process has when the loader's turn comes. An input is made
from the seed, the loader and its number alone, and is made again by ``--seed``, ``--loader`` and ``--only``.
What ends the process is left as a file in the folder that is printed first.
"""

import argparse
import faulthandler
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import valid_files as valid
from lying_files import forget_peak, peak
from valid_files import BATCH, LIKE, PLAIN_LIKE, Base

from neurojax.cli._rbm_settings import Settings
from neurojax.cli._settings import from_plain, read_rows_file
from neurojax.data import (
    ImageFolder,
    ShardedRows,
    load_images,
    load_responses,
    read_arrays,
    stringer_orientations,
    stringer_split,
)
from neurojax.data._binarized import _read_amat
from neurojax.data._cifar import _members, _read_xz
from neurojax.data._digits import read_idx
from neurojax.data._shard_writing import _is_unfinished
from neurojax.runs import (
    RunFolder,
    changed_settings,
    load,
    load_arrays,
    open_run,
    plain_settings,
    save,
    save_arrays,
)

SECONDS = 5
EXTRA_BYTES = 2**30
MOST_BYTES = 2**26  # what the loaders are told, where they can be
MOST_GROWN = 2 * MOST_BYTES  # of images twice the limit may be taken, of all else the arrays once


class Loader(NamedTuple):
    """How files of a kind are made and read."""

    file: str
    bases: Callable[[], list[Base]]
    read: Callable[[Path], Any]
    prepare: Callable[[Path], Any] = lambda folder: None  # puts beside the file what it needs


class Outcome(NamedTuple):
    """What became of the inputs of a loader."""

    n: int
    n_read: int
    n_refused: int
    seconds: float
    slowest: float
    grown: int
    failures: list[str]


class TooSlowError(BaseException):
    """An input that took longer than it may; no ``Exception``, so that no loader catches it."""


# --- reading them ----------------------------------------------------------------------------------------


def read_settings(path: Path) -> None:
    settings = from_plain(Settings, open_run(path.parent).read_config(), str(path))
    # What is accepted is good for what comes next.
    changed_settings(plain_settings(settings), plain_settings(Settings()))
    assert isinstance(settings.learning.n_steps, int)


def read_model(path: Path) -> None:
    read = load(path, LIKE)
    forms = [
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(t) if hasattr(leaf, "dtype")]
        for t in (read, LIKE)
    ]
    assert forms[0] == forms[1]


def read_tar(path: Path) -> None:
    with path.open("rb") as file:
        _members(path, file, (BATCH,))


def read_courses(path: Path) -> None:
    if b"resp_test" in path.read_bytes():
        stringer_split(path, check_digest=False)
    else:
        stringer_orientations(path, check_digest=False)


def arrays_of(path: Path) -> None:
    assert all(not array.dtype.hasobject for array in read_arrays(path, most_bytes=MOST_BYTES).values())


def images_of(path: Path) -> None:
    images = load_images(path, most_bytes=MOST_BYTES)
    assert all(np.all(np.isfinite(image)) for image in images)


def read_shards(path: Path) -> None:
    rows = ShardedRows(path.parent)
    np.testing.assert_array_equal(rows[[-1]], rows[len(rows) - 1 :])
    assert np.asarray(rows).shape == rows.shape


def read_index(path: Path) -> None:
    _is_unfinished(path)
    assert len(ShardedRows(path.parent, verify=True)) == len(valid.ROWS)


def read_folder(path: Path) -> None:
    folder = ImageFolder(path.parent, most_bytes=MOST_BYTES)
    assert folder[0].shape == tuple(folder.sizes[0])


LOADERS = {
    "npy": Loader("input.npy", valid.npy_bases, arrays_of),
    "npz": Loader("input.npz", valid.npz_bases, arrays_of),
    "npz images": Loader("input.npz", valid.npz_bases, images_of),
    "mat": Loader("input.mat", valid.mat_bases, lambda path: read_arrays(path, most_bytes=MOST_BYTES)),
    "mat images": Loader("input.mat", valid.mat_bases, images_of),
    "mat 7.3": Loader("input.mat", valid.hdf5_bases, arrays_of),
    "table": Loader("input.csv", valid.table_bases, load_responses),
    "idx": Loader("input-idx3-ubyte", valid.idx_bases, read_idx),
    "images": Loader("input.png", valid.image_bases, images_of),
    "amat": Loader("binarized_mnist_test.amat", valid.amat_bases, _read_amat),
    "cifar xz": Loader("data_batch_1.bin.xz", valid.xz_bases, lambda path: _read_xz(path, BATCH)),
    "cifar tar": Loader("cifar-10-binary.tar.gz", valid.tar_bases, read_tar),
    "recordings": Loader("input.npz", valid.course_bases, read_courses),
    "rows": Loader("input.npz", valid.rows_bases, lambda path: read_rows_file(path, ("digits",))),
    "model": Loader("model.npz", valid.bases_of_archive(save, LIKE), read_model),
    "arrays": Loader(
        "arrays.npz",
        valid.bases_of_archive(save_arrays, PLAIN_LIKE),
        lambda path: load_arrays(path, PLAIN_LIKE),
    ),
    "config": Loader("config.json", valid.config_bases, read_settings),
    "shards": Loader("input.npy", valid.shard_bases, read_shards),
    "npz shards": Loader("input.npz", valid.shard_bases, read_shards),
    "index": Loader("shards.json", valid.index_bases, read_index, valid.write_three_shards),
    "image folder": Loader("input.png", valid.image_bases, read_folder),
    "metrics": Loader(
        "metrics.jsonl", valid.metrics_bases, lambda path: RunFolder(path.parent).read_metrics()
    ),
}


# --- damage ----------------------------------------------------------------------------------------------

EXTREME = (
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 10**15, 2**63, 2**64 - 1,
)  # fmt: skip
WORDS = (
    b"1000000000000000", b"-1", b"0", b"1e999", b"NaN", b"null", b"[" * 70, b'{"a":' * 2000, b"[" * 100_000,
    b"'|O'", b"'<U100000000'", b"9" * 5000, b"\xff\xfe", b"\\ud800", b"../../x", b"PK\3\4", b"\x93NUMPY",
)  # fmt: skip


def flip(content: bytearray, other: bytes, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(content: bytearray, other: bytes, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def drop(content: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    del content[at : at + rng.randint(1, 16)]


def insert(content: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at:at] = rng.randbytes(rng.randint(1, 16))


def repeat(content: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at:at] = content[at : at + rng.randint(1, 64)] * rng.randint(1, 20)


def splice(content: bytearray, other: bytes, rng: random.Random) -> None:
    at, place = rng.randrange(len(content)), rng.randrange(len(other))
    content[at:] = other[place:]


def number(content: bytearray, other: bytes, rng: random.Random) -> None:
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    near = min(len(content), 200) if rng.random() < 0.5 else len(content)
    at = rng.randrange(near)
    content[at : at + width] = (rng.choice(EXTREME) % 256**width).to_bytes(width, order)


def word(content: bytearray, other: bytes, rng: random.Random) -> None:
    """Replace a number or a word in a text, such as the header of an .npy or a setting."""
    at = rng.randrange(len(content))
    starts = [i for i in range(at, min(at + 200, len(content))) if chr(content[i]).isalnum()]
    at = rng.choice(starts) if starts else at
    stop = at
    while stop < len(content) and chr(content[stop]).isalnum() and stop - at < 20:
        stop += 1
    content[at:stop] = rng.choice(WORDS)


def noise(content: bytearray, other: bytes, rng: random.Random) -> None:
    content[rng.randrange(min(len(content), 16)) :] = rng.randbytes(rng.randint(0, 300))


DAMAGE = (flip, flip, cut, drop, insert, repeat, splice, number, number, number, word, word, noise)


def damaged(bases: list[Base], rng: random.Random) -> bytes:
    base, other = rng.choice(bases), rng.choice(bases)
    content = bytearray(base.content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if content:
            rng.choice(DAMAGE)(content, other.content, rng)
    return base.pack(bytes(content))


# --- the run ---------------------------------------------------------------------------------------------


def too_slow(signum, frame) -> None:
    raise TooSlowError


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return the error, and all that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def try_one(loader: Loader, path: Path) -> tuple[bool, str | None]:
    """Return whether the file was read, and what was wrong with how it was refused."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        loader.read(path)
    except TooSlowError:
        return False, f"more than {SECONDS} s"
    except (ValueError, OSError) as error:
        # What a message quotes of a file is cut short.
        is_named, is_short = path.name in str(error), len(str(error)) < 5000
        if any(isinstance(cause, MemoryError) for cause in causes(error)):
            return False, f"out of memory: {error!r:.300}"
        return False, None if is_named and is_short else f"no file in {error!r:.300}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return False, "".join(traceback.format_exception(error)[-3:])
    else:
        return True, None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run(name: str, numbers: range, seed: int, folder: Path) -> Outcome:
    """Try the inputs of one loader by their numbers."""
    loader, n, n_read, failures = LOADERS[name], 0, 0, []
    folder = folder / name.replace(" ", "-")
    bases, path = loader.bases(), folder / loader.file
    folder.mkdir()
    loader.prepare(folder)
    for base in bases:
        path.write_bytes(base.pack(base.content))
    seconds, slowest, before = 0.0, 0.0, forget_peak()
    for index in numbers:
        path.write_bytes(damaged(bases, random.Random(f"{seed} {name} {index}")))
        began = time.perf_counter()
        is_read, wrong = try_one(loader, path)
        took = time.perf_counter() - began
        n, n_read, seconds, slowest = n + 1, n_read + is_read, seconds + took, max(slowest, took)
        if wrong is not None:
            failures.append(f"--seed {seed} --loader {name!r} --only {index}: {wrong}")
    n_refused, grown = n - n_read - len(failures), peak() - before
    if grown > MOST_GROWN:
        failures.append(f"--seed {seed} --loader {name!r}: took {grown} bytes, more than {MOST_GROWN}")
    return Outcome(n, n_read, n_refused, seconds, slowest, grown, failures)


def limit_memory() -> None:
    """Let the process have EXTRA_BYTES more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", choices=LOADERS, help="one loader alone")
    parser.add_argument("--only", type=int, help="one input alone, by its number")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    faulthandler.enable()
    signal.signal(signal.SIGALRM, too_slow)
    names = [arguments.loader] if arguments.loader else list(LOADERS)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"inputs lie in {folder}")
        jnp.zeros(1).block_until_ready()
        limit_memory()
        print("      loader   inputs     read  refused  failed  inputs/s  memory  slowest")
        for number_of, name in enumerate(names):
            n = len(range(number_of, arguments.n, len(names)))
            numbers = range(n) if arguments.only is None else range(arguments.only, arguments.only + 1)
            came = run(name, numbers, arguments.seed, Path(folder))
            failures += came.failures
            print(
                f"{name:>12}  {came.n:7}  {came.n_read:7}  {came.n_refused:7}  {len(came.failures):6}  "
                f"{came.n / came.seconds:8.0f}  {came.grown / 2**20:.0f} MiB  {came.slowest * 1e3:.0f} ms",
                flush=True,
            )
    for failure in failures[:20]:
        print(failure)
    print(f"{len(failures)} undocumented failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
