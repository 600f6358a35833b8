"""The table of `neurojax.decomposition`."""

from neurojax import decomposition

from ._entry import Entry, key, normal


def _principal(xs):
    fitted = decomposition.pca(xs, 2)
    return fitted.reconstruct(fitted.project(xs))


def _independent(xs, key):
    fitted = decomposition.fast_ica(xs, key, n_components=2, max_steps=20)
    return fitted.mix(fitted.unmix(xs))


def _rows():
    return {"xs": normal(12, 3)}


def _rows_and_key():
    return {"xs": normal(12, 3), "key": key()}


ENTRIES = [
    Entry("decomposition.pca", lambda xs: decomposition.pca(xs, 2), _rows, differentiable=("xs",)),
    Entry("decomposition.PCA", _principal, _rows, differentiable=("xs",)),
    Entry(
        "decomposition.fast_ica",
        lambda xs, key: decomposition.fast_ica(xs, key, n_components=2, max_steps=20),
        _rows_and_key,
        why="The loop ends where the values say.",
    ),
    Entry("decomposition.ICA", _independent, _rows_and_key, why="The loop ends where the values say."),
]
