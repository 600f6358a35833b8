"""The table of `neurojax.boltzmann`."""

import jax.numpy as jnp
import numpy as np

from neurojax import boltzmann

from ._entry import Entry, binary, classes, key, normal, others, positive

N_VISIBLE, N_HIDDEN = 6, 3
SAMPLES = "A sample of binary units has no derivative."


def _binary():
    return boltzmann.BernoulliRBM(normal(N_VISIBLE, N_HIDDEN), normal(N_VISIBLE), normal(N_HIDDEN))


def _gaussian():
    weights, biases = normal(N_VISIBLE, N_HIDDEN), (normal(N_VISIBLE), normal(N_HIDDEN))
    return boltzmann.GaussianBernoulliRBM(weights, *biases, positive(N_VISIBLE))


def _potts():
    weights, biases = normal(N_VISIBLE, N_HIDDEN), (normal(N_VISIBLE), normal(N_HIDDEN))
    return boltzmann.PottsRBM(weights, *biases, 3)


def _machine():
    return {"rbm": _binary(), "v": binary(N_VISIBLE)}


def _machine_and_key():
    return _machine() | {"key": key()}


def _joint():
    return _machine() | {"h": binary(N_HIDDEN)}


def _base():
    return {"rbm": _binary(), "key": key(), "base_visible_bias": normal(N_VISIBLE)}


def _rows():
    return {"rbm": _binary(), "data": binary(8, N_VISIBLE), "key": key()}


def _entry(name: str, call, arguments, case: str = "", differentiable: tuple[str, ...] = (), why: str = ""):
    return Entry(f"boltzmann.{name}", call, arguments, case, differentiable=differentiable, why=why)


def _of_machine(weights, visible_bias, hidden_bias, v, h, *settings, kind):
    rbm = kind(weights, visible_bias, hidden_bias, *settings)
    mean = rbm.visible_mean(rbm.visible_input(h))
    base = rbm.visible_log_partition(rbm.visible_bias)
    return boltzmann.energy(rbm, v, h), boltzmann.free_energy(rbm, v), mean, base


def _new_binary(**arguments):
    return _of_machine(**arguments, kind=boltzmann.BernoulliRBM)


def _new_gaussian(variance, **arguments):
    def build(*parameters):
        return boltzmann.GaussianBernoulliRBM(*parameters, variance)

    return _of_machine(**arguments, kind=build)


def _new_potts(**arguments):
    return _of_machine(**arguments, kind=lambda *parameters: boltzmann.PottsRBM(*parameters, 3))


def _parameters():
    weights = {"weights": normal(N_VISIBLE, N_HIDDEN), "visible_bias": normal(N_VISIBLE)}
    units = {"v": _one_hot(), "h": binary(N_HIDDEN)}
    return weights | {"hidden_bias": normal(N_HIDDEN)} | units


def _one_hot():
    """Return a state of two sites of three states, which is one of binary and real units as well."""
    return np.eye(3, dtype=np.float32)[[0, 2]].reshape(-1)


def _ais(rbm, key, base_visible_bias):
    settings = {"n_chains": 4, "n_temperatures": 5}
    return boltzmann.log_partition_ais(rbm, key, base_visible_bias=base_visible_bias, **settings)


def _reverse_ais(rbm, key, base_visible_bias, samples):
    return boltzmann.log_partition_reverse_ais(
        rbm, samples, key, base_visible_bias=base_visible_bias, n_temperatures=5
    )


def _bracket(rbm, key, base_visible_bias, samples):
    settings = {"base_visible_bias": base_visible_bias, "n_chains": 4, "n_temperatures": 5}
    return boltzmann.log_partition_bracket(rbm, samples, key, **settings)


def _loss(make_phase):
    def call(rbm, data, key):
        objective = boltzmann.ContrastiveObjective(
            make_phase(rbm), weight_decay=0.1, sparsity=0.1, sparsity_target=0.2
        )
        return objective(rbm, objective.init(rbm, 8, key), data, key)

    return call


def _tempering(rbm):
    return boltzmann.ParallelTempering(jnp.zeros(N_VISIBLE, rbm.weights.dtype), 3)


def _centred(rbm, data, key):
    objective = boltzmann.CentredGradient()
    state = objective.init(rbm, 8, key, data_mean=np.full(N_VISIBLE, 0.5, np.float32))
    return objective.value_and_grad(rbm, state, data, key)


def _network():
    top = boltzmann.BernoulliRBM(normal(N_HIDDEN + 2, 4), normal(N_HIDDEN + 2), normal(4))
    return {"network": boltzmann.DeepBeliefNetwork((_binary(), top)), "v": binary(N_VISIBLE)}


def _dream(network, v, key):
    return network.features(v), network.sample(key, n_steps=2)


PARAMETERS = ("weights", "visible_bias", "hidden_bias")
PHASES = {
    "ContrastiveDivergence": lambda rbm: boltzmann.ContrastiveDivergence(2),
    "PersistentContrastiveDivergence": lambda rbm: boltzmann.PersistentContrastiveDivergence(1),
    "ParallelTempering": _tempering,
}

ENTRIES = [
    _entry("BernoulliRBM", _new_binary, _parameters, "", PARAMETERS),
    _entry(
        "GaussianBernoulliRBM",
        _new_gaussian,
        lambda: _parameters() | {"variance": positive(N_VISIBLE)},
        "",
        (*PARAMETERS, "variance", "v"),
    ),
    _entry("PottsRBM", _new_potts, _parameters, "", PARAMETERS),
    _entry("energy", boltzmann.energy, _joint, "", ("rbm", "v", "h")),
    _entry("free_energy", boltzmann.free_energy, _machine, "", ("rbm", "v")),
    _entry(
        "free_energy_gap",
        boltzmann.free_energy_gap,
        lambda: {"rbm": _binary(), "train": binary(8, N_VISIBLE), "validation": binary(5, N_VISIBLE)},
        "",
        ("rbm",),
    ),
    _entry("hidden_probabilities", boltzmann.hidden_probabilities, _machine, "", ("rbm", "v")),
    _entry(
        "visible_probabilities",
        boltzmann.visible_probabilities,
        lambda: {"rbm": _binary(), "h": binary(N_HIDDEN)},
        "",
        ("rbm", "h"),
    ),
    _entry("mean_field_step", boltzmann.mean_field_step, _machine, "", ("rbm", "v")),
    _entry("gibbs_step", boltzmann.gibbs_step, _machine_and_key, why=SAMPLES),
    _entry(
        "gibbs_step",
        boltzmann.gibbs_step,
        lambda: _machine_and_key() | {"rbm": _gaussian()},
        "gaussian",
        ("rbm",),
    ),
    _entry(
        "gibbs_step",
        boltzmann.gibbs_step,
        lambda: {"rbm": _potts(), "v": _one_hot(), "key": key()},
        "categorical",
        why=SAMPLES,
    ),
    _entry("sample_hidden", boltzmann.sample_hidden, _machine_and_key, why=SAMPLES),
    _entry(
        "clamped_gibbs_step",
        boltzmann.clamped_gibbs_step,
        lambda: _machine_and_key() | {"is_clamped": binary(N_VISIBLE) > 0},
        why=SAMPLES,
    ),
    _entry("pseudo_log_likelihood", boltzmann.pseudo_log_likelihood, _machine_and_key, "", ("rbm",)),
    _entry("pseudo_log_likelihood_exact", boltzmann.pseudo_log_likelihood_exact, _machine, "", ("rbm",)),
    _entry(
        "log_likelihood",
        boltzmann.log_likelihood,
        lambda: _machine() | {"log_partition": positive()},
        "",
        ("rbm", "log_partition"),
    ),
    _entry("log_partition_exact", boltzmann.log_partition_exact, lambda: {"rbm": _binary()}, "", ("rbm",)),
    _entry("log_partition_ais", _ais, _base, why="It rests on samples of binary units."),
    _entry(
        "log_partition_reverse_ais",
        _reverse_ais,
        lambda: _base() | {"samples": binary(4, N_VISIBLE)},
        why="It rests on samples of binary units.",
    ),
    _entry(
        "log_partition_bracket",
        _bracket,
        lambda: _base() | {"samples": binary(4, N_VISIBLE)},
        why="It rests on samples of binary units.",
    ),
    _entry(
        "append_labels",
        lambda rows, labels: boltzmann.append_labels(rows, labels, 3),
        lambda: {"rows": binary(6, 4), "labels": classes(6, 3)},
        "",
        ("rows",),
    ),
    _entry(
        "class_log_probabilities",
        lambda rbm, features: boltzmann.class_log_probabilities(rbm, features, 2),
        lambda: {"rbm": _binary(), "features": binary(N_VISIBLE - 2)},
        "",
        ("rbm", "features"),
    ),
    _entry(
        "adversarial_accuracy",
        boltzmann.adversarial_accuracy,
        lambda: {"data": binary(6, 4), "samples": binary(6, 4, seed=1)},
        why="A share of nearest neighbors has no derivative.",
    ),
    *(_entry(name, _loss(phase), _rows, "", ("rbm",)) for name, phase in PHASES.items()),
    _entry("CentredGradient", _centred, _rows, why="It returns a gradient of its own."),
    _entry("DeepBeliefNetwork", _dream, lambda: _network() | {"key": key()}, "", ("network",)),
    *others("boltzmann", "settings", "ContrastiveObjective", "It is tested with each negative phase."),
    *others("boltzmann", "host program", "fit_deep_belief_network"),
    *others("boltzmann", "abstract class", "AbstractNegativePhase AbstractRBM"),
    *others("boltzmann", "record", "AdversarialAccuracy Bracket CentredState Estimate"),
    *others("boltzmann", "record", "PersistentChains Replicas"),
    *others("boltzmann", "constant", "MOST_ENUMERATED_UNITS"),
]
