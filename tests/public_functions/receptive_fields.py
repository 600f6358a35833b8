"""The table of `neurojax.receptive_fields`."""

import jax
import jax.numpy as jnp

from neurojax import receptive_fields

from ._entry import Entry, normal, others, positive

FIELDS = ("row", "column", "orientation", "frequency", "width_across", "width_along", "phase", "amplitude")


def _parameters(*shape):
    return lambda: {name: positive(*shape, seed=i) for i, name in enumerate(FIELDS)}


def _gabor(**parameters):
    return receptive_fields.gabor(receptive_fields.Gabor(**parameters), (5, 5))


def _gabor_batch(**parameters):
    return receptive_fields.gabor_batch(receptive_fields.Gabor(**parameters), (5, 5))


def _of_parameters(name):
    function = getattr(receptive_fields, name)
    return lambda **parameters: function(receptive_fields.Gabor(**parameters))


def _fits():
    gabor = receptive_fields.Gabor(**jax.tree.map(jnp.asarray, _parameters(4)()))
    count = jnp.ones(4, jnp.int32)
    return {"fits": receptive_fields.GaborFit(gabor, jnp.asarray(positive(4)), count, count)}


ENTRIES = [
    Entry("receptive_fields.gabor", _gabor, _parameters(), differentiable=FIELDS),
    Entry("receptive_fields.gabor_batch", _gabor_batch, _parameters(3), differentiable=FIELDS),
    *(
        Entry(f"receptive_fields.{name}", _of_parameters(name), _parameters(3), differentiable=fields)
        for name, fields in (
            ("aspect_ratio", ("width_across", "width_along")),
            ("envelope_cycles", ("frequency", "width_across", "width_along")),
            ("frequency_bandwidth", ("frequency", "width_across")),
            ("orientation_bandwidth", ("frequency", "width_along")),
        )
    ),
    Entry(
        "receptive_fields.fit_gabor",
        lambda atom: receptive_fields.fit_gabor(atom, n_starts=2, max_steps=5),
        lambda: {"atom": normal(5, 5)},
        why="The fit is a constant.",
    ),
    Entry(
        "receptive_fields.fit_gabor_batch",
        lambda atoms: receptive_fields.fit_gabor_batch(atoms, (5, 5), n_starts=2, max_steps=5),
        lambda: {"atoms": normal(3, 25)},
        why="The fit is a constant.",
    ),
    *(
        Entry(
            f"receptive_fields.{name}",
            getattr(receptive_fields, name),
            _fits,
            kind="eager",
            why="It returns Python numbers for a table.",
        )
        for name in ("gabor_share", "gabor_summary", "is_gabor_like")
    ),
    *others("receptive_fields", "record", "Gabor GaborFit"),
]
