"""Run folders, and saving and loading any model without pickle.

A model file (`save`) is a NumPy ``.npz``: its arrays, and beside them a JSON description of the tree they
belong to (class names, leaf paths, shapes, dtypes, plain settings). A file of plain arrays (`save_arrays`)
holds the arrays alone, named by their place in the model, for other programs to read and write. Loading fills
a model of the same structure; a file that does not fit is refused with the first mismatch.
"""

from ._arrays import load_arrays, save_arrays
from ._folders import RunFolder, create_run, open_run
from ._models import load, save
from ._settings import changed_settings, plain_settings
from ._trees import check_description, describe_tree, fill_tree, tree_arrays
from ._writing import check_writable, write_atomically

__all__ = [
    "RunFolder",
    "changed_settings",
    "check_description",
    "check_writable",
    "create_run",
    "describe_tree",
    "fill_tree",
    "load",
    "load_arrays",
    "open_run",
    "plain_settings",
    "save",
    "save_arrays",
    "tree_arrays",
    "write_atomically",
]
