"""Encoding any number of rows from the host, with one batch on the device and the next on its way."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._checks import check_at_least, is_concrete
from .._paths import user_path
from .._terminal import is_shown
from ..convergence import Detached, Solution
from ..distributed import check_mesh, gather
from ..penalties import AbstractPenalty
from ._batch import encode_batch
from ._dictionary import AbstractDictionary
from ._stream_codes import CodesInFile, CodesInMemory
from ._stream_identity import stream_identity
from ._stream_rows import RowSource, open_rows

__all__ = ["encode_stream"]


def encode_stream(
    dictionary: AbstractDictionary,
    rows: Iterable,
    penalty: AbstractPenalty,
    *,
    weights: Iterable | None = None,
    output: str | Path | None = None,
    batch_size: int = 4096,
    sparse: bool = False,
    progress: bool = False,
    mesh: Mesh | None = None,
    **settings,
) -> Solution:
    """Encode any number of rows from the host, batch by batch: a host program, without ``jit`` or derivative.

    While a batch is computed the next is read and the codes of the last are kept: so two batches and their
    codes are in memory, beside the result. All batches are of one size (the last is filled up with zeros), so
    that there is one compilation. Rows end as in `encode_batch`, each with its own status.

    With ``output``, a record of the progress lies beside the file, ``<output>.progress.npz``, until all is
    done. A run that was cut off, even killed, goes on where it was when it is called again, and ends with the
    same codes bit for bit (same backend). A file without such a record is replaced.

    On Ctrl-C the batch on the device is finished. Then, without ``output``, the codes so far are returned
    with a warning (rows that were read but make no whole batch are lost); with it, they are in the file and
    the interrupt is raised again, with a note that says how many.

    Args:
        dictionary: the dictionary.
        rows: an array with one datum per row (memory-mapped, or `neurojax.data.ShardedRows`), or an iterable
            of data, such as a generator, which is read only as far as is needed.
        penalty: the penalty.
        weights: w ≥ 0 of the data's entries, as for `encode`: a matrix beside a matrix, an iterable beside an
            iterable; ``None``: 1.
        output: an ``.npy`` file for the codes, written as they come; ``value`` is then the file's memory
            map. It needs a length known beforehand, of a matrix or by ``len(rows)``.
        batch_size: rows on the device at once, ≥ 1. On a CPU the time a row was the same for 1024 to 16384;
            a GPU has more slots to fill (see ``n_slots`` of `encode_batch`).
        sparse: return the codes as a ``scipy.sparse.csr_array``, whose memory grows with the active units.
        progress: show a progress bar.
        mesh: the devices that share each batch; in several processes, each has rows of its own (and an
            ``output`` of its own), which its own devices of the mesh encode.
        **settings: the keyword arguments of `encode_batch`, except ``init``, ``max_active`` and ``gradient``.

    Returns:
        A solution of NumPy arrays with a leading axis of rows.

    Raises:
        ValueError: as `encode_batch`; for no rows; for a row that is not of the first one's shape and dtype
            (says which); for ``output`` together with ``sparse`` or rows of unknown length, for rows whose
            number is not ``len(rows)``, and for a file begun with other arguments (says which).
        OSError: if ``output`` cannot be written.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, encode_stream
        >>> rows = ([float(n), 0.25] for n in range(5))
        >>> encode_stream(Dictionary(jnp.eye(2)), rows, L1(0.5), batch_size=2).value[:, 0].tolist()
        [0.0, 0.5, 1.5, 2.5, 3.5]
    """
    arrays = [rows, weights, *jax.tree.leaves((dictionary, penalty))]
    _check_arguments(arrays, batch_size, output, sparse, settings)
    source = open_rows(dictionary, rows, weights)
    if sparse and source.first_code.ndim != 1:
        raise ValueError(f"sparse: expected codes of one axis, got shape {source.first_code.shape}.")
    if output is not None and source.n_rows is None:
        kind = type(rows).__name__
        raise ValueError(f"output: expected rows to be a matrix, or to have a length, got {kind} without.")
    size = batch_size if source.n_rows is None else min(batch_size, source.n_rows)
    if mesh is not None:
        check_mesh(mesh)
    if mesh is not None and jax.process_count() > 1:
        # What lies over all processes cannot be sent from here: each has a copy, for its own devices.
        dictionary, penalty, settings = gather((dictionary, penalty, settings))
        mesh = mesh.local_mesh

    def encode(batch, weights=None):
        return encode_batch(
            dictionary, batch, penalty, weights=weights, mesh=mesh, gradient=Detached(), **settings
        )

    if output is None or source.n_rows is None:
        return _encode(encode, source, size, progress, CodesInMemory(sparse))
    # Bad arguments are told before a file is touched.
    one_batch = [jax.ShapeDtypeStruct((size, *row.shape), jnp.result_type(row)) for row in source.first]
    form = jax.tree.map(
        lambda field: jax.ShapeDtypeStruct((source.n_rows, *field.shape[1:]), field.dtype),
        jax.eval_shape(encode, *one_batch),
    )
    identity = {
        "batch_size": size,
        **source.identity(),
        **stream_identity(dictionary, penalty, settings, one_batch),
    }
    return _encode(encode, source, size, progress, CodesInFile(user_path(output), form, identity))


def _check_arguments(arrays, batch_size, output, sparse: bool, settings: dict) -> None:
    if not all(map(is_concrete, arrays)):
        raise ValueError(
            "encode_stream: a host program is not for jit and has no derivative; use encode_batch."
        )
    check_at_least("batch_size", batch_size, 1)
    if sparse and output is not None:
        raise ValueError(f"sparse: expected False together with output, a dense file, got {sparse}.")
    reasons = {"init": "rows start from zero", "max_active": "see sparse=True", "gradient": "it has none"}
    for name in settings.keys() & reasons:
        raise ValueError(f"{name}: expected no such argument of encode_stream ({reasons[name]}), got one.")


def _encode(
    encode, source: RowSource, size: int, progress: bool, kept: CodesInMemory | CodesInFile
) -> Solution:
    from tqdm import tqdm

    start = kept.n_done
    with tqdm(
        total=source.n_rows, initial=start, unit="row", disable=not (progress and is_shown(True))
    ) as bar:

        def keep(begin: int, n_new: int, solution: Solution) -> None:
            kept.keep(begin, jax.tree.map(lambda field: np.asarray(field)[:n_new], solution))
            bar.update(kept.n_done - bar.n)

        try:
            interrupt = _run(encode, source.batches(size, start), size, start, keep)
        finally:
            kept.close()
    return kept.result() if interrupt is None else kept.interrupted(interrupt, source.n_rows)


def _run(
    encode: Callable, batches: Iterator[tuple[np.ndarray, ...]], size: int, start: int, keep: Callable
) -> KeyboardInterrupt | None:
    """Encode batch after batch: the next is handed to the device before the last is waited for.

    An interrupt may fall anywhere; so ``keep`` may be called twice with the same batch.
    """
    pending, interrupt = None, None
    try:
        for batch in batches:
            n_new = len(batch[0])
            if start and n_new < size:
                batch = [np.pad(p, [(0, size - n_new)] + [(0, 0)] * (p.ndim - 1)) for p in batch]
            coming = start, n_new, encode(*batch)
            if pending is not None:
                keep(*pending)
            pending, start = coming, start + n_new
    except KeyboardInterrupt as raised:
        interrupt = raised
    if pending is not None:
        keep(*pending)
    return interrupt
