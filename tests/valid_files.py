"""Valid small files of every kind the library reads: what of them is damaged, and how that becomes a file."""

import gzip
import hashlib
import io
import json
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.io
import scipy.sparse
from PIL import Image

from neurojax.cli._rbm_settings import Settings
from neurojax.data import write_shards
from neurojax.data._cifar import _ARCHIVE_FOLDER, _RECORD, _Batch
from neurojax.runs import plain_settings


class Base(NamedTuple):
    """A valid file, as what is damaged and how that becomes a file."""

    content: bytes
    pack: Callable[[bytes], bytes] = bytes


def written(write: Callable[[io.BytesIO], Any]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def npy(array, **settings) -> bytes:
    return written(lambda file: np.lib.format.write_array(file, np.asarray(array), **settings))


def zipped(name: str, others: dict[str, bytes], compression: int) -> Callable[[bytes], bytes]:
    """Return what packs one entry beside others, with the right checksum."""

    def pack(content: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            for entry, data in {**others, name: content}.items():
                archive.writestr(f"{entry}.npy", data)
        return file.getvalue()

    return pack


def archives(arrays: dict[str, Any]) -> list[Base]:
    """Return an archive, stored and deflated, damaged as it is or in one of its entries."""
    entries = {name: npy(array) for name, array in arrays.items()}
    bases = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for name in entries:
            pack = zipped(name, {n: e for n, e in entries.items() if n != name}, compression)
            bases.append(Base(entries[name], pack))
        bases.append(Base(bases[-1].pack(bases[-1].content)))
    return bases


def npy_bases() -> list[Base]:
    values = np.arange(24.0).reshape(2, 3, 4) / 24
    arrays = [
        values,
        values.astype(">f4"),
        np.asfortranarray(values),
        (255 * values).astype(np.uint8),
        np.array(["one", "two"]),
        np.zeros(3, [("a", "i4"), ("b", "f8", 2)]),
    ]
    bases = [Base(npy(array)) for array in arrays]
    return [*bases, Base(npy(values, version=(2, 0))), Base(npy(values, version=(3, 0)))]


def npz_bases() -> list[Base]:
    return archives(
        {"images": np.arange(24.0).reshape(2, 3, 4) / 24, "text": np.array("words"), "n": np.int64(3)}
    )


def deflated_element(content: bytes) -> bytes:
    """Compress what follows the header of a MATLAB file as one element."""
    packed = zlib.compress(content[128:])
    return content[:128] + struct.pack("<2I", 15, len(packed)) + packed


def mat_bases() -> list[Base]:
    cells = np.empty((2, 1), object)
    cells[:] = [[np.arange(3)], [{"a": 1.5, "b": "text"}]]
    variables: list[dict[str, Any]] = [
        {"IMAGES": np.arange(24.0).reshape(2, 3, 4)},
        {"data": cells},
        {"s": scipy.sparse.csc_array(np.eye(3)), "c": np.array([1 + 2j]), "t": "text"},
    ]
    bases = []
    for values in variables:
        for is_packed in (False, True):
            bases.append(
                Base(written(lambda f, v=values, p=is_packed: scipy.io.savemat(f, v, do_compression=p)))
            )
        if len(values) == 1:
            bases.append(Base(bases[-2].content, deflated_element))
    simple = {"x": np.arange(6.0).reshape(2, 3), "t": "text", "s": scipy.sparse.csc_array(np.eye(2))}
    return [*bases, Base(written(lambda file: scipy.io.savemat(file, simple, format="4")))]


def hdf5_bases() -> list[Base]:
    """Return MATLAB files of version 7.3, where h5py is installed."""
    try:
        import h5py
    except ImportError:
        return mat_bases()

    def write(file: io.BytesIO, **settings: Any) -> None:
        with h5py.File(file, "w", userblock_size=512) as store:
            for name in ("images", "other"):
                store.create_dataset(name, data=np.arange(24.0).reshape(4, 3, 2), **settings)
                store[name].attrs["MATLAB_class"] = np.bytes_("double")

    return [Base(written(write)), Base(written(lambda file: write(file, compression="gzip", shuffle=True)))]


def table_bases() -> list[Base]:
    text = 'angle,"n 1",n2\r\n0,1.5,-2e3\r\n90,NaN,\r\n180,3,4\r\n'
    return [Base(("\ufeff" * i + text.replace(",", mark)).encode()) for i, mark in enumerate(",;\t")]


def idx_bases() -> list[Base]:
    content = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(24)
    wide = struct.pack(">4BI", 0, 0, 13, 1, 5) + np.arange(5, dtype=">f4").tobytes()
    return [Base(content), Base(wide), Base(content, gzip.compress), Base(gzip.compress(wide))]


def with_checksums(content: bytes) -> bytes:
    """Return a PNG file with the checksums that its chunks should have."""
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, at)
        body = content[at + 4 : at + 8 + size]
        out += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(out) + content[at:]


def image_bases() -> list[Base]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    bases = []
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM"):
        for picture in (image, image.convert("L"), image.convert("P")):
            if (kind, picture.mode) in (("JPEG", "P"), ("PPM", "P")):
                continue
            content = written(lambda file, p=picture, k=kind: p.save(file, k))
            bases += [Base(content, with_checksums if kind == "PNG" else bytes), Base(content)]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        bases.append(Base(written(lambda f, c=compression: image.save(f, "TIFF", compression=c))))
    exif = image.getexif()
    exif[0x0112] = 6
    return [*bases, Base(written(lambda file: image.save(file, "JPEG", exif=exif, progressive=True)))]


def amat_bases() -> list[Base]:
    row = b" ".join(b"01"[i % 2 : i % 2 + 1] for i in range(784)) + b"\n"
    return [Base(row * 2)]


BATCH = _Batch("data_batch_1.bin", 1, f"sha256:{hashlib.sha256(bytes(_RECORD)).hexdigest()}")


def xz_bases() -> list[Base]:
    return [Base(lzma.compress(bytes(_RECORD))), Base(bytes(_RECORD), lzma.compress)]


def tar_bases() -> list[Base]:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(f"{_ARCHIVE_FOLDER}/{BATCH.name}")
        member.size, member.pax_headers = _RECORD, {"comment": "words"}
        archive.addfile(member, io.BytesIO(bytes(_RECORD)))
    return [Base(file.getvalue(), gzip.compress), Base(gzip.compress(file.getvalue()))]


def model() -> dict[str, Any]:
    return {
        "weights": jnp.arange(6.0).reshape(2, 3),
        "half": jnp.ones(2, jnp.bfloat16),
        "key": jax.random.key(0),
        "order": 3,
    }


LIKE = model()
PLAIN_LIKE = {name: leaf for name, leaf in LIKE.items() if name != "half"}


def bases_of_archive(write: Callable[[Any, Any], None], tree: Any) -> Callable[[], list[Base]]:
    """Return archives of what one of the writers of models writes."""

    def make() -> list[Base]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.npz"
            write(path, tree)
            content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {n.removesuffix(".npy"): archive.read(n) for n in archive.namelist()}
        bases = [Base(content)]
        for name, entry in entries.items():
            others = {n: e for n, e in entries.items() if n != name}
            bases.append(Base(entry, zipped(name, others, zipfile.ZIP_STORED)))
        if "description" in entries:
            others = {n: e for n, e in entries.items() if n != "description"}
            pack = zipped("description", others, zipfile.ZIP_DEFLATED)
            text = str(np.load(io.BytesIO(entries["description"])))
            bases.append(Base(text.encode(), lambda c: pack(npy(np.array(c.decode("utf-8", "replace"))))))
        return bases

    return make


def config_bases() -> list[Base]:
    plain = plain_settings(Settings())
    return [Base(json.dumps(plain, indent=2).encode()), Base(json.dumps(plain).encode())]


def metrics_bases() -> list[Base]:
    rows = [{"step": i, "loss": 0.5 / (i + 1), "nested": {"a": [1, None, True]}} for i in range(4)]
    return [Base("".join(json.dumps(row) + "\n" for row in rows).encode())]


def course_bases() -> list[Base]:
    responses, stimuli = np.arange(12.0).reshape(3, 4), np.array([0.0, 90, 180])
    return [
        *archives({"resp": responses, "stimuli": stimuli}),
        *archives({"resp_train": responses, "resp_test": responses, "stimuli": stimuli}),
    ]


ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


def shard_bases() -> list[Base]:
    return [Base(npy(ROWS)), Base(npy(ROWS.astype(">i2"), version=(2, 0))), *archives({"rows": ROWS})]


def write_three_shards(folder: Path) -> None:
    write_shards(folder, ROWS, 2)


def index_bases() -> list[Base]:
    """Return the index of those shards, as it is and on one line."""
    with tempfile.TemporaryDirectory() as folder:
        write_three_shards(Path(folder))
        content = (Path(folder) / "shards.json").read_bytes()
    return [Base(content), Base(json.dumps(json.loads(content)).encode())]


def rows_bases() -> list[Base]:
    rows = np.linspace(0, 1, 96).reshape(16, 6)
    return [Base(npy(rows)), Base(npy((255 * rows).astype(np.uint8))), *archives({"rows": rows})]
