"""Model files without pickle, and run folders."""

import dataclasses
import enum
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.runs import RunFolder, changed_settings, create_run, load, open_run, plain_settings, save


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
