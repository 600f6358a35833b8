"""Many devices and processes: the same numbers as on one, wherever arrays lie."""

import json
import os

import jax
import jax.numpy as jnp
import mesh_programs
import numpy as np
import pytest
from jax.sharding import AxisType
from mesh_programs import assert_same

from neurojax import distributed
from neurojax.chains import sample_chains
from neurojax.data import write_shards
from neurojax.distributed import make_mesh
from neurojax.training._spread import checksum

EIGHT = {"n_devices": 8}
TWO_PROCESSES = {"n_processes": 2, "n_devices": 2}
FOUR_PROCESSES = {"n_processes": 4, "n_devices": 2}
# Sums over a batch are added in another order: float32 rounding, and what Adam and the stopping of inference
# at a gap of 1e-5 make of it within these few steps.
TOLERANCE = {"encode": 1e-6, "chains": 0, "pcd": 2e-6, "vae": 2e-5, "learn": 1e-3}


# Not by Adam, which makes a step of a rounding where a gradient is near zero; codes to a tight gap.
PLAIN_LEARNING = {"by_adam": False, "tol": 1e-6}


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """What each program ends with on one device, without a mesh; run when first asked for."""
    folder, results = tmp_path_factory.mktemp("one"), {}

    def result(program, **settings):
        name = program + json.dumps(settings)
        if name not in results:
            path = folder / f"{len(results)}.npz"
            results[name] = mesh_programs.run(program, path, without_mesh=True, **settings)
        return results[name]

    return result


def assert_everything_same(came, expected):
    for program, tolerance in TOLERANCE.items():
        own = {name for name in expected if name.startswith(f"{program}: ")}
        assert own
        assert_same({n: came[n] for n in own}, {n: expected[n] for n in own}, tolerance)
    assert came.keys() == expected.keys()


@pytest.mark.slow
def test_eight_devices_do_what_one_does(one_device, tmp_path):
    came = mesh_programs.run("several", tmp_path / "eight.npz", **EIGHT)
    assert_everything_same(came, one_device("several"))


def test_four_devices_do_what_one_does(tmp_path):
    """Rows that are no whole number a device, chains that are; both ways in one process."""
    programs = ("encode", "pcd", "chains")
    settings = {"programs": programs, "encode": {"solver": "FISTA"}}
    came = mesh_programs.run("beside", tmp_path / "both.npz", n_devices=4, **settings)
    for program in programs:
        mesh, one = (
            {name.removeprefix(way): array for name, array in came.items() if name.startswith(way + program)}
            for way in ("mesh ", "one ")
        )
        assert one
        if program == "encode":  # codes of a gap of 1e-5: where a JAX fuses otherwise, other numbers of steps
            for arrays in (mesh, one):
                arrays.pop("encode: n_steps"), arrays.pop("encode: residual")
        assert_same(mesh, one, 5e-3 if program == "encode" else TOLERANCE[program])
    message = "chains: expected a leading axis that divides over 4 devices along 'data', got shape (5, 2)"
    assert message in str(came["message"])


@pytest.mark.slow
@pytest.mark.parametrize("topology", [{"n_devices": 4}, {"n_processes": 2}], ids=["devices", "processes"])
def test_a_dictionary_from_outside_is_at_home_on_a_mesh(topology, one_device, tmp_path):
    came = mesh_programs.run("outside", tmp_path / "mesh.npz", **topology)
    assert_same(came, one_device("outside"), 2e-3)


def test_two_processes_do_what_one_does_and_say_where_they_differ(tmp_path):
    came = mesh_programs.run("agree", tmp_path / "two.npz", **TWO_PROCESSES)
    messages = {name: str(came.pop(f"message {name}")) for name in ("number", "nothing", "array")}
    assert_same(came, mesh_programs.centres(None), 1e-5)
    assert all("fit: expected the same in all processes, but" in message for message in messages.values())
    assert "n_steps is 12 in process 0 and 7 in process 1" in messages["number"]
    assert "every is 5 in process 0 and None in process 1" in messages["nothing"]
    assert "data" in messages["array"]


@pytest.mark.slow
def test_atoms_in_pieces_survive_a_damaged_piece_and_refuse_another_model(tmp_path):
    folder = tmp_path / "run"
    came = mesh_programs.run("pieces", tmp_path / "a.npz", n_devices=2, n_model=2, folder=str(folder))
    assert (folder / "corrupt_checkpoint_10").exists()
    message = str(came.pop("message"))
    assert "model: the array differs, float32[48, 16] before and float32[32, 16] now" in message
    one = {name.removeprefix("one "): came.pop(name) for name in list(came) if name.startswith("one ")}
    assert_same(came, one, 1e-5)


@pytest.mark.slow
def test_two_processes_do_what_one_device_does(one_device, tmp_path):
    came = mesh_programs.run("several", tmp_path / "many.npz", **TWO_PROCESSES)
    assert_everything_same(came, one_device("several"))


@pytest.mark.parametrize(
    ("program", "settings", "tolerance", "topology"),
    [
        pytest.param("encode", {"solver": "FISTA"}, 5e-3, {"n_devices": 4}, marks=pytest.mark.slow),
        # Codes of a gap of 1e-5: other roundings, other steps.
        pytest.param("encode", {"n_features": 64}, 5e-3, {"n_devices": 4}, marks=pytest.mark.slow),
        pytest.param("encode", {"n_features": 64}, 5e-3, {"n_processes": 2}, marks=pytest.mark.slow),
        pytest.param("learn", PLAIN_LEARNING, 1e-3, {"n_devices": 4}, marks=pytest.mark.slow),
    ],
)
def test_atoms_may_lie_over_the_model_axis(program, settings, tolerance, topology, one_device, tmp_path):
    came = mesh_programs.run(
        program, tmp_path / "atoms.npz", n_model=2, over_atoms=True, **topology, **settings
    )
    expected = dict(one_device(program, **settings))
    for name in ("n_steps", "residual"):
        came.pop(name, None), expected.pop(name, None)
    assert_same(came, expected, tolerance)


@pytest.mark.slow
def test_restored_from_four_processes_onto_two_and_onto_one(one_device, tmp_path):
    """Atoms in pieces when they were saved, in other pieces and whole when they are read."""
    expected = one_device("centres", n_steps=20)
    spread = {"n_model": 2, "over_atoms": True, "folder": str(tmp_path / "run")}
    mesh_programs.run("centres", tmp_path / "a.npz", n_steps=10, **FOUR_PROCESSES, **spread)
    mesh_programs.run("centres", tmp_path / "b.npz", n_steps=15, **TWO_PROCESSES, **spread)
    came = mesh_programs.run(
        "centres", tmp_path / "c.npz", n_steps=20, without_mesh=True, folder=str(tmp_path / "run")
    )
    assert_same(came, expected, 1e-5)
    assert len(came["history metrics/loss"]) == 20


@pytest.mark.slow
def test_atoms_in_pieces_are_saved_and_read_on_other_devices(one_device, tmp_path):
    folder = {"folder": str(tmp_path / "run")}
    mesh_programs.run(
        "centres", tmp_path / "a.npz", n_steps=6, n_model=2, over_atoms=True, n_devices=4, **folder
    )
    came = mesh_programs.run("centres", tmp_path / "b.npz", without_mesh=True, **folder)
    assert_same(came, one_device("centres"), 1e-5)


@pytest.mark.slow
def test_each_process_reads_its_own_part_of_the_shards(tmp_path):
    """The same sets of rows in two processes as in one, and on from two to one in the middle of an epoch."""
    write_shards(tmp_path / "shards", mesh_programs._data(), 10)
    settings = {"shards": str(tmp_path / "shards"), "n_steps": 14}
    expected = mesh_programs.run("centres", tmp_path / "a.npz", **settings)
    assert_same(mesh_programs.run("centres", tmp_path / "b.npz", n_processes=2, **settings), expected, 1e-5)
    folder = {"folder": str(tmp_path / "run")}
    mesh_programs.run("centres", tmp_path / "c.npz", n_processes=2, **settings | folder | {"n_steps": 9})
    assert_same(mesh_programs.run("centres", tmp_path / "d.npz", **settings, **folder), expected, 1e-5)


@pytest.mark.slow
def test_each_process_encodes_rows_of_its_own(one_device, tmp_path):
    came = mesh_programs.run("stream", tmp_path / "first.npz", **TWO_PROCESSES)
    expected = one_device("stream")
    np.testing.assert_allclose(came["value"], expected["value"][::2], atol=1e-6)
    np.testing.assert_array_equal(came["status"], expected["status"][::2])


def test_checksums_see_one_bit_wherever_it_is():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16, np.int8, bool, np.uint32):
        array = rng.integers(0, 2, (7, 5)).astype(dtype)
        expected = checksum(array)
        assert expected == checksum(jnp.asarray(array))
        for place in ((0, 0), (3, 2), (6, 4)):
            changed = array.copy()
            changed[place] = not changed[place]
            assert checksum(changed) != expected
        assert checksum(array[::-1]) != expected


def meshes():
    device = np.array(jax.devices()[:1])
    yield "mesh: expected a jax.sharding.Mesh, got int", 3
    yield r"mesh: expected the axes 'data' and, .* got \('rows',\)", jax.sharding.Mesh(device, ("rows",))
    explicit = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    yield "mesh: expected axes of type Auto", explicit


@pytest.mark.parametrize(("message", "mesh"), list(meshes()))
def test_a_wrong_mesh_is_named(message, mesh, untyped):
    from training_runs import KEY, ROWS, SGD, Distance

    from neurojax.penalties import L1
    from neurojax.sparse_coding import Dictionary, encode_batch, encode_stream
    from neurojax.training import fit

    dictionary, xs = Dictionary(jnp.eye(2)), np.ones((3, 2), np.float32)
    calls = [
        lambda: encode_batch(dictionary, xs, L1(0.5), mesh=mesh),
        lambda: encode_stream(dictionary, xs, L1(0.5), mesh=mesh),
        lambda: sample_chains(lambda x, key: x, xs, KEY, n_samples=1, mesh=mesh),
        lambda: fit(
            jnp.zeros(2), Distance(jnp.array(1.0)), ROWS, optimizer=SGD, n_steps=1, key=KEY, mesh=mesh
        ),
        lambda: distributed.shard_rows(xs, mesh),
        lambda: distributed.shard_atoms(dictionary, mesh),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_what_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"n_model: expected a divisor of the 1 devices, got 3"):
        make_mesh(n_model=3)
    with pytest.raises(ValueError, match=r"n_model: .* ≥ 1, got 0"):
        make_mesh(n_model=0)


def test_one_device_meshes_change_no_number(one_device):
    """In this process: an ambient mesh, and one that is given."""
    from neurojax.penalties import L1
    from neurojax.sparse_coding import FISTA, encode_batch, random_dictionary

    dictionary = random_dictionary(jax.random.key(0), 8, 4)
    xs = jax.random.normal(jax.random.key(1), (9, 4))
    plain = encode_batch(dictionary, xs, L1(0.1), solver=FISTA()).value
    mesh = make_mesh()
    given = encode_batch(dictionary, xs, L1(0.1), solver=FISTA(), mesh=mesh)
    with jax.set_mesh(mesh):
        ambient = encode_batch(dictionary, xs, L1(0.1), solver=FISTA())
    np.testing.assert_array_equal(plain, given.value)
    np.testing.assert_array_equal(plain, ambient.value)


@pytest.mark.slow
def test_gradients_pass_through_codes_on_a_mesh():
    from neurojax.convergence import Implicit
    from neurojax.penalties import L1
    from neurojax.sparse_coding import Dictionary, encode_batch, random_dictionary

    atoms = random_dictionary(jax.random.key(0), 8, 4).atoms
    xs = jax.random.normal(jax.random.key(1), (9, 4))

    def loss(atoms, mesh):
        return jnp.sum(
            encode_batch(Dictionary(atoms), xs, L1(0.1), gradient=Implicit(), mesh=mesh).value ** 2
        )

    np.testing.assert_allclose(
        jax.grad(loss)(atoms, make_mesh()), jax.grad(loss)(atoms, None), rtol=1e-5, atol=1e-6
    )


def test_settings_that_are_not_numbers_are_the_same_as_themselves():
    distributed.check_same_settings("it", {"nan": float("nan"), "list": [float("nan"), None]})


def test_a_start_without_its_environment_is_named(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match=r"JAX_NUM_PROCESSES: expected a whole number, got 'two'"):
        distributed.start_processes()
    assert os.environ["JAX_NUM_PROCESSES"] == "two"
