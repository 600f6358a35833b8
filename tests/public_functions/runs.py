"""The table of `neurojax.runs`."""

from ._entry import others

ENTRIES = [
    *others(
        "runs",
        "files",
        "RunFolder check_writable create_run load load_arrays open_run save save_arrays write_atomically",
    ),
    *others(
        "runs", "host program", "changed_settings check_description describe_tree fill_tree plain_settings"
    ),
    *others("runs", "host program", "tree_arrays", "It copies arrays to the host."),
]
