"""The table of `neurojax.autoencoder`."""

import jax
import jax.numpy as jnp

from neurojax import autoencoder

from ._entry import Entry, binary, classes, key, normal, number, others, positive

N_FEATURES, N_HIDDEN, N_CODE = 6, 4, 3


def _plain(**settings):
    return autoencoder.Autoencoder.from_sizes(N_FEATURES, [N_HIDDEN, N_CODE], key(), **settings)


def _variational():
    return autoencoder.VariationalAutoencoder.from_sizes(N_FEATURES, [N_HIDDEN], N_CODE, key())


def _sparse(selection):
    return autoencoder.SparseAutoencoder.from_data(normal(12, N_FEATURES), 8, key(), selection=selection)


PSEUDO = (
    "The derivative in its threshold is a kernel estimate, which finite differences of one datum do not show."
)


def _entry(name: str, call, arguments, case: str = "", differentiable: tuple[str, ...] = (), why: str = ""):
    return Entry(f"autoencoder.{name}", call, arguments, case, differentiable=differentiable, why=why)


def _plain_and_datum():
    return {"model": _plain(), "x": positive(N_FEATURES)}


def _plain_and_batch():
    return {"model": _plain(), "batch": binary(5, N_FEATURES), "key": key()}


def _variational_and_datum():
    return {"model": _variational(), "x": binary(N_FEATURES), "key": key()}


def _variational_and_batch():
    return {"model": _variational(), "batch": binary(5, N_FEATURES), "key": key()}


def _sparse_and_batch():
    return {"model": _sparse(autoencoder.BatchTopK(2)), "batch": normal(5, N_FEATURES)}


def _there_and_back(model, x):
    code = model.encode(x)
    return code, model.decode(code), model.reconstruct(x)


def _variational_output(model, x, key):
    return _there_and_back(model, x), model.posterior(x).divergence(), model.generate(key)


def _of_posterior(mean, log_scale, z, key):
    posterior = autoencoder.GaussianPosterior(mean, log_scale)
    return posterior.sample(key), posterior.log_density(z), posterior.unit_divergences()


def _log_weights(model, x, zs):
    return autoencoder.log_weights(model, x, zs, model.posterior(x))


def _outputs(parameters, x, key, output):
    likelihood = output.negative_log_likelihood(parameters, x)
    return output.mean(parameters), likelihood, output.sample(parameters, key)


def _bernoulli_output(parameters, x, key):
    output = autoencoder.BernoulliOutput()
    return output.mean(parameters), output.negative_log_likelihood(parameters, x)


def _gaussian_output(parameters, x, key, scale):
    return _outputs(parameters, x, key, autoencoder.GaussianOutput(scale))


def _output_arguments():
    return {"parameters": normal(N_FEATURES), "x": binary(N_FEATURES), "key": key()}


def _noise(kind, setting):
    return lambda x, key, **level: kind(level[setting])(x, key)


def _noise_arguments(setting):
    return lambda: {"x": binary(N_FEATURES), setting: number(0.2), "key": key()}


def _jump_relu(activations, log_threshold):
    selection = autoencoder.JumpReLU(log_threshold, 0.5)
    return selection(activations), selection.n_active(activations)


def _jump_relu_batch(activations, log_threshold):
    return autoencoder.JumpReLU(log_threshold, 0.5).select_batch(activations)


def _activations():
    return {"activations": normal(8)}


def _batch_of_activations():
    return {"activations": normal(5, 8)}


def _reconstruction_loss(model, batch, key):
    objective = autoencoder.ReconstructionObjective(
        corruption=autoencoder.MaskingNoise(0.2), contraction=0.1, sparsity=0.1, l1=0.1
    )
    return objective(model, None, batch, key)


def _elbo_loss(model, batch, key):
    return autoencoder.ELBOObjective(n_samples=2)(model, None, batch, key)


def _importance_loss(model, batch, key):
    return autoencoder.ImportanceWeightedObjective(3).value_and_grad(model, None, batch, key)


def _sparse_loss(model, batch):
    objective = autoencoder.SparseAutoencoderObjective(l1=0.1, dead_after=1)
    return objective.value_and_grad(model, objective.init(model), batch, jax.random.key(0))


def _sparse_upkeep(model):
    state = autoencoder.SparseAutoencoderObjective().init(model)
    return autoencoder.SparseAutoencoderUpkeep()(
        model, None, state, jnp.zeros((5, N_FEATURES)), jax.random.key(0)
    )


def _classify(model, x):
    return model.log_probabilities(x), model.predict(x)


def _classification_loss(model, rows, labels, key):
    objective = autoencoder.ClassificationObjective(autoencoder.GaussianNoise(0.1))
    return objective(model, None, (rows, labels), key)


def _classifier():
    return {"model": autoencoder.Classifier.from_autoencoder(_plain(), 3)}


def _tied(layer, bias, y):
    return autoencoder.TiedLinear(bias)(y, layer)


def _encoder_of(model):
    return lambda x: model.encode(x)


NOISES = {
    "MaskingNoise": ("rate", ("x",)),
    "SaltAndPepperNoise": ("rate", ("x",)),
    "BitFlipNoise": ("rate", ("x",)),
    "GaussianNoise": ("scale", ("x", "scale")),
}
SELECTIONS = {
    "ReLU": autoencoder.ReLU,
    "TopK": lambda: autoencoder.TopK(2),
    "BatchTopK": lambda: autoencoder.BatchTopK(2, jnp.float32(0.1)),
}

ENTRIES = [
    _entry("Autoencoder", _there_and_back, _plain_and_datum, "", ("model", "x")),
    _entry(
        "Autoencoder",
        _there_and_back,
        lambda: {"model": _plain(is_tied=False), "x": positive(N_FEATURES)},
        "untied",
        ("model", "x"),
    ),
    _entry(
        "SparseAutoencoder",
        _there_and_back,
        lambda: {"model": _sparse(autoencoder.TopK(2)), "x": normal(N_FEATURES)},
        "",
        ("model", "x"),
    ),
    _entry("VariationalAutoencoder", _variational_output, _variational_and_datum, "", ("model", "x")),
    _entry(
        "GaussianPosterior",
        _of_posterior,
        lambda: {"mean": normal(3), "log_scale": normal(3), "z": normal(3, seed=1), "key": key()},
        "",
        ("mean", "log_scale", "z"),
    ),
    _entry(
        "elbo",
        lambda model, x, key: autoencoder.elbo(model, x, key, n_samples=2),
        _variational_and_datum,
        "",
        ("model", "x"),
    ),
    _entry(
        "importance_weighted_bound",
        lambda model, x, key: autoencoder.importance_weighted_bound(model, x, key, n_samples=3),
        _variational_and_datum,
        "",
        ("model", "x"),
    ),
    _entry(
        "log_likelihood",
        lambda model, x, key: autoencoder.log_likelihood(model, x, key, n_samples=6, n_at_once=3),
        _variational_and_datum,
        "",
        ("model", "x"),
    ),
    _entry(
        "log_weights",
        _log_weights,
        lambda: {"model": _variational(), "x": binary(N_FEATURES), "zs": normal(4, N_CODE)},
        "",
        ("model", "x", "zs"),
    ),
    _entry("ELBOObjective", _elbo_loss, _variational_and_batch, "", ("model",)),
    _entry(
        "ImportanceWeightedObjective",
        _importance_loss,
        _variational_and_batch,
        why="It returns a gradient of its own.",
    ),
    _entry("ReconstructionObjective", _reconstruction_loss, _plain_and_batch, "", ("model",)),
    _entry(
        "SparseAutoencoderObjective", _sparse_loss, _sparse_and_batch, why="It returns a gradient of its own."
    ),
    _entry(
        "SparseAutoencoderUpkeep",
        _sparse_upkeep,
        lambda: {"model": _sparse(autoencoder.BatchTopK(2))},
        why="It is an update of a model.",
    ),
    _entry("Classifier", _classify, lambda: _classifier() | {"x": binary(N_FEATURES)}, "", ("model", "x")),
    _entry(
        "ClassificationObjective",
        _classification_loss,
        lambda: _classifier() | {"rows": binary(5, N_FEATURES), "labels": classes(5, 3), "key": key()},
        "",
        ("model",),
    ),
    _entry("BernoulliOutput", _bernoulli_output, _output_arguments, "", ("parameters", "x")),
    _entry(
        "GaussianOutput",
        _gaussian_output,
        lambda: _output_arguments() | {"scale": number(0.5)},
        "",
        ("parameters", "x", "scale"),
    ),
    *(
        _entry(
            name, _noise(getattr(autoencoder, name), setting), _noise_arguments(setting), "", differentiable
        )
        for name, (setting, differentiable) in NOISES.items()
    ),
    *(
        _entry(
            name,
            lambda activations, selection=selection: selection()(activations),
            _activations,
            "",
            ("activations",),
        )
        for name, selection in SELECTIONS.items()
    ),
    *(
        _entry(
            name,
            lambda activations, selection=selection: selection().select_batch(activations),
            _batch_of_activations,
            "batch",
            ("activations",),
        )
        for name, selection in SELECTIONS.items()
    ),
    _entry(
        "JumpReLU",
        _jump_relu,
        lambda: _activations() | {"log_threshold": normal(8)},
        "",
        ("activations",),
        why=PSEUDO,
    ),
    _entry(
        "JumpReLU",
        _jump_relu_batch,
        lambda: _batch_of_activations() | {"log_threshold": normal(8)},
        "batch",
        ("activations",),
        why=PSEUDO,
    ),
    _entry(
        "jump_relu",
        autoencoder.jump_relu,
        lambda: {"activations": normal(8), "threshold": positive(8), "bandwidth": number(0.5)},
        "",
        ("activations",),
        why=PSEUDO,
    ),
    _entry(
        "top_k",
        lambda activations: autoencoder.top_k(activations, 2),
        lambda: {"activations": normal(8)},
        "",
        ("activations",),
    ),
    _entry(
        "top_k_batch",
        lambda activations: autoencoder.top_k_batch(activations, 2),
        lambda: {"activations": normal(5, 8)},
        "",
        ("activations",),
    ),
    _entry(
        "contraction",
        autoencoder.contraction,
        lambda: {"autoencoder": _plain(), "x": positive(N_FEATURES)},
        "",
        ("autoencoder", "x"),
    ),
    _entry(
        "jacobian_norm",
        lambda model, x: autoencoder.jacobian_norm(_encoder_of(model), x),
        _plain_and_datum,
        "",
        ("model", "x"),
    ),
    _entry(
        "jacobian_singular_values",
        lambda model, x: autoencoder.jacobian_singular_values(_encoder_of(model), x),
        _plain_and_datum,
        "",
        ("model", "x"),
    ),
    _entry(
        "cross_entropy",
        autoencoder.cross_entropy,
        lambda: {"logits": normal(N_FEATURES), "x": binary(N_FEATURES)},
        "",
        ("logits", "x"),
    ),
    _entry(
        "squared_error",
        autoencoder.squared_error,
        lambda: {"reconstruction": normal(N_FEATURES), "x": binary(N_FEATURES)},
        "",
        ("reconstruction", "x"),
    ),
    _entry(
        "TiedLinear",
        _tied,
        lambda: {"layer": _plain().encoder[0], "bias": normal(N_FEATURES), "y": normal(N_HIDDEN)},
        "",
        ("layer", "bias", "y"),
    ),
    *others("autoencoder", "host program", "fit_stacked_autoencoder"),
    *others(
        "autoencoder", "abstract class", "AbstractAutoencoder AbstractNoise AbstractOutput AbstractSelection"
    ),
    *others("autoencoder", "record", "LogLikelihood SparseAutoencoderState StackedAutoencoder"),
]
