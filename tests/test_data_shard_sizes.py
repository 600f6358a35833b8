"""Shards whose directory promises more bytes than the file has."""

import struct

import numpy as np
import pytest

from neurojax.data import ShardedRows


def test_a_member_that_is_longer_than_its_file_is_refused(tmp_path):
    path = tmp_path / "long.npz"
    np.savez(path, np.arange(6.0).reshape(3, 2))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    struct.pack_into("<2I", content, entry + 20, 10**6, 10**6)  # the sizes, compressed and not
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"long\.npz: expected 1000000 bytes of arr_0\.npy, got fewer"):
        ShardedRows(tmp_path)
