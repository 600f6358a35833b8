"""The table of `neurojax.sparse_coding`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from neurojax import convergence, penalties, sparse_coding
from neurojax.sparse_coding import Dictionary

from ._entry import Entry, classes, key, normal, number, others, positive

DATUM = ("atoms", "x", "strength")
BATCH = ("atoms", "xs", "strength")
LAYERS = ("network", "x")
DETACHED = "Detached codes are constants."


def _datum():
    return {"atoms": normal(8, 5), "x": normal(5), "strength": number(0.2)}


def _coded():
    return _datum() | {"code": normal(8)}


def _batch():
    return {"atoms": normal(8, 5), "xs": normal(6, 5), "strength": number(0.2)}


def _entry(name: str, call, arguments, case: str = "", differentiable: tuple[str, ...] = (), why: str = ""):
    return Entry(f"sparse_coding.{name}", call, arguments, case, differentiable=differentiable, why=why)


def _tol(array):
    """Return the tolerance: in double precision one at which finite differences of codes mean something."""
    return 1e-13 if _dtype(array) == np.float64 else None


def _dtype(array):
    """Return the dtype that an argument has for JAX; lists are of single precision here."""
    return np.dtype(getattr(array, "dtype", np.float32)).newbyteorder("=")


def _learned():
    return {"atoms": normal(8, 5), "batch": normal(6, 5), "strength": number(0.2)}


def _encode(penalty=penalties.L1, **settings):
    def call(atoms, x, strength):
        return sparse_coding.encode(Dictionary(atoms), x, penalty(strength), tol=_tol(x), **settings)

    return call


def _encode_batch(penalty=penalties.L1, **settings):
    def call(atoms, xs, strength):
        return sparse_coding.encode_batch(Dictionary(atoms), xs, penalty(strength), tol=_tol(xs), **settings)

    return call


def _encode_path(atoms, x, strengths):
    return sparse_coding.encode_path(Dictionary(atoms), x, penalties.L1(strengths), tol=_tol(x))


def _smooth(strength):
    return penalties.SmoothL1(strength, 0.01)


def _energy(atoms, x, code, strength):
    return sparse_coding.energy(Dictionary(atoms), x, code, penalties.L1(strength))


def _duality_gap(atoms, x, code, strength):
    return sparse_coding.duality_gap(Dictionary(atoms), x, code, penalties.L1(strength))


def _problem(atoms, x, value, strength):
    problem = sparse_coding.make_problem(Dictionary(atoms), x, penalties.L1(strength))
    return problem.fixed_point(value), problem.residual(value)


def _make_problem(atoms, x, strength):
    return sparse_coding.make_problem(Dictionary(atoms), x, penalties.L1(strength), use_gram=False)


def _dictionary(atoms, x, code):
    dictionary = Dictionary(atoms)
    return dictionary.reconstruct(code), dictionary.correlate(x), dictionary.gram()


def _layer(**settings):
    def call(atoms, x, strength):
        layer = sparse_coding.SparseCodingLayer(
            Dictionary(atoms), penalties.L1(strength), learn_penalty=True, tol=_tol(x), **settings
        )
        return layer(x)

    return call


def _rmsprop_layer(atoms, x, strength):
    solver = sparse_coding.rmsprop_inference()
    return _encode(_smooth, solver=solver, gradient=UNROLLED, max_steps=20)(atoms, x, strength)


def _networks(kind, **settings):
    return lambda: {"network": kind(Dictionary(normal(8, 5)), 0.2, 3, **settings), "x": normal(5)}


def _layers(network, x):
    return network(x), network.layers(x)


def _trained_layers(trained, x):
    network = sparse_coding.ALISTA(Dictionary(normal(8, 5).astype(_dtype(x))), 0.2, 3, n_trusted=(0, 1, 2))
    trained = 0.1 * trained["step_sizes"], 0.02 * trained["thresholds"], trained["blends"]
    network = eqx.tree_at(lambda n: (n.step_sizes, n.thresholds, n.blends), network, trained)
    return network(x), network.layers(x)


def _of_new_network(kind):
    return lambda atoms, x, strength: kind(Dictionary(atoms), strength, 2)(x)


def _loss(atoms, batch, strength):
    objective = sparse_coding.SparseCodingObjective(penalties.L1(strength), sparse_coding.FISTA())
    dictionary = Dictionary(atoms)
    return objective(dictionary, sparse_coding.AtomUsage.init(dictionary), batch, jax.random.key(0))


def _upkeep(atoms, batch, strength):
    optimizer = optax.adam(0.1)
    objective = sparse_coding.SparseCodingObjective(penalties.L1(strength))
    upkeep = sparse_coding.DictionaryUpkeep(objective, optimizer, replace_after=5)
    dictionary = Dictionary(atoms)
    usage = sparse_coding.AtomUsage.init(dictionary)
    return upkeep(dictionary, optimizer.init(dictionary), usage, batch, jax.random.key(0))


def _statistics(atoms, batch, strength):
    objective = sparse_coding.OnlineDictionaryObjective(
        sparse_coding.SparseCodingObjective(penalties.L1(strength))
    )
    dictionary = Dictionary(atoms)
    state = sparse_coding.DictionaryStatistics.init(dictionary)
    return objective.value_and_grad(dictionary, state, batch, jax.random.key(0))


def _collected():
    statistics = sparse_coding.DictionaryStatistics.init(Dictionary(normal(8, 5)))
    codes = normal(6, 8)
    products = {"code_products": codes.T @ codes, "data_products": codes.T @ normal(6, 5)}
    return {"atoms": normal(8, 5), "statistics": statistics._replace(**products)}


def _block_update(atoms, statistics):
    update = sparse_coding.BlockCoordinateUpdate()
    return update(Dictionary(atoms), None, statistics, jnp.zeros((6, 5), _dtype(atoms)), jax.random.key(0))


def _surrogate(atoms, statistics):
    return statistics.surrogate(atoms)


def _update_atoms(atoms, statistics):
    return sparse_coding.update_atoms(Dictionary(atoms), statistics)


def _classifier():
    return {
        "atoms": normal(8, 5),
        "weights": normal(8, 3),
        "bias": normal(3),
        "xs": normal(6, 5),
        "labels": classes(6, 3),
        "l1": number(0.2),
        "l2": number(0.1),
    }


def _task_loss(atoms, weights, bias, xs, labels, l1, l2):
    model = sparse_coding.SparseClassifier(Dictionary(atoms), weights, bias)
    objective = sparse_coding.TaskDrivenObjective(penalties.ElasticNet(l1, l2), 0.1, tol=_tol(xs))
    return objective(model, None, (xs, labels), jax.random.key(0))


def _logits(atoms, weights, bias, codes):
    return sparse_coding.SparseClassifier(Dictionary(atoms), weights, bias).logits(codes)


def _normalize_classifier(atoms, weights, bias):
    model = sparse_coding.SparseClassifier(Dictionary(atoms), weights, bias)
    return sparse_coding.normalize_classifier(model, None, None, None, jax.random.key(0))[0]


def _code_regression(network, x, code):
    batch = sparse_coding.CodedData(x, code)
    return sparse_coding.CodeRegressionObjective()(network, None, batch, jax.random.key(0))


def _amortized(network, batch, atoms):
    objective = sparse_coding.AmortizedInferenceObjective(Dictionary(atoms), penalties.L1(0.2))
    return objective(network, None, batch, jax.random.key(0))


def _network_and_rows():
    network = sparse_coding.LISTA(Dictionary(normal(8, 5)), 0.2, 3)
    return {"network": network, "x": normal(6, 5)}


def _sparse_and_dense(codes):
    return sparse_coding.sparse_codes(codes, 3).to_dense()


def _pursuit(name):
    function = getattr(sparse_coding, name)
    return lambda atoms, x: function(Dictionary(atoms), x, n_steps=3)


def _atoms_and_datum():
    return {"atoms": normal(8, 5), "x": normal(5)}


UNROLLED = convergence.Unrolled()


def _falling():
    return np.geomspace(1, 0.1, 3, dtype=np.float32)


def _path_batch(atoms, xs, strengths):
    dictionary = Dictionary(atoms)
    settings = {"tol": 1e-13 if dictionary.atoms.dtype == "float64" else 1e-4, "max_steps": 10_000}
    return sparse_coding.encode_path_batch(dictionary, xs, penalties.L1(strengths), **settings)


def _by_activity(atoms, xs):
    return sparse_coding.strength_by_activity(Dictionary(atoms), xs, 2, n_steps=4, tol=1e-4)


def _by_held_out(atoms, xs, strengths):
    return sparse_coding.strength_by_held_out(Dictionary(atoms), xs, strengths, key(), tol=1e-4)


ENTRIES = [
    _entry("encode", _encode(), _datum, "", DATUM),
    _entry("encode", _encode(gradient=convergence.Detached()), _datum, "detached", why=DETACHED),
    _entry("encode_batch", _encode_batch(), _batch, "", BATCH),
    _entry("encode_batch", _encode_batch(max_active=5), _batch, "sparse", BATCH),
    _entry("encode_batch", _encode_batch(gradient=UNROLLED, max_steps=500), _batch, "unrolled", BATCH),
    _entry(
        "encode_path",
        _encode_path,
        lambda: _atoms_and_datum() | {"strengths": np.array([0.4, 0.2], np.float32)},
        "",
        ("atoms", "x", "strengths"),
    ),
    *(
        _entry(name, _encode(solver=solver, gradient=UNROLLED, max_steps=20), _datum, "", DATUM)
        for name, solver in (
            ("ISTA", sparse_coding.ISTA()),
            ("FISTA", sparse_coding.FISTA()),
            ("LCA", sparse_coding.LCA()),
            ("CoordinateDescent", sparse_coding.CoordinateDescent()),
        )
    ),
    _entry("FISTA", _encode(solver=sparse_coding.FISTA(backtracking=True)), _datum, "backtracking", DATUM),
    _entry("SpaRSA", _encode(solver=sparse_coding.SpaRSA()), _datum, "", DATUM),
    _entry("Gradient", _encode(_smooth, solver=sparse_coding.Gradient(optax.sgd(0.05))), _datum, "", DATUM),
    _entry("rmsprop_inference", _rmsprop_layer, _datum, "", DATUM),
    _entry("energy", _energy, _coded, "", ("atoms", "x", "code", "strength")),
    _entry("duality_gap", _duality_gap, _coded, "", ("atoms", "x", "code", "strength")),
    _entry("make_problem", _make_problem, _datum, "", DATUM),
    _entry(
        "make_problem",
        _problem,
        lambda: _datum() | {"value": normal(8)},
        "its map",
        ("atoms", "x", "value", "strength"),
    ),
    _entry(
        "Dictionary",
        _dictionary,
        lambda: _atoms_and_datum() | {"code": normal(8)},
        "",
        ("atoms", "x", "code"),
    ),
    _entry(
        "reconstruct",
        lambda atoms, code: sparse_coding.reconstruct(Dictionary(atoms), code),
        lambda: {"atoms": normal(8, 5), "code": normal(8)},
        "",
        ("atoms", "code"),
    ),
    _entry(
        "correlate",
        lambda atoms, x: sparse_coding.correlate(Dictionary(atoms), x),
        _atoms_and_datum,
        "",
        ("atoms", "x"),
    ),
    _entry(
        "max_strength",
        lambda atoms, x: sparse_coding.max_strength(Dictionary(atoms), x),
        _atoms_and_datum,
        "",
        ("atoms", "x"),
    ),
    _entry(
        "normalize_atoms",
        lambda atoms: sparse_coding.normalize_atoms(Dictionary(atoms)),
        lambda: {"atoms": normal(8, 5)},
        "",
        ("atoms",),
    ),
    _entry(
        "random_dictionary",
        lambda key: sparse_coding.random_dictionary(key, 8, 5),
        lambda: {"key": key()},
        why="It draws from a key alone.",
    ),
    _entry(
        "analytic_weights",
        lambda atoms: sparse_coding.analytic_weights(Dictionary(atoms)),
        lambda: {"atoms": normal(8, 5)},
        "",
        ("atoms",),
    ),
    *(
        _entry(name, _pursuit(name), _atoms_and_datum, "", ("atoms", "x"))
        for name in ("matching_pursuit", "orthogonal_matching_pursuit")
    ),
    _entry("SparseCodingLayer", _layer(), _datum, "", DATUM),
    _entry("SparseCodingLayer", _layer(returns="reconstruction"), _datum, "reconstruction", DATUM),
    _entry("LISTA", _layers, _networks(sparse_coding.LISTA), "", LAYERS),
    _entry("LISTA", _of_new_network(sparse_coding.LISTA), _datum, "new", DATUM),
    _entry(
        "ALISTA",
        _trained_layers,
        lambda: {
            "trained": {name: positive(3) for name in ("step_sizes", "thresholds", "blends")},
            "x": normal(5),
        },
        "",
        ("trained", "x"),
    ),
    _entry(
        "ALISTA",
        _of_new_network(sparse_coding.ALISTA),
        _datum,
        "new",
        ("x", "strength"),
        "The dictionary is a constant, as its docstring says.",
    ),
    _entry("SparseCodingObjective", _loss, _learned, "", ("atoms", "batch", "strength")),
    _entry("DictionaryUpkeep", _upkeep, _learned, why="It updates a learner in place of a gradient step."),
    _entry("OnlineDictionaryObjective", _statistics, _learned, why="Its gradient is zero by definition."),
    _entry("BlockCoordinateUpdate", _block_update, _collected, why="It is an update of the atoms."),
    _entry("DictionaryStatistics", _surrogate, _collected, "", ("atoms", "statistics")),
    _entry("update_atoms", _update_atoms, _collected, why="It is an update of the atoms."),
    _entry(
        "TaskDrivenObjective", _task_loss, _classifier, "", ("atoms", "weights", "bias", "xs", "l1", "l2")
    ),
    _entry(
        "SparseClassifier",
        _logits,
        lambda: {"atoms": normal(8, 5), "weights": normal(8, 3), "bias": normal(3), "codes": normal(6, 8)},
        "",
        ("weights", "bias", "codes"),
    ),
    _entry(
        "normalize_classifier",
        _normalize_classifier,
        lambda: {"atoms": normal(8, 5), "weights": normal(8, 3), "bias": normal(3)},
        "",
        ("atoms",),
    ),
    _entry(
        "CodeRegressionObjective",
        _code_regression,
        lambda: _network_and_rows() | {"code": normal(6, 8)},
        "",
        ("network", "x", "code"),
    ),
    _entry(
        "AmortizedInferenceObjective",
        _amortized,
        lambda: {
            "network": _network_and_rows()["network"],
            "batch": normal(6, 5),
            "atoms": normal(8, 5),
        },
        "",
        ("network", "batch"),
    ),
    _entry("sparse_codes", _sparse_and_dense, lambda: {"codes": normal(6, 8)}, "", ("codes",)),
    *others("sparse_coding", "host program", "encode_stream fit_dictionary_online"),
    Entry(
        "sparse_coding.encode_path_batch",
        _path_batch,
        lambda: {
            "atoms": normal(8, 5),
            "xs": normal(3, 5),
            "strengths": np.geomspace(1, 0.1, 3, dtype=np.float32),
        },
        differentiable=("atoms", "xs", "strengths"),
    ),
    Entry(
        "sparse_coding.strength_by_activity",
        _by_activity,
        lambda: {"atoms": normal(8, 5), "xs": normal(6, 5)},
        why="Bisection ends where the values say.",
    ),
    Entry(
        "sparse_coding.strength_by_held_out",
        _by_held_out,
        lambda: {
            "atoms": normal(8, 5),
            "xs": normal(6, 5),
            "strengths": np.geomspace(1, 0.1, 3, dtype=np.float32),
        },
        why="One of the strengths given is chosen.",
    ),
    *others(
        "sparse_coding",
        "record",
        "AtomUsage CodedData LCAState SpaRSAState SparseCodes StrengthChoice WeightedData",
    ),
    *others("sparse_coding", "abstract class", "AbstractDictionary"),
]
