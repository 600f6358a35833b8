"""The table of `neurojax.metrics`."""

from neurojax import metrics

from ._entry import Entry, binary, classes, normal

ENTRIES = [
    Entry(
        "metrics.classification_error",
        metrics.classification_error,
        lambda: {"scores": normal(6, 3), "labels": classes(6, 3)},
        why="A share of errors has no derivative.",
    ),
    Entry(
        "metrics.dead_fraction",
        metrics.dead_fraction,
        lambda: {"codes": binary(6, 4)},
        why="A share has no derivative.",
    ),
    *(
        Entry(
            f"metrics.{name}",
            getattr(metrics, name),
            lambda: {"xs": normal(6, 4), "reconstructions": normal(6, 4, seed=1)},
            differentiable=("xs", "reconstructions"),
        )
        for name in ("explained_energy", "explained_variance")
    ),
    Entry(
        "metrics.n_active",
        metrics.n_active,
        lambda: {"codes": binary(6, 4)},
        why="A count has no derivative.",
    ),
]
