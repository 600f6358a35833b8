"""Files that lie about themselves, what is said of each, and what reading them costs a process.

`attack_all` runs in a process of its own, in the folder that holds the files.
"""

import gzip
import json
import re
import resource
import struct
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import scipy.io
from lying_parts import (
    BATCH,
    MIB,
    element,
    idx,
    mat,
    matrix,
    nested_cells,
    npy,
    npy_header,
    npz,
    overlapping,
    pax_bomb,
    pickled,
    png,
    tar,
    with_size,
)  # fmt: skip
from PIL import Image

from neurojax.cli._rbm_settings import Settings
from neurojax.cli._settings import from_plain, read_rows_file
from neurojax.data import load_images, read_arrays, stringer_orientations
from neurojax.data._binarized import _read_amat
from neurojax.data._cifar import _members
from neurojax.data._digits import read_idx
from neurojax.runs import RunFolder, load, load_arrays, open_run, plain_settings

LIKE = {"w": jnp.zeros(3)}
BOMB = bytes(32 * MIB)  # a thousandth of it when compressed


# --- files that lie --------------------------------------------------------------------------------------


def model_with(**changes) -> bytes:
    description = {
        "format": "neurojax model 1",
        "tree": {"['w']": {"shape": [3], "dtype": "float32"}},
        "arrays": ["['w']"],
    }
    text = changes.pop("text", json.dumps(description | changes.pop("description", {})))
    array = changes.pop("array", np.zeros(3, np.float32))
    return npz({"array_0.npy": npy(array), "description.npy": npy(np.array(text))})


def read_members(path: Path):
    with path.open("rb") as file:
        return _members(path, file, (BATCH,))


def read_settings(path: Path):
    return from_plain(Settings, open_run(path.parent).read_config(), str(path))


def with_setting(section: str, name: str, value) -> bytes:
    plain = plain_settings(Settings())
    plain[section][name] = value
    return json.dumps(plain).encode()


def read_little(path: Path):
    """Read with a limit far below what the file inflates to."""
    return read_arrays(path, most_bytes=MIB)


ATTACKS = {  # by the name of the file: what is in it, what reads it, what is said of it
    "1e15.npy": (
        lambda: npy_header("'<f8'", "(1000000000000000,)") + bytes(80),
        read_arrays,
        r"8000000000000000 bytes after the header.*got 80",
    ),
    "short.npy": (
        lambda: npy(np.zeros(100))[:-1],
        read_arrays,
        r"expected 800 bytes after the header.*got 799",
    ),
    "long.npy": (
        lambda: npy(np.zeros(100)) + b"\0",
        read_arrays,
        r"expected 800 bytes after the header.*got 801",
    ),
    "wide.npy": (lambda: npy_header("'<U500000000'", "(0,)"), read_arrays, r"at most 1048576 bytes each"),
    "nothing.npy": (
        lambda: npy_header("'|S0'", "(1000000000000000,)"),
        read_arrays,
        r"numbers, texts or records",
    ),
    "header.npy": (
        lambda: npy_header("'<f8'", "(1,)", length=2**32 - 1),
        read_arrays,
        r"header of at most 10000 bytes, got 4294967295",
    ),
    "minus.npy": (lambda: npy_header("'<f8'", "(-1, -10)") + bytes(80), read_arrays, r"sizes of at least 0"),
    "deep.npy": (lambda: npy_header("'<f8'", "-" * 9000 + "1"), read_arrays, r"cannot be read"),
    "nested.npy": (lambda: npy_header("'<f8'", "(" * 9000), read_arrays, r"cannot be read"),
    "code.npy": (lambda: npy_header("'<f8'", "__import__('os').abort()"), read_arrays, r"cannot be read"),
    "pickle.npy": (pickled, read_arrays, r"never unpickled"),
    "pickle.npz": (lambda: npz({"a.npy": pickled()}), read_arrays, r"never unpickled"),
    "pickle-model.npz": (
        lambda: npz({"w.npy": pickled()}),
        lambda p: load_arrays(p, LIKE),
        r"never unpickled",
    ),
    "raw-pickle.npy": (lambda: b"\x80\x04\x8c\x05posix\x94.", read_arrays, r"begin with 93 'NUMPY'"),
    "1e15.npz": (
        lambda: npz({"a.npy": npy_header("'<f8'", "(1000000000000000,)")}),
        read_arrays,
        r"8000000000000000 bytes",
    ),
    "bomb.npz": (
        lambda: npz({"a.npy": npy(np.frombuffer(BOMB, np.uint8))}),
        read_little,
        r"inflate to at most \d+ bytes in all, got 33554\d+",
    ),
    "modest-bomb.npz": (
        lambda: with_size(npz({"a.npy": npy(np.frombuffer(BOMB, np.uint8))}), 1000),
        read_little,
        r"Bad CRC-32",
    ),
    "sized-bomb.npz": (
        lambda: with_size(npz({"a.npy": bytes(100)}), 2**32 - 2),
        read_arrays,
        r"can inflate to, got one that says 4294967294",
    ),
    "overlap.npz": (lambda: overlapping(1000), read_arrays, r"side by side"),
    "twice.npz": (lambda: npz({"a.npy": npy(np.zeros(1)), "a": npy(np.ones(1))}), read_arrays, r"2 called a"),
    "story.npz": (
        lambda: npz({"a.npy": npy(np.zeros(1)), "story.txt": b"words"}),
        read_arrays,
        r"story\.txt: .*93 'NUMPY'",
    ),
    "bzip2.npz": (
        lambda: npz({"a.npy": npy(np.zeros(1))}, zipfile.ZIP_BZIP2),
        read_arrays,
        r"stored or deflated, got 12",
    ),
    "bomb-recording.npz": (
        lambda: npz({"resp.npy": npy(np.frombuffer(BOMB, np.uint8))}),
        stringer_orientations,
        r"expected the published file \(md5",
    ),
    "1e15-rows.npy": (
        lambda: npy_header("'<f4'", "(1000000, 1000000000)"),
        lambda p: read_rows_file(p, ()),
        r"bytes after the header",
    ),
    "larger-idx": (lambda: idx((1000, 28, 28), bytes(784)), read_idx, r"expected 784000 bytes.*got 784\."),
    "huge-idx": (lambda: idx((2**32 - 1,) * 3), read_idx, r"expected 1 to 1073741824 bytes"),
    "endless-idx.gz": (lambda: gzip.compress(idx((10,), BOMB)), read_idx, r"expected 10 bytes.*got more"),
    "bomb.amat": (
        lambda: bytes(80 * MIB),
        _read_amat,
        r"expected a file of at most 78400000 bytes, got 83886080",
    ),
    "bomb.png": (
        lambda: png(20_000, 20_000, zlib.compress(bytes(2501 * 20_000))),
        load_images,
        r"cannot be read.*(exceeds limit|pixels)",
    ),
    "large.png": (
        lambda: png(9_000, 9_000, zlib.compress(bytes(1126 * 9_000))),
        load_images,
        r"at most 67108864 pixels, got 9000 × 9000",
    ),
    "empty.png": (lambda: png(60_000, 60_000, b""), load_images, r"cannot be read"),
    "program.png": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n",
        load_images,
        r"UnidentifiedImageError",
    ),
    "text.mat": (
        lambda: mat(matrix(4, (1, 2**30), element(16, b""))),
        read_arrays,
        r"expected an array of numbers, got x \(char\)",
    ),
    "numbers.mat": (
        lambda: mat(element(14, b"", 2**32 - 8)),
        read_arrays,
        r"expected an element of 4294967288",
    ),
    "inner.mat": (
        lambda: mat(matrix(6, (1, 1), element(9, bytes(8), 2**32 - 8))),
        read_arrays,
        r"expected an element of 4294967288 bytes, got 8",
    ),
    "cells.mat": (
        lambda: mat(matrix(1, (2**31 - 1, 1))),
        read_arrays,
        r"expected an array of numbers, got x \(cell\)",
    ),
    "deep.mat": (
        lambda: mat(nested_cells(5_000)),
        read_arrays,
        r"expected an array of numbers, got x \(cell\)",
    ),
    "bomb.mat": (
        lambda: mat(element(15, zlib.compress(matrix(9, (1, len(BOMB)), element(2, BOMB))))),
        read_little,
        r"compressed parts within the limit",
    ),
    "back.mat": (
        lambda: struct.pack("<5i", 0, -1, 4, 0, 12) + b"x" * 12 + bytes(64),
        read_arrays,
        r"read length must be non-negative",
    ),
    "large4.mat": (
        lambda: struct.pack("<5i", 0, 2**30, 2**30, 0, 2) + b"x\0" + bytes(64),
        read_arrays,
        r"read length must be non-negative",
    ),
    "type.mat": (
        lambda: mat(matrix(6, (1, 1), element(60_000, bytes(8)))),
        read_arrays,
        r"expected numbers, got an element of type 60000",
    ),
    "packed-type.mat": (
        lambda: mat(element(15, zlib.compress(matrix(6, (1, 1), element(60_000, bytes(8)))))),
        read_arrays,
        r"expected numbers, got an element of type 60000",
    ),
    "twice.mat": (
        lambda: mat(matrix(6, (1, 1), element(9, bytes(8))), nested_cells(5_000)),
        read_arrays,
        r"two called x",
    ),
    "structs.mat": (
        lambda: mat(matrix(2, (2**28, 1), element(5, struct.pack("<i", 4)), element(1, b"abc\0"))),
        read_arrays,
        r"expected an array of numbers, got x \(struct\)",
    ),
    "link.tar.gz": (
        lambda: tar(tarfile.SYMTYPE, 0),
        read_members,
        r"expected a file .*data_batch_1\.bin in it, got none",
    ),
    "hard-link.tar.gz": (
        lambda: tar(tarfile.LNKTYPE, 0),
        read_members,
        r"expected a file .*data_batch_1\.bin in it, got none",
    ),
    "large.tar.gz": (
        lambda: tar(size=8**11 - 1),
        read_members,
        r"expected 1 images of 3073 bytes.*got 8589934591",
    ),
    "pax.tar.gz": (pax_bomb, read_members, r"at most \d+ bytes inflated, got more"),
    "deep/config.json": (lambda: b'{"a":' * 100_000, read_settings, r"at most 64 levels"),
    "65/config.json": (lambda: b"[" * 65 + b"]" * 65, read_settings, r"at most 64 levels"),
    "large/config.json": (
        lambda: b"[" + b"0," * 2**23 + b"0]",
        read_settings,
        r"at most 16777216 bytes, got 16777219",
    ),
    "number/config.json": (lambda: b'{"seed": ' + b"9" * 10**6 + b"}", read_settings, r"cannot be read"),
    "list/config.json": (lambda: b"[1]", read_settings, r"expected settings, a JSON object, got list"),
    "text/config.json": (
        lambda: with_setting("learning", "n_steps", "many"),
        read_settings,
        r"expected n_steps to be of type int, got 'many'",
    ),
    "bool/config.json": (
        lambda: with_setting("learning", "n_steps", True),
        read_settings,
        r"expected n_steps to be of type int, got True",
    ),
    "rule/config.json": (
        lambda: with_setting("learning", "rule", "other"),
        read_settings,
        r"expected rule to be of type .*'pcd'.*, got 'other'",
    ),
    "1/metrics.jsonl": (
        lambda: b'{"step": 1}\n' + b"[" * 70 + b"]" * 70 + b"\n",
        lambda p: RunFolder(p.parent).read_metrics(),
        r"line 2: expected JSON of at most 64",
    ),
    "2/metrics.jsonl": (
        lambda: b'{"step": 1}\n' + b" " * 2**25,
        lambda p: RunFolder(p.parent).read_metrics(),
        r"line 2: expected at most 16777216",
    ),
    "3/metrics.jsonl": (
        lambda: b'{"step": 1}\n5\n',
        lambda p: RunFolder(p.parent).read_metrics(),
        r"line 2: expected an object, got int",
    ),
    "deep-model.npz": (lambda: model_with(text="[" * 50_000), lambda p: load(p, LIKE), r"at most 64 levels"),
    "other-model.npz": (
        lambda: model_with(array=np.zeros(4, np.float32)),
        lambda p: load(p, LIKE),
        r"\['w'\]: expected float32\[3\], got float32\[4\]",
    ),
    "cast-model.npz": (
        lambda: model_with(array=np.zeros(3, np.int64)),
        lambda p: load(p, LIKE),
        r"\['w'\]: expected float32\[3\], got int64\[3\]",
    ),
    "entry-model.npz": (
        lambda: model_with(description={"tree": {"['w']": 5}}),
        lambda p: load(p, LIKE),
        r"expected float32\[3\], got 5",
    ),
    "names-model.npz": (
        lambda: model_with(description={"arrays": ["a", "b"]}),
        lambda p: load(p, LIKE),
        r"an array for each of 2 names",
    ),
}
MEMORY = {"2/metrics.jsonl": 48}  # MiB
MOST = 24  # MiB, of the others
PIPE = "pipe.npy"


# --- each in turn, in a process with little memory -------------------------------------------------------


def peak() -> int:
    """Return the most memory that the process has had, in bytes, since it was last forgotten."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", text)[1])  # type: ignore[index]


def forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def attack(name: str) -> dict:
    """Read a file, and return what came of it, the seconds it took and the bytes by which memory grew."""
    read = read_arrays if name == PIPE else ATTACKS[name][1]
    before, began, kind, text = forget_peak(), time.perf_counter(), "none", ""
    try:
        read(Path(name))
    except Exception as error:
        kind, text = "ValueError" if isinstance(error, ValueError) else type(error).__name__, str(error)
    return {"kind": kind, "text": text, "seconds": time.perf_counter() - began, "bytes": peak() - before}


def attack_all() -> None:
    """Read every file in the working folder with little address space, and print what came of each."""
    jnp.zeros(1).block_until_ready()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 1024 * MIB, resource.RLIM_INFINITY))
    results = {name: attack(name) for name in [*ATTACKS, PIPE]}
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    grown = {name: grown_by(name, read) for name, (read, _) in TRUE.items()}
    print(json.dumps(results | {"true": grown}))


def grown_by(name: str, read) -> int:
    before = forget_peak()
    read(Path(name))
    return peak() - before


PIXELS = 2048**2
TRUE = {  # what reads it, and how many bytes that may take for each in it
    "true.npy": (read_arrays, 1.2),
    "true.npz": (read_arrays, 1.2),
    "true.mat": (read_arrays, 2.2),
    "true-idx": (read_idx, 3),
    "true.bmp": (lambda path: load_images(path, most_bytes=16 * PIXELS), 2 * 16 / 4),
}


def write_true(folder: Path) -> int:
    """Write four bytes for each of PIXELS in every form, and return how many bytes that is."""
    values = np.tile(np.random.default_rng(0).integers(0, 256, (4, 2048, 1), dtype=np.uint8), 2048)
    np.save(folder / "true.npy", values)
    np.savez_compressed(folder / "true.npz", values)
    scipy.io.savemat(folder / "true.mat", {"a": values}, do_compression=True)
    (folder / "true-idx").write_bytes(idx(values.shape, values.tobytes()))
    Image.fromarray(np.moveaxis(values[:3], 0, -1).copy()).save(folder / "true.bmp")
    return values.nbytes
