"""Model files without pickle, and run folders."""

import dataclasses
import enum
import json
import math
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.runs import (
    RunFolder,
    changed_settings,
    create_run,
    load,
    load_arrays,
    open_run,
    plain_settings,
    save,
    save_arrays,
)


class Layer(eqx.Module):
    weights: jax.Array
    bias: jax.Array
    activation: object = jnp.tanh
    scale: float = 2.0
    order: int = eqx.field(static=True, default=3)


class Other(eqx.Module):
    weights: jax.Array
    bias: jax.Array
    activation: object = jnp.tanh
    scale: float = 2.0
    order: int = eqx.field(static=True, default=3)


class Kind(enum.Enum):
    odd = 1


def layer(**changes):
    return Layer(**({"weights": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)} | changes))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "bool", "complex64"])
def test_models_come_back_exactly(tmp_path, dtype):
    model = {
        "layers": [layer(), layer(bias=jnp.zeros(0))],
        "typed": jnp.asarray([0, 1, 2], dtype),
        "scalar": jnp.asarray(1, dtype),
        "numpy": np.arange(3.0),
        "key": jax.random.key(7),
        "name": "name",
        "none": None,
        "nan": math.nan,
    }
    save(tmp_path / "model.npz", model)
    empty = jax.tree.map(lambda leaf: leaf * 0 if isinstance(leaf, np.ndarray) else leaf, model)
    loaded = load(tmp_path / "model.npz", empty)
    assert math.isnan(loaded.pop("nan")) and math.isnan(model.pop("nan"))
    assert eqx.tree_equal(model, loaded, typematch=True)
    assert isinstance(loaded["numpy"], np.ndarray) and loaded["key"].dtype == model["key"].dtype
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


def test_a_model_may_be_described_by_shapes_alone(tmp_path):
    save(tmp_path / "model.npz", layer())
    like = eqx.filter_eval_shape(layer)
    assert eqx.tree_equal(load(tmp_path / "model.npz", like), layer(), typematch=True)


def test_doubles_come_back(tmp_path, x64):
    model = {"w": jnp.array([1 / 3], jnp.float64)}
    save(tmp_path / "model.npz", model)
    assert eqx.tree_equal(load(tmp_path / "model.npz", {"w": jnp.zeros(1, jnp.float64)}), model)


def test_no_pickle_is_in_the_file(tmp_path):
    save(tmp_path / "model.npz", layer())
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(str(file["description"]))["tree"][".scale"] == {"value": 2.0}


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (layer(weights=jnp.zeros((2, 4))), r"leaf .weights: expected float32\[2, 4\], got float32\[2, 3\]"),
        (layer(bias=jnp.zeros(3, int)), r"leaf .bias: expected int32\[3\], got float32\[3\]"),
        (layer(activation=jnp.sin), r"leaf .activation: expected 'sin', got 'tanh'"),
        (layer(scale=3.0), r"leaf .scale: expected 3.0, got 2.0"),
        (layer(order=4), r"leaf .order: expected 4, got 3"),
        (layer(order={"a": 1}), r"leaf .order: expected {'a': 1}, got 3"),
        (layer(order=3j), r"leaf .order: expected '3j', got 3"),
        (layer(order=Kind.odd), r"leaf .order: expected 'Kind.odd', got 3"),
        (Other(jnp.zeros((2, 3)), jnp.zeros(3)), r"leaf . \(class\): expected 'Other', got 'Layer'"),
        ({"weights": jnp.zeros(2)}, r"leaf \['weights'\]: expected float32\[2\], got nothing"),
    ],
)
def test_a_wrong_file_is_refused_with_the_first_mismatch(tmp_path, like, message):
    save(tmp_path / "model.npz", layer())
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "model.npz", like)


def test_files_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    for write in (
        lambda: path.write_bytes(b"not an archive"),
        lambda: path.write_bytes(b""),
        lambda: np.savez(path, weights=np.ones(3)),
        lambda: np.savez(path, description=np.array('["a list"]')),
        lambda: (save(path, layer()), path.write_bytes(path.read_bytes()[:-40])),
    ):
        write()
        with pytest.raises(ValueError, match=rf"path: expected a file written by save, got {path}"):
            load(path, layer())
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.npz", layer())


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path, model = tmp_path / "model.npz", {"w": jnp.arange(3.0)}
    save(path, model)
    whole = path.read_bytes()
    n_refused = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            assert eqx.tree_equal(load(path, model), model, typematch=True)
        except ValueError:
            n_refused += 1
    assert n_refused > len(whole) / 2


def test_arrays_of_objects_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"model\['x'\]: expected an array of numbers or texts, got dtype obj"
    ):
        save(tmp_path / "model.npz", {"x": np.array([None, {}])})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    save(path, layer())
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save(path, layer(bias=jnp.zeros(3)))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.npz"]


# Parameters as plain arrays


def network():
    return {
        "encoder": [layer(), layer(bias=jnp.zeros(0, int))],
        "file": np.arange(3.0),
        "key": jax.random.key(7),
        "scale": 2.0,
        "none": None,
    }


ENTRIES = {
    "encoder.0.weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder.0.bias": np.ones(3, np.float32),
    "encoder.1.weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder.1.bias": np.zeros(0, np.int32),
    "file": np.arange(3.0),
    "key": np.array([0, 7], np.uint32),
}


def test_arrays_are_read_by_numpy_under_their_dotted_names(tmp_path):
    path = tmp_path / "arrays.npz"
    save_arrays(path, network())
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    assert eqx.tree_equal(stored, ENTRIES, typematch=True)
    assert [path.name for path in tmp_path.iterdir()] == ["arrays.npz"]


def test_arrays_that_numpy_wrote_fill_a_model_and_the_rest_is_its_own(tmp_path):
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in reversed(ENTRIES.items()):
            with archive.open(f"{name}.npy", "w") as entry:
                np.save(entry, array)
    empty = jax.tree.map(lambda leaf: leaf * 0 if isinstance(leaf, np.ndarray) else leaf, network())
    empty["key"], empty["scale"] = jax.random.key(0), 3.0
    loaded = load_arrays(path, empty)
    assert eqx.tree_equal(loaded, {**network(), "scale": 3.0}, typematch=True)
    shapes = eqx.filter_eval_shape(lambda: {**network(), "file": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"leaf file: expected float32\[3\], got float64\[3\]"):
        load_arrays(path, shapes)


def test_arrays_of_doubles_come_back_and_are_never_cast(tmp_path, x64):
    path, model = tmp_path / "arrays.npz", {"w": jnp.array([1 / 3], jnp.float64)}
    save_arrays(path, model)
    assert eqx.tree_equal(load_arrays(path, eqx.filter_eval_shape(lambda: model)), model, typematch=True)
    save_arrays(path, {"w": jnp.ones(1, jnp.float32)})
    with pytest.raises(ValueError, match=r"leaf w: expected float64\[1\], got float32\[1\]"):
        load_arrays(path, model)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.zeros(2), "c": jnp.zeros(1)}, r"leaf c: expected float32\[1\], got nothing\."),
        ({"a": jnp.zeros(2)}, r"leaf b.0: expected nothing, got float32\[3\]\."),
        (
            {"a": jnp.zeros((2, 1)), "b": [jnp.zeros(3)]},
            r"leaf a: expected float32\[2, 1\], got float32\[2\]\.",
        ),
        ({"a": jnp.zeros(2), "b": [jnp.zeros(3, int)]}, r"leaf b.0: expected int32\[3\], got float32\[3\]\."),
        (
            {"a": jnp.zeros(2), "b": [jax.random.key(0)]},
            r"leaf b.0: expected uint32\[2\], got float32\[3\]\.",
        ),
    ],
)
def test_wrong_arrays_are_refused_with_the_first_mismatch(tmp_path, like, message):
    path = tmp_path / "arrays.npz"
    save_arrays(path, {"a": jnp.zeros(2), "b": [jnp.zeros(3)]})
    with pytest.raises(ValueError, match=rf"^{path}: first mismatch at {message}"):
        load_arrays(path, like)


def test_files_that_hold_no_plain_arrays_are_refused(tmp_path):
    path = tmp_path / "arrays.npz"
    for write in (
        lambda: path.write_bytes(b"not an archive"),
        lambda: np.save(path.open("wb"), np.ones(2)),
        lambda: np.savez(path, w=np.array([None])),
        lambda: (save_arrays(path, network()), path.write_bytes(path.read_bytes()[:-40])),
    ):
        write()
        with pytest.raises(ValueError, match=rf"path: expected an \.npz file of plain arrays, got {path}"):
            load_arrays(path, network())
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "absent.npz", network())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (jnp.ones(3), r"model: expected a model, whose arrays have names, got a lone array\."),
        ({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, r"one array for each name, got two called a\.b\."),
        ({"w": jnp.ones(1, jnp.bfloat16)}, r"model, w: expected .* NumPy's own dtypes, got dtype bfloat16\."),
        ({"w": np.array([None])}, r"model, w: expected .*, got dtype object\."),
    ],
)
def test_what_is_no_plain_array_is_not_saved(tmp_path, model, message):
    (tmp_path / "arrays.npz").write_bytes(b"before")
    with pytest.raises(ValueError, match=message):
        save_arrays(tmp_path / "arrays.npz", model)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_failed_save_of_arrays_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "arrays.npz"
    save_arrays(path, layer())
    before = path.read_bytes()

    def fail(file, array, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        save_arrays(path, layer(bias=jnp.zeros(3)))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["arrays.npz"]


# Run folders


@dataclasses.dataclass
class Solver:
    tol: float = 1e-5


@dataclasses.dataclass
class Config:
    data: Path = Path("images")
    solver: Solver = dataclasses.field(default_factory=Solver)
    sizes: tuple[int, ...] = (100, 64)
    strength: object = dataclasses.field(default_factory=lambda: jnp.array([0.5, 1.0]))
    activation: object = jnp.tanh


PLAIN = {
    "data": "images",
    "solver": {"tol": 1e-5},
    "sizes": [100, 64],
    "strength": [0.5, 1.0],
    "activation": "tanh",
}


def test_a_run_folder_is_fresh_and_has_its_settings(tmp_path):
    first = create_run(tmp_path / "runs", "patches", Config())
    second = create_run(tmp_path / "runs", "patches", {"seed": np.int64(3)})
    assert [first.path.name, second.path.name] == ["patches", "patches-2"]
    assert create_run(tmp_path / "runs", "patches", {}).path.name == "patches-3"
    assert first.read_config() == PLAIN and open_run(second.path).read_config() == {"seed": 3}
    assert first.checkpoint_path == first.path / "checkpoint"
    assert first.metrics_path == first.path / "metrics.jsonl"
    assert first.picture_path("loss") == first.path / "loss.png"


def test_metrics_are_read_back(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    assert RunFolder(tmp_path).read_metrics() == rows
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert RunFolder(tmp_path).read_metrics() == rows


def test_changed_settings_are_listed_by_name():
    new = PLAIN | {"solver": {"tol": 1e-4}, "sizes": [100], "seed": 0}
    del new["data"]
    assert changed_settings(PLAIN, new) == {
        "data": ("images", "nothing"),
        "solver.tol": (1e-5, 1e-4),
        "sizes": ([100, 64], [100]),
        "seed": ("nothing", 0),
    }
    assert changed_settings(PLAIN, plain_settings(Config())) == {}


def test_bad_folders_and_settings_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=rf"root: expected a writable folder, got {tmp_path / 'file'}"):
        create_run(tmp_path / "file", "run", {})
    with pytest.raises(ValueError, match=r"name: expected a plain folder name, got 'a/b'"):
        create_run(tmp_path, "a/b", {})
    with pytest.raises(ValueError, match=r"name: expected a plain folder name, got '\.\.'"):
        create_run(tmp_path, "..", {})
    with pytest.raises(ValueError, match=r"config: expected a dataclass instance or a mapping, got int"):
        create_run(tmp_path, "run", 3)
    with pytest.raises(FileNotFoundError, match=r"path: expected a run folder \(with config.json\)"):
        open_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: expected JSON"):
        open_run(tmp_path).read_config()


def test_a_model_file_of_another_format_is_refused_by_its_name(tmp_path):
    save(tmp_path / "model.npz", {"w": jnp.zeros(3)})
    with np.load(tmp_path / "model.npz") as file:
        entries = {name: file[name] for name in file.files}
    assert '"format": "neurojax model 1"' in str(entries["description"])
    entries["description"] = np.array(str(entries["description"]).replace("model 1", "model 2"))
    np.savez(tmp_path / "later.npz", **entries)
    with pytest.raises(ValueError, match=r"format 'neurojax model 1', got 'neurojax model 2'; load it with"):
        load(tmp_path / "later.npz", {"w": jnp.zeros(3)})
