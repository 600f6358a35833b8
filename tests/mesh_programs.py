"""Small programs for any number of devices and processes: ``mesh_programs.py PROGRAM FILE SETTINGS``.

Settings are JSON. Each program writes what it ends with as an ``.npz`` file (the first process does). ``run``
starts one, in as many processes as asked; the programs themselves know nothing of their number but the mesh.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

N_FEATURES, N_ATOMS = 16, 48


def environments(n_processes, n_devices):
    """Return what each of the processes is to know: its devices, and if there are several, the others."""
    kept = ("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE")
    shared = {k: v for k, v in os.environ.items() if k.startswith(kept) or not k.startswith("JAX_")}
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    flags = f"{os.environ.get('XLA_FLAGS') or quick} --xla_force_host_platform_device_count={n_devices}"
    shared |= {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if n_processes == 1:
        return [shared]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shared |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(n_processes)}
    return [shared | {"JAX_PROCESS_ID": str(i)} for i in range(n_processes)]


def run(program, path, *, n_processes=1, n_devices=1, timeout=240, wait=True, **settings):
    """Run a program on ``n_processes · n_devices`` host devices; return its arrays, or the processes."""
    command = [sys.executable, __file__, program, str(path), json.dumps(settings)]
    processes = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for environment in environments(n_processes, n_devices)
    ]
    if not wait:
        return processes
    ends = [process.communicate(timeout=timeout)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert not any(codes), f"exit codes {codes}: {ends[int(np.argmax(np.abs(codes)))][-3000:]}"
    return dict(np.load(path))


def assert_same(came, expected, tolerance):
    assert came.keys() == expected.keys()
    for name, values in expected.items():
        if "n_active" in name:  # means over 16 rows, of whole numbers: one or two units at the threshold
            np.testing.assert_allclose(came[name], values, atol=2 / 16, err_msg=name)
        elif "inference_steps" not in name:  # a step more or less is no difference in the codes
            np.testing.assert_allclose(came[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def _data(n=96):
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(N_ATOMS, N_FEATURES))
    codes = rng.laplace(size=(n, N_ATOMS)) * (rng.random((n, N_ATOMS)) < 0.1)
    return (codes @ atoms / 4).astype(np.float32)


def _numbers(result):
    from neurojax.distributed import gather
    from neurojax.runs import tree_arrays

    tree = gather((result.model, result.opt_state, result.state))
    arrays = {f"leaf {i}": array for i, array in enumerate(tree_arrays(tree).values())}
    return arrays | {f"history {k}": v for k, v in result.history.to_arrays().items()}


def encode(mesh, *, over_atoms=False, n=90, solver=None, n_features=N_FEATURES):
    """Encode rows, of which there need be no whole number a device."""
    import jax.numpy as jnp

    from neurojax import distributed, penalties, sparse_coding

    rng = np.random.default_rng(1)
    atoms = rng.normal(size=(N_ATOMS * n_features // N_FEATURES, n_features)).astype(np.float32)
    atoms *= np.exp(-0.1 * np.arange(n_features))
    dictionary = sparse_coding.normalize_atoms(sparse_coding.Dictionary(jnp.asarray(atoms)))
    if over_atoms:
        dictionary = distributed.shard_atoms(dictionary, mesh)
    xs = (0.3 * rng.normal(size=(n, n_features))).astype(np.float32)
    settings = {} if solver is None else {"solver": getattr(sparse_coding, solver)()}
    solution = sparse_coding.encode_batch(dictionary, xs, penalties.L1(0.05), tol=1e-5, mesh=mesh, **settings)
    return vars(distributed.gather(solution))


def outside(mesh):
    """Encode and learn with a dictionary from outside, weights of the data and a penalty for each row."""
    import jax
    import optax

    sys.path.append(str(Path(__file__).parent / "sparse_coding"))
    from own_dictionaries import Convolution

    from neurojax import distributed, penalties, sparse_coding
    from neurojax.training import fit

    rng = np.random.default_rng(2)
    dictionary = Convolution(jax.numpy.asarray(rng.normal(size=(3, 2, 5)), "float32")).normalize()
    xs = rng.normal(size=(10, 2, 12)).astype(np.float32)
    weights = (rng.random(xs.shape) < 0.7).astype(np.float32)
    strengths = np.linspace(0.05, 0.3, 10, dtype=np.float32)
    solution = sparse_coding.encode_batch(
        dictionary, xs, penalties.L1(strengths), weights=weights, penalty_axis=0, tol=1e-6, mesh=mesh
    )
    objective = sparse_coding.SparseCodingObjective(penalties.L1(0.1), tol=1e-6)
    result = fit(
        dictionary, objective, xs[:8], optimizer=optax.sgd(0.05), n_steps=4, batch_size=8, mesh=mesh,
        key=jax.random.key(0), after_update=sparse_coding.DictionaryUpkeep(), progress=False,
    )  # fmt: skip
    return {"codes": distributed.gather(solution.value), "kernels": distributed.gather(result.model.kernels)}


def learn(
    mesh,
    *,
    over_atoms=False,
    folder=None,
    n_steps=12,
    pause=0.0,
    every=5,
    seed=0,
    data_seed=0,
    n_atoms=N_ATOMS,
    by_adam=True,
    tol=1e-5,
):
    """Learn a dictionary, atoms replaced where they die."""
    import time

    import jax
    import optax

    from neurojax import distributed, penalties
    from neurojax.sparse_coding import AtomUsage, DictionaryUpkeep, SparseCodingObjective, random_dictionary
    from neurojax.training import Checkpoint, fit

    objective = SparseCodingObjective(penalties.L1(0.1), tol=tol)
    optimizer = optax.adam(0.01) if by_adam else optax.sgd(0.1)
    dictionary = random_dictionary(jax.random.key(1), n_atoms, N_FEATURES)
    usage = AtomUsage.init(dictionary)
    if over_atoms:
        dictionary = distributed.shard_atoms(dictionary, mesh)
    result = fit(
        dictionary, objective, _data() + np.float32(data_seed), optimizer=optimizer, n_steps=n_steps,
        batch_size=16, key=jax.random.key(seed), state=usage,
        after_update=DictionaryUpkeep(objective, optimizer, 4), steps_per_block=2,
        checkpoint=None if folder is None else Checkpoint(folder, every=every),
        callback=lambda *_: time.sleep(pause), mesh=mesh, progress=False,
    )  # fmt: skip
    return _numbers(result)


def centres(mesh, *, over_atoms=False, folder=None, n_steps=12, pause=0.0, every=5, seed=0, data_seed=0,
            n_atoms=N_ATOMS, shards=None, n_keys=0):  # fmt: skip
    """Move points towards rows, each by how near it is: what learning is, and quick to compile."""
    import time

    import jax
    import jax.numpy as jnp
    import optax

    from neurojax import data, distributed
    from neurojax.training import Checkpoint, fit

    points = jax.random.normal(jax.random.key(1), (n_atoms, N_FEATURES))
    if over_atoms:
        points = distributed.shard_atoms(points, mesh)

    def objective(model, state, batch, key):
        near = jax.nn.softmax(batch @ model.T + 0.01 * jax.random.normal(key, (n_atoms,)))
        loss = jnp.mean((batch - near @ model) ** 2)
        total, keys = state
        return loss, (
            (total + loss, jax.vmap(jax.random.fold_in, (0, None))(keys, 1) if n_keys else None),
            {},
        )

    keys = jax.random.split(jax.random.key(5), n_keys) if n_keys else None
    if n_keys and mesh is not None:
        keys = distributed.shard_rows(keys, mesh)
    rows = _data() + np.float32(data_seed) if shards is None else data.ShardedRows(shards)
    result = fit(
        points, objective, rows, optimizer=optax.adam(0.01), n_steps=n_steps,
        batch_size=16, key=jax.random.key(seed), state=(0.0, keys), steps_per_block=2,
        checkpoint=None if folder is None else Checkpoint(folder, every=every),
        callback=lambda *_: time.sleep(pause), mesh=mesh, progress=False,
    )  # fmt: skip
    return _numbers(result)


def pcd(mesh, *, folder=None, n_steps=30):
    """Learn a restricted Boltzmann machine from persistent chains, which lie over the mesh."""
    import jax
    import optax

    from neurojax import boltzmann, distributed
    from neurojax.training import Checkpoint, fit

    rows = (np.random.default_rng(0).random((64, 12)) < 0.3).astype(np.float32)
    rbm = boltzmann.BernoulliRBM.from_data(rows, 6, jax.random.key(0), scale=0.1)
    rule = boltzmann.ContrastiveObjective()
    chains = rule.init(rbm, 32, jax.random.key(1))
    if mesh is not None:
        chains = distributed.shard_rows(chains, mesh, name="chains")
    result = fit(
        rbm, rule, rows, optimizer=optax.sgd(0.05), n_steps=n_steps, batch_size=16, key=jax.random.key(2),
        state=chains, checkpoint=None if folder is None else Checkpoint(folder, every=10), mesh=mesh,
        progress=False,
    )  # fmt: skip
    return _numbers(result)


def vae(mesh):
    """Learn a variational autoencoder."""
    import jax
    import optax

    from neurojax import autoencoder as ae
    from neurojax.training import fit

    rows = (np.random.default_rng(0).random((64, 12)) < 0.3).astype(np.float32)
    model = ae.VariationalAutoencoder.from_sizes(12, [8], 3, jax.random.key(0))
    result = fit(
        model, ae.ELBOObjective(is_binarized=True), rows, optimizer=optax.adam(0.01), n_steps=20,
        batch_size=16, key=jax.random.key(1), mesh=mesh, progress=False,
    )  # fmt: skip
    return _numbers(result)


def chains(mesh, *, n_chains=16):
    """Run Gibbs chains of a Boltzmann machine."""
    import jax

    from neurojax import boltzmann, distributed
    from neurojax.chains import sample_chain, sample_chains

    rows = (np.random.default_rng(0).random((64, 12)) < 0.3).astype(np.float32)
    rbm = boltzmann.BernoulliRBM.from_data(rows, 6, jax.random.key(0), scale=0.1)

    def kernel(v, key):
        return boltzmann.gibbs_step(rbm, v, key)

    settings = {"n_samples": 5, "mesh": mesh}
    many = sample_chains(kernel, rows[:n_chains], jax.random.key(3), **settings)

    def all_at_once(v, key):
        return jax.vmap(kernel)(v, jax.random.split(key, n_chains))

    one = sample_chain(all_at_once, rows[:n_chains], jax.random.key(4), **settings)
    for chain in (many, one):
        assert mesh is None or chain.state.sharding.shard_shape(chain.state.shape)[0] * mesh.size == n_chains
    return {"many": distributed.gather(many.samples), "one": distributed.gather(one.samples)}


def stream(mesh):
    """Encode this process's own rows, every so many-th of all."""
    import jax

    from neurojax import distributed, penalties
    from neurojax.sparse_coding import encode_stream, random_dictionary

    dictionary = distributed.place(random_dictionary(jax.random.key(0), N_ATOMS, N_FEATURES), mesh)
    rows = _data()[jax.process_index() :: jax.process_count()]
    solution = encode_stream(dictionary, rows, penalties.L1(0.1), tol=1e-5, batch_size=20, mesh=mesh)
    return {"value": solution.value, "status": solution.status}


def join(mesh):
    """Join rows of which each process gives its own."""
    import jax

    from neurojax import distributed

    return {
        "rows": distributed.gather(distributed.join_rows(np.full((2, 1), 1.0 + jax.process_index()), mesh))
    }


def wait(mesh, *, folder=None):
    """Say that it is here, and do nothing for long."""
    import time

    import jax

    Path(folder, f"waiting-{jax.process_index()}").touch()
    time.sleep(300)


def several(mesh, *, programs=("encode", "learn", "pcd", "vae", "chains"), **settings):
    """Run several of the programs in one process; settings of each by its name."""
    arrays = {name: PROGRAMS[name](mesh, **settings.get(name, {})) for name in programs}
    return {f"{name}: {key}": array for name in programs for key, array in arrays[name].items()}


def beside(mesh, **settings):
    """Run programs in one process, each on the mesh and without it; name chains that do not divide."""
    from neurojax import distributed

    came = {f"mesh {key}": array for key, array in several(mesh, **settings).items()}
    came |= {f"one {key}": array for key, array in several(None, **settings).items()}
    try:
        distributed.shard_rows(np.zeros((mesh.size + 1, 2)), mesh, name="chains")
    except ValueError as error:
        came["message"] = np.array(str(error))
    return came


def agree(mesh):
    """Learn in all processes; then have them disagree about one setting after another."""
    import jax

    from neurojax import distributed

    came = centres(mesh)
    number = jax.process_index()
    others = {
        "number": {"n_steps": 12 - 5 * number},
        "nothing": {"every": None if number else 5},
        "array": {"data": f"float32[4] checksum {number}"},
    }
    for name, settings in others.items():
        try:
            distributed.check_same_settings("fit", {"seed": 0} | settings)
        except ValueError as error:
            came[f"message {name}"] = np.array(str(error))
    return came


def pieces(mesh, *, folder):
    """Save a model in pieces, read it as another model, damage a piece, and go on."""
    came = {}
    centres(mesh, over_atoms=True, folder=folder, n_steps=10)
    try:
        centres(mesh, over_atoms=True, folder=folder, n_atoms=32)
    except ValueError as error:
        came["message"] = np.array(str(error))
    damage(Path(folder) / "checkpoint" / "10")
    came |= centres(mesh, over_atoms=True, folder=folder)
    return came | {f"one {name}": array for name, array in centres(None).items()}


def damage(checkpoint, *, is_missing=False):
    """Flip a bit in the middle of a checkpoint's largest file, or remove it."""
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    piece = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 1
    piece.unlink()
    if not is_missing:
        piece.write_bytes(content)


PROGRAMS = {
    f.__name__: f
    for f in (
        encode, outside, learn, centres, pcd, vae, chains, stream, join, wait, several, beside, agree, pieces
    )
}  # fmt: skip


def main(program, path, settings):
    import jax

    from neurojax import distributed

    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        distributed.start_processes(heartbeat_timeout_seconds=10)
    settings = json.loads(settings)
    n_model = settings.pop("n_model", 1)
    per_process = settings.pop("per_process", {}).get(str(jax.process_index()), {})
    mesh = None if settings.pop("without_mesh", False) else distributed.make_mesh(n_model=n_model)
    arrays = PROGRAMS[program](mesh, **(settings | per_process))
    if distributed.is_main_process():
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
