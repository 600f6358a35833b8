"""The table of `neurojax.distributed`."""

from neurojax import distributed

from ._entry import Entry, normal, others


def _over_rows(rows):
    return distributed.over_rows(lambda part: 2 * part, None)(rows)


ENTRIES = [
    Entry(
        "distributed.over_rows",
        _over_rows,
        lambda: {"rows": normal(6, 3)},
        "without a mesh",
        differentiable=("rows",),
    ),
    *(
        Entry(
            f"distributed.{name}",
            getattr(distributed, name),
            lambda: {"tree": normal(6, 3)},
            "without a mesh",
            differentiable=("tree",),
        )
        for name in ("constrain_everywhere", "constrain_rows")
    ),
    *others(
        "distributed",
        "devices",
        "all_processes ambient_mesh any_process check_mesh check_same_settings gather is_main_process "
        "join_rows make_mesh n_shards place set_mesh shard_atoms shard_rows start_processes wait_for_all",
    ),
    *others("distributed", "constant", "DATA MODEL"),
]
