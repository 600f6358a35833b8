"""What cannot be meant is refused, by name, with what was expected and what came."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_truth import (
    array,
    drawn,
    layer,
    zeros,
)

from neurojax import autoencoder as ae
from neurojax.training import fit

KEY = jax.random.key(0)
ROWS = np.full((5, 6), 0.5, "float32")
PLAIN = drawn(lambda: ae.Autoencoder.from_sizes(6, [4], KEY), 0)
UNTIED = drawn(lambda: ae.Autoencoder.from_sizes(6, [4], KEY, is_tied=False), 0)
VAE = drawn(lambda: ae.VariationalAutoencoder.from_sizes(6, [4], 2, KEY), 0)
REAL_VAE = eqx.tree_at(lambda vae: vae.output, VAE, ae.GaussianOutput())
CLASSIFIER = drawn(lambda: ae.Classifier.from_autoencoder(PLAIN, 3), 0)
SAE = drawn(lambda: ae.SparseAutoencoder.from_data(ROWS, 8, KEY, selection=ae.TopK(2)), 0)
SPARSE = ae.SparseAutoencoderObjective()
SGD = optax.sgd(0.1)


def dense(n_out, n_in):
    return layer(np.zeros((n_out, n_in)), np.zeros(n_out), "float32")


def learn(model, objective, data, **settings):
    data = jax.tree.map(jnp.asarray, data)
    return fit(model, objective, data, optimizer=SGD, n_steps=1, key=KEY, progress=False, **settings)


def plain(data, **settings):
    return learn(PLAIN, ae.ReconstructionObjective(**settings), data)


def stacked(data=ROWS, sizes=(4, 3), **settings):
    settings = {"n_steps": 1, "batch_size": 5, "key": KEY, "progress": False, **settings}
    return ae.fit_stacked_autoencoder(data, sizes, optimizer=SGD, **settings)


def classify(rows, labels):
    return learn(CLASSIFIER, ae.ClassificationObjective(), (rows, labels))


def sparse(selection, n_units=8):
    return drawn(lambda: ae.SparseAutoencoder.from_data(ROWS, n_units, KEY, selection=selection), 0)


RATE = r"rate: expected a number in \[0, 1\), got "
RANGE = r"data: expected numbers in \[0, 1\], got "
CASES = {
    # Data.
    "bright pixels": (lambda: plain(ROWS * 510), RANGE + "255 to 255"),
    "negative pixels": (lambda: plain(ROWS - 1), RANGE + "-0.5 to -0.5"),
    "pixels of a variational machine": (lambda: learn(VAE, ae.ELBOObjective(), ROWS * 4), RANGE + "2 to 2"),
    "pixels of the bound": (
        lambda: learn(VAE, ae.ImportanceWeightedObjective(2), ROWS * 4),
        RANGE + "2 to 2",
    ),
    "no probabilities": (
        lambda: learn(REAL_VAE, ae.ELBOObjective(is_binarized=True), ROWS * 4),
        RANGE + "2 to 2",
    ),
    "no probabilities for the bound": (
        lambda: learn(REAL_VAE, ae.ImportanceWeightedObjective(2, is_binarized=True), ROWS * 4),
        RANGE + "2 to 2",
    ),
    "images with axes": (
        lambda: plain(ROWS.reshape(5, 2, 3)),
        r"data: expected 2 axes \(samples features\), got shape \(5, 2, 3\)",
    ),
    "images of another size": (
        lambda: plain(ROWS[:, :4]),
        r"data: expected 6 numbers, one for each feature of the model, on axis 1, got shape \(5, 4\)",
    ),
    "no image": (lambda: plain(ROWS[:0]), "data: expected at least one row, got none"),
    "complex numbers": (
        lambda: plain(ROWS.astype(complex)),
        "data: expected real numbers, got .*complex",
    ),
    "not finite": (lambda: plain(ROWS * np.nan), "data: expected finite numbers, got 30 that are NaN"),
    "sparse, not finite": (
        lambda: learn(SAE, SPARSE, ROWS * np.inf, state=SPARSE.init(SAE)),
        "data: expected finite numbers, got 30",
    ),
    "sparse, another size": (
        lambda: learn(SAE, SPARSE, ROWS[:, :4], state=SPARSE.init(SAE)),
        r"data: expected 6 numbers.*\(5, 4\)",
    ),
    "stack, bright pixels": (lambda: stacked(ROWS * 510), RANGE + "255 to 255"),
    "stack without learning, bright pixels": (
        lambda: stacked(ROWS * 510, is_pretrained=False),
        RANGE + "255 to 255",
    ),
    "x of another size": (
        lambda: PLAIN.encode(zeros(5)),
        r"x: expected shape \(6,\).*got shape \(5,\)",
    ),
    "many x": (
        lambda: PLAIN.encode(zeros(2, 6)),
        r"x: expected shape \(6,\).*got shape \(2, 6\)",
    ),
    "code": (lambda: PLAIN.decode(zeros(6)), r"code: expected shape \(4,\).*got shape \(6,\)"),
    "x of a variational machine": (
        lambda: VAE.posterior(zeros(5)),
        r"x: expected shape \(6,\).*\(5,\)",
    ),
    "z": (lambda: VAE.decode(zeros(4)), r"code: expected shape \(2,\).*\(4,\)"),
    "x of a sparse one": (lambda: SAE.encode(zeros(5)), r"x: expected shape \(6,\).*\(5,\)"),
    "code of a sparse one": (lambda: SAE.decode(zeros(5)), r"code: expected shape \(8,\).*\(5,\)"),
    "x of a classifier": (lambda: CLASSIFIER.encode(zeros(5)), r"x: expected shape \(6,\).*\(5,\)"),
    # Corruptions.
    "masks all": (lambda: ae.MaskingNoise(1.0), RATE + "1.0"),
    "masks less than none": (lambda: ae.MaskingNoise(-0.1), RATE + "-0.1"),
    "salt": (lambda: ae.SaltAndPepperNoise(1.5), RATE + "1.5"),
    "flips": (lambda: ae.BitFlipNoise(np.nan), RATE + "nan"),
    "Gaussian": (lambda: ae.GaussianNoise(-1.0), "scale: expected a number ≥ 0, got -1.0"),
    # Models.
    "no hidden layer": (
        lambda: ae.Autoencoder.from_sizes(6, [], KEY),
        "n_hidden: number of layers: expected a whole number ≥ 1, got 0",
    ),
    "no hidden unit": (lambda: ae.Autoencoder.from_sizes(6, [4, 0], KEY), "n_hidden: .* ≥ 1, got 0"),
    "no feature": (lambda: ae.Autoencoder.from_sizes(0, [4], KEY), "n_features: .* ≥ 1, got 0"),
    "layers apart": (
        lambda: ae.Autoencoder((dense(4, 6), dense(3, 5)), UNTIED.decoder),
        "encoder: expected layer 1 to take 4 numbers, as layer 0 gives, got 5",
    ),
    "decoder's ends": (
        lambda: ae.Autoencoder(UNTIED.encoder, (dense(5, 4),)),
        "decoder: expected layers from the 4 units of the code to the 6 features, got 4 to 5",
    ),
    "tied of another size": (
        lambda: ae.Autoencoder(PLAIN.encoder, (ae.TiedLinear(zeros(5)),)),
        r"decoder: expected 1 tied layers with biases of \[6\] numbers.*\[\(5,\)\]",
    ),
    "tied in part": (
        lambda: ae.Autoencoder((dense(5, 6), dense(4, 5)), (ae.TiedLinear(zeros(5)), dense(6, 5))),
        r"decoder: expected 2 tied layers .*\[\(5,\), None\]",
    ),
    "no decoder": (lambda: ae.Autoencoder(PLAIN.encoder, ()), "decoder: number of layers: .* ≥ 1, got 0"),
    "scale": (lambda: ae.GaussianOutput(0.0), "scale: expected a number > 0, got 0.0"),
    "no latent unit": (
        lambda: ae.VariationalAutoencoder.from_sizes(6, [], 0, KEY),
        "n_latent: expected a whole number ≥ 1, got 0",
    ),
    "posterior of another size": (
        lambda: ae.VariationalAutoencoder((), dense(5, 6), (dense(6, 2),)),
        "decoder: expected layers from half the posterior layer's numbers to .* 5/2 to 6, got 2 to 6",
    ),
    "atoms of another size": (
        lambda: ae.SparseAutoencoder(dense(8, 5), zeros(8, 6), zeros(6), ae.ReLU()),
        "encoder: expected a layer from 6 features to 8 units, as atoms have, got 5 to 8",
    ),
    "bias of another size": (
        lambda: ae.SparseAutoencoder(dense(8, 6), zeros(8, 6), zeros(8), ae.ReLU()),
        r"decoder_bias: expected shape \(6,\).*\(8,\)",
    ),
    # Selections.
    "k of too many": (lambda: sparse(ae.TopK(9)), "k: expected at most the 8 units there are, got 9"),
    "batch k of too many": (
        lambda: sparse(ae.BatchTopK(9)),
        "k: expected at most the 8 units there are, got 9",
    ),
    "k of nothing": (lambda: ae.TopK(0), "k: expected a whole number ≥ 1, got 0"),
    "k with a fraction": (lambda: ae.TopK(1.5), "k: expected a whole number ≥ 1, got 1.5"),
    "top k": (lambda: ae.top_k(zeros(3), 4), "k: expected at most the 3 units there are, got 4"),
    "top k of a batch": (
        lambda: ae.top_k_batch(zeros(5, 3), 4),
        "k: expected at most the 3 units",
    ),
    "thresholds of others": (
        lambda: sparse(ae.JumpReLU.from_threshold(7)),
        r"log_threshold: expected shape \(8,\), one for each unit, got \(7,\)",
    ),
    "threshold of zero": (
        lambda: ae.JumpReLU.from_threshold(8, 0.0),
        "threshold: expected a number > 0, got 0.0",
    ),
    "no bandwidth": (
        lambda: ae.JumpReLU.from_threshold(8, bandwidth=0.0),
        "bandwidth: expected a number > 0, got 0.0",
    ),
    "no unit": (lambda: sparse(ae.ReLU(), 0), "n_units: expected a whole number ≥ 1, got 0"),
    # Objectives.
    "l0 of TopK": (
        lambda: learn(SAE, ae.SparseAutoencoderObjective(l0=0.5), ROWS, state=SPARSE.init(SAE)),
        "l0: expected 0 where units are not selected by JumpReLU, got 0.5 with TopK",
    ),
    "no state": (
        lambda: learn(SAE, SPARSE, ROWS),
        r"state: expected SparseAutoencoderState, from objective.init\(sae\), got NoneType",
    ),
    "state of another model": (
        lambda: learn(SAE, SPARSE, ROWS, state=SPARSE.init(sparse(ae.TopK(2), 5))),
        r"state.n_unused_steps: expected shape \(8,\).*\(5,\)",
    ),
    "sparsity of tanh": (
        lambda: learn(
            ae.Autoencoder.from_sizes(6, [3], KEY, activation=jnp.tanh),
            ae.ReconstructionObjective(sparsity=1.0),
            ROWS,
        ),
        "sparsity: expected 0 unless codes are those of jax.nn.sigmoid, .* got 1.0 with tanh",
    ),
    "bound of another model": (
        lambda: learn(PLAIN, ae.ELBOObjective(), ROWS),
        "model: expected an instance of VariationalAutoencoder, got Autoencoder",
    ),
    "classes of another model": (
        lambda: learn(PLAIN, ae.ClassificationObjective(), (ROWS, np.zeros(5, int))),
        "model: expected an instance of Classifier, got Autoencoder",
    ),
    "noise of complex numbers": (
        lambda: ae.MaskingNoise(0.5)(np.ones(6, complex), KEY),
        "x: expected real numbers, got dtype complex",
    ),
    "logits of one unit": (
        lambda: ae.cross_entropy(zeros(1), zeros(3)),
        r"x: expected shape \(1,\), as logits, got shape \(3,\)",
    ),
    "a column of data": (
        lambda: ae.cross_entropy(zeros(3), zeros(3, 1)),
        r"x: expected shape \(3,\), as logits, got shape \(3, 1\)",
    ),
    "a column of logits": (lambda: ae.cross_entropy(zeros(3, 1), zeros(3, 1)), "logits: expected 1 axes"),
    "error of a column": (
        lambda: ae.squared_error(zeros(3), zeros(3, 1)),
        r"x: expected shape \(3,\), as reconstruction, got shape \(3, 1\)",
    ),
    "likelihood of a column": (
        lambda: ae.GaussianOutput().negative_log_likelihood(zeros(3), zeros(3, 1)),
        r"x: expected shape \(3,\), as parameters, got shape \(3, 1\)",
    ),
    "bits of a column": (
        lambda: ae.BernoulliOutput().negative_log_likelihood(zeros(3), zeros(3, 1)),
        r"x: expected shape \(3,\), as parameters, got shape \(3, 1\)",
    ),
    "a scale for one of three": (
        lambda: ae.GaussianOutput(array(np.ones(1))).negative_log_likelihood(zeros(3), zeros(3)),
        r"scale: expected one number, or one for each of 3 features, got shape \(1,\)",
    ),
    "thresholds of one": (
        lambda: ae.jump_relu(zeros(3), zeros(1), 0.5),
        r"threshold: expected shape \(3,\), as activations, got shape \(1,\)",
    ),
    "log scales of one": (
        lambda: ae.GaussianPosterior(zeros(3), zeros(1)).divergence(),
        r"log_scale: expected shape \(3,\), as mean, got shape \(1,\)",
    ),
    "z of one": (
        lambda: ae.GaussianPosterior(zeros(3), zeros(3)).log_density(zeros(1)),
        r"z: expected shape \(3,\)",
    ),
    "zs of another size": (
        lambda: ae.log_weights(VAE, zeros(6), zeros(4, 1), VAE.posterior(zeros(6))),
        "zs: expected 2 numbers, one for each latent unit, on axis 1",
    ),
    "labels of fewer rows": (
        lambda: ae.ClassificationObjective()(CLASSIFIER, None, (zeros(3, 6), np.zeros(1, int)), KEY),
        "labels: expected 3 labels, one for each row",
    ),
    "bound of pixels": (
        lambda: ae.elbo(VAE, 2 * array(np.ones(6)), KEY),
        r"x: expected numbers in \[0, 1\], got 2 to 2",
    ),
    "likelihood of pixels": (
        lambda: ae.log_likelihood(VAE, -array(np.ones(6)), KEY, n_samples=5),
        r"x: expected numbers in \[0, 1\], got -1 to -1",
    ),
    "scales of others": (
        lambda: ae.Autoencoder.from_sizes(6, [3], KEY, output=ae.GaussianOutput(array(np.ones(3)))),
        r"scale: expected one number, or one for each of 6 features, got shape \(3,\)",
    ),
    "objective of another model": (
        lambda: learn(SAE, ae.ReconstructionObjective(), ROWS),
        "model: expected an instance of Autoencoder, got SparseAutoencoder",
    ),
    "loss": (lambda: plain(ROWS, loss="mse"), r"loss: expected one of \('likelihood', .*got 'mse'"),
    "contraction": (lambda: plain(ROWS, contraction=-1.0), "contraction: expected a number ≥ 0, got -1.0"),
    "target": (
        lambda: plain(ROWS, sparsity_target=1.5),
        r"sparsity_target: expected a number in \[0, 1\], got 1.5",
    ),
    "auxiliary units": (
        lambda: ae.SparseAutoencoderObjective(n_auxiliary=0),
        "n_auxiliary: expected a whole number ≥ 1, got 0",
    ),
    "dead at once": (lambda: ae.SparseAutoencoderObjective(dead_after=0), "dead_after: .* ≥ 1, got 0"),
    "beta": (lambda: ae.ELBOObjective(beta=-1.0), "beta: expected a number ≥ 0, got -1.0"),
    "no draw": (lambda: ae.ELBOObjective(n_samples=0), "n_samples: .* ≥ 1, got 0"),
    "no weight": (lambda: ae.ImportanceWeightedObjective(0), "n_samples: .* ≥ 1, got 0"),
    "elbo of no draw": (
        lambda: ae.elbo(VAE, zeros(6), KEY, n_samples=0),
        "n_samples: .* ≥ 1, got 0",
    ),
    "one draw": (
        lambda: ae.log_likelihood(VAE, zeros(6), KEY, n_samples=1),
        "n_samples: .* ≥ 2, got 1",
    ),
    "none at once": (
        lambda: ae.log_likelihood(VAE, zeros(6), KEY, n_at_once=0),
        "n_at_once: .* ≥ 1, got 0",
    ),
    # Stacks.
    "objectives of other layers": (
        lambda: stacked(objectives=[ae.ReconstructionObjective()] * 3),
        "objectives: expected one, or one for each of 2 layers, got 3",
    ),
    "no layer": (lambda: stacked(sizes=()), "n_hidden: number of layers: .* ≥ 1, got 0"),
    "a layer of none": (lambda: stacked(sizes=(4, 0)), "n_hidden: expected a whole number ≥ 1, got 0"),
    "batch of more than there is": (lambda: stacked(batch_size=6), "batch_size: .*got 6"),
    # Classifiers.
    "one class": (
        lambda: ae.Classifier.from_autoencoder(PLAIN, 1),
        "n_classes: expected a whole number ≥ 2, got 1",
    ),
    "a head of one class": (
        lambda: ae.Classifier(PLAIN.encoder, dense(1, 4)),
        "head: number of classes: expected a whole number ≥ 2, got 1",
    ),
    "a head of another size": (
        lambda: ae.Classifier(PLAIN.encoder, dense(3, 5)),
        "head: expected a layer from the 4 units of the code, got one from 5",
    ),
    "label too large": (
        lambda: classify(ROWS, np.array([0, 1, 2, 3, 0])),
        "labels: expected 0 to 2, a class each of the head's 3, got 0 to 3",
    ),
    "label below": (lambda: classify(ROWS, np.array([0, 1, 2, -1, 0])), "labels: .*got -1 to 2"),
    "labels with fractions": (
        lambda: classify(ROWS, np.zeros(5, "float32")),
        r"labels: expected one axis of whole numbers, got float32 of shape \(5,\)",
    ),
    "labels of one class each": (
        lambda: classify(ROWS, np.zeros((5, 3), int)),
        r"labels: expected one axis of whole numbers, got int32 of shape \(5, 3\)",
    ),
    "number of labels": (lambda: classify(ROWS, np.zeros(4, int)), r"data\[1\]: .*5.*4"),
    "no labels": (
        lambda: learn(CLASSIFIER, ae.ClassificationObjective(), ROWS),
        r"data: expected \(rows, lab",
    ),
    "rows of another size": (
        lambda: classify(ROWS[:, :4], np.zeros(5, int)),
        r"data\[0\]: expected 6 numbers",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name, untyped):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_real_data_are_welcome_where_units_are_gaussian():
    real = eqx.tree_at(lambda m: m.output, PLAIN, ae.GaussianOutput())
    assert np.isfinite(learn(real, ae.ReconstructionObjective(), ROWS * 510 - 100).history["loss"]).all()


def test_traced_settings_are_not_checked():
    assert jax.jit(lambda rate: ae.MaskingNoise(rate)(array(np.ones(3)), KEY))(0.5).shape == (3,)
    assert jax.jit(lambda scale: ae.GaussianOutput(scale).sample(array(np.ones(3)), KEY))(0.5).shape == (3,)
