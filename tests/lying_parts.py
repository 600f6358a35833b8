"""What files that lie about themselves are made of: headers, archives and elements that say anything."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from neurojax.data._cifar import _ARCHIVE_FOLDER, _RECORD, _Batch

MIB = 2**20
BATCH = _Batch("data_batch_1.bin", 1, "sha256:" + "0" * 64)


def npy_header(descr: str, shape: str, *, order: str = "False", length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text) if length is None else length) + text


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(entries: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_size(content: bytes, size: int) -> bytes:
    """Return an archive of one entry that says the entry has another size when inflated."""
    for magic, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = content.rindex(magic) + at
        content = content[:place] + struct.pack("<I", size) + content[place + 4 :]
    return content


def overlapping(n: int) -> bytes:
    """Return an archive whose directory lists one entry again and again under other names."""
    content = npz({"0000.npy": npy(np.zeros(MIB, np.uint8))})
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry = content[start:end]
    directory = b"".join(entry.replace(b"0000.npy", f"{i:04}.npy".encode()) for i in range(n))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, len(directory), start, 0)
    return content[:start] + directory + tail


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Touch()], object), allow_pickle=True)
    return file.getvalue()


class Touch:
    """What leaves a trace where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


def idx(sizes: tuple[int, ...], body: bytes = b"") -> bytes:
    return struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes) + body


def png(columns: int, rows: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">2I5B", columns, rows, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def mat(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + struct.pack("<2H", 0x0100, 0x4D49) + b"".join(elements)


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    n = len(content) if size is None else size
    return struct.pack("<2I", kind, n) + content + bytes(-len(content) % 8 if kind < 14 else 0)


def matrix(kind: int, shape: tuple[int, ...], *rest: bytes) -> bytes:
    flags = element(6, struct.pack("<2I", kind, 0))
    return element(
        14, flags + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, b"x") + b"".join(rest)
    )


def nested_cells(depth: int) -> bytes:
    content = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(depth):
        content = matrix(1, (1, 1), content)
    return content


def tar(kind: bytes = tarfile.REGTYPE, size: int = _RECORD) -> bytes:
    member = tarfile.TarInfo(f"{_ARCHIVE_FOLDER}/{BATCH.name}")
    member.type, member.size, member.linkname = kind, size, "/etc/passwd"
    return gzip.compress(member.tobuf(tarfile.USTAR_FORMAT) + bytes(10240))


def pax_bomb() -> bytes:
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 2**33
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
