"""What cannot be meant is refused, by name, with what was expected and what came."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from boltzmann_truth import (
    array,
    zeros,
)

from neurojax import boltzmann as bm
from neurojax.training import fit

KEY = jax.random.key(0)
RBM = bm.BernoulliRBM(zeros(4, 3), zeros(4), zeros(3))
GAUSSIAN = bm.GaussianBernoulliRBM(zeros(4, 3), zeros(4), zeros(3))
POTTS = bm.PottsRBM(zeros(4, 3), zeros(4), zeros(3), 2)
ZEROS, GREY = np.zeros((5, 4), "float32"), np.full((5, 4), 0.5, "float32")
BASE = zeros(4)


def gaussian(variance=1.0, bounds=(0.1, 2.0)):
    return bm.GaussianBernoulliRBM(zeros(4, 3), BASE, zeros(3), variance, variance_bounds=bounds)


def reverse(samples, n_temperatures=5):
    return bm.log_partition_reverse_ais(
        RBM, array(samples), KEY, base_visible_bias=BASE, n_temperatures=n_temperatures
    )


def ais(base=BASE, **settings):
    return bm.log_partition_ais(RBM, KEY, base_visible_bias=base, **settings)


def learn(phase, state, data=ZEROS, rbm=RBM):
    objective = phase if isinstance(phase, bm.ContrastiveObjective) else bm.ContrastiveObjective(phase)
    return fit(rbm, objective, array(data), optimizer=optax.sgd(0.1), n_steps=1, key=KEY, state=state)


def tempering(n_temperatures=3, **settings):
    return bm.ParallelTempering(settings.pop("base", BASE), n_temperatures=n_temperatures, **settings)


def replicas(n_temperatures):
    return bm.Replicas(zeros(n_temperatures, 2, 3), array(0, "int32"))


def labels(values, n_classes=3):
    return bm.append_labels(zeros(2, 4), array(values), n_classes)


CASES = {
    # Machines.
    "rank of the weights": (lambda: bm.BernoulliRBM(BASE, BASE, BASE), r"weights: expected 2 axes .*\(4,\)"),
    "visible bias": (
        lambda: bm.BernoulliRBM(zeros(4, 3), zeros(3), zeros(3)),
        r"visible_bias: expected shape \(4,\).*got shape \(3,\)",
    ),
    "hidden bias": (
        lambda: bm.BernoulliRBM(zeros(4, 3), BASE, BASE),
        r"hidden_bias: expected shape \(3,\).*got shape \(4,\)",
    ),
    "no unit": (
        lambda: bm.BernoulliRBM(zeros(4, 0), BASE, zeros(0)),
        "at least one unit on each",
    ),
    "complex weights": (
        lambda: bm.BernoulliRBM(array(np.zeros((4, 3), complex)), BASE, zeros(3)),
        "weights: expected real numbers, got dtype complex64",
    ),
    "a column of variances": (
        lambda: gaussian(np.ones((4, 1))),
        r"variance: expected shape \(4,\), a number or one for each visible unit, got shape \(4, 1\)",
    ),
    "a single variance in an array": (lambda: gaussian(np.ones(1)), r"variance: expected shape \(4,\)"),
    "variance at a bound": (lambda: gaussian(2.0), r"variance: expected numbers inside \(0.1, 2.0\)"),
    "one variance below": (lambda: gaussian(np.array([1, 1, 0.05, 1])), "variance: expected numbers inside"),
    "bounds": (
        lambda: gaussian(1.0, (2.0, 0.1)),
        r"variance_bounds: expected 0 < low < high, got \(2.0, 0.1",
    ),
    "bound of zero": (lambda: gaussian(1.0, (0.0, 2.0)), "variance_bounds: expected 0 < low < high"),
    "infinite bound": (lambda: gaussian(1.0, (0.1, np.inf)), "variance_bounds: expected 0 < low < high"),
    "one state": (
        lambda: bm.PottsRBM(zeros(4, 3), BASE, zeros(3), 1),
        "n_states: .* ≥ 2, got 1",
    ),
    "three states of four rows": (
        lambda: bm.PottsRBM(zeros(4, 3), BASE, zeros(3), 3),
        r"weights: expected a multiple of 3 rows \(n_states\), got shape \(4, 3\)",
    ),
    # Data.
    "empty data": (lambda: bm.BernoulliRBM.from_data(ZEROS[:0], 3, KEY), r"at least one row.*\(0, 4\)"),
    "data outside": (lambda: bm.BernoulliRBM.from_data(ZEROS - 1, 3, KEY), r"data: .*\[0, 1\], got -1 to -1"),
    "data above": (
        lambda: bm.PottsRBM.from_data(GREY * 4, 3, KEY, n_states=2),
        r"data: .*\[0, 1\], got 2 to 2",
    ),
    "data not finite": (lambda: bm.BernoulliRBM.from_data(GREY * np.nan, 3, KEY), "20 that are NaN"),
    "one row": (lambda: bm.BernoulliRBM.from_data(ZEROS[0], 3, KEY), r"data: expected 2 axes .*\(4,\)"),
    "no hidden unit": (lambda: bm.BernoulliRBM.from_data(ZEROS, 0, KEY), "n_hidden: .* ≥ 1, got 0"),
    "scale": (lambda: bm.BernoulliRBM.from_data(ZEROS, 3, KEY, scale=0.0), "scale: expected a number > 0"),
    "no pseudo-count": (lambda: RBM.base_visible_bias(ZEROS, 0.0), "pseudo_count: expected a number > 0"),
    "base of other data": (lambda: RBM.base_visible_bias(ZEROS[:, :3]), "data: expected 4 numbers"),
    # Samples.
    "v of another size": (lambda: bm.free_energy(RBM, zeros(3)), r"v: expected 4 numbers.*\(3,\)"),
    "many v": (lambda: bm.free_energy(RBM, zeros(2, 4)), r"v: .*one sample \(use vmap.*\(2, 4\)"),
    "h of another size": (lambda: bm.energy(RBM, BASE, BASE), r"h: expected shape \(3,\).*\(4,\)"),
    "grey likelihood": (
        lambda: bm.log_likelihood(RBM, array([0, 1, 0.5, 1]), 0.0),
        "v: expected a state of BernoulliRBM, got 1 of 4 numbers that are part of none.*binarize",
    ),
    "two states on": (
        lambda: bm.log_likelihood(POTTS, array(np.ones(4)), 0.0),
        "state of PottsRBM, got 4 of 4 numbers",
    ),
    "grey pseudo-likelihood": (lambda: bm.pseudo_log_likelihood(RBM, BASE + 0.5, KEY), "v: expected a state"),
    "exact, grey": (lambda: bm.pseudo_log_likelihood_exact(RBM, BASE + 0.5), "v: expected a state"),
    "Gaussian": (lambda: bm.pseudo_log_likelihood(GAUSSIAN, BASE, KEY), "binary visible units, got Gaussian"),
    "exact, Potts": (lambda: bm.pseudo_log_likelihood_exact(POTTS, BASE), "binary visible units, got Potts"),
    "gap of nothing": (lambda: bm.free_energy_gap(RBM, ZEROS, ZEROS[:0]), "validation: .*at least one row"),
    "gap of others": (lambda: bm.free_energy_gap(RBM, ZEROS[:, :3], ZEROS), "train: expected 4 numbers"),
    "other number of samples": (
        lambda: bm.adversarial_accuracy(ZEROS, ZEROS[:4]),
        "samples: expected 5 rows",
    ),
    "other features": (lambda: bm.adversarial_accuracy(ZEROS, ZEROS[:, :3]), "samples: expected 4 features"),
    "one row each": (lambda: bm.adversarial_accuracy(ZEROS[:1], ZEROS[:1]), "data: expected at least 2 rows"),
    # Partition functions.
    "one chain": (lambda: ais(n_chains=1), "n_chains: .* ≥ 2, got 1"),
    "one temperature": (
        lambda: jax.eval_shape(lambda: ais(n_temperatures=1)),
        "n_temperatures: .* ≥ 2, got 1",
    ),
    "base of another size": (
        lambda: ais(zeros(3)),
        r"base_visible_bias: expected shape \(4,\).*\(3,\)",
    ),
    "base not finite": (lambda: ais(BASE + jnp.inf), "base_visible_bias: expected finite numbers, got 4"),
    "one sample": (lambda: reverse(ZEROS[:1]), r"samples: expected at least 2 rows .*\(1, 4\)"),
    "grey samples": (lambda: reverse(GREY), "samples: expected a state.*20 of 20"),
    "other samples": (lambda: reverse(ZEROS[:, :3]), "samples: expected 4 numbers"),
    "one temperature back": (lambda: reverse(ZEROS, 1), "n_temperatures: .* ≥ 2, got 1"),
    # Learning.
    "CD-0": (lambda: bm.ContrastiveDivergence(0), "n_steps: expected a whole number ≥ 1, got 0"),
    "PCD-0": (lambda: bm.PersistentContrastiveDivergence(0), "n_steps: expected a whole number ≥ 1, got 0"),
    "tempering of one": (lambda: tempering(1), "n_temperatures: expected a whole number ≥ 2, got 1"),
    "tempering of no step": (lambda: tempering(n_steps=0), "n_steps: expected a whole number ≥ 1, got 0"),
    "no chain": (lambda: bm.ContrastiveObjective().init(RBM, 0, KEY), "n_chains: .* ≥ 1, got 0"),
    "no replica": (lambda: tempering().init(RBM, 0, KEY), "n_chains: .* ≥ 1, got 0"),
    "decay": (lambda: bm.ContrastiveObjective(weight_decay=-0.1), "weight_decay: expected a number ≥ 0"),
    "sparsity": (lambda: bm.ContrastiveObjective(sparsity=-1.0), "sparsity: expected a number ≥ 0"),
    "sparsity's target": (
        lambda: bm.ContrastiveObjective(sparsity_target=1.5),
        r"sparsity_target: expected a number in \[0, 1\], got 1.5",
    ),
    "rate": (
        lambda: bm.CentredGradient(offset_rate=1.5),
        r"^offset_rate: expected a number in \[0, 1\], got 1.5",
    ),
    "mean of other data": (
        lambda: bm.CentredGradient().init(RBM, 2, KEY, data_mean=zeros(3)),
        "data_mean: expected 4 numbers",
    ),
    "no chains": (
        lambda: learn(bm.PersistentContrastiveDivergence(), None),
        r"state: expected PersistentChains.* from objective\.init.*got NoneType",
    ),
    "chains of PCD": (
        lambda: learn(tempering(), bm.PersistentChains(zeros(2, 3))),
        r"state: expected Replicas.* from objective\.init.*got PersistentChains",
    ),
    # By name, and not by errors of shapes.
    "chains of another machine": (
        lambda: learn(bm.PersistentContrastiveDivergence(), bm.PersistentChains(zeros(2, 5))),
        r"state: .*3.*\(2, 5\)",
    ),
    "replicas at other temperatures": (
        lambda: learn(tempering(3), replicas(5)),
        "state: ",
    ),
    "base of tempering": (
        lambda: learn(tempering(base=zeros(3)), replicas(3)),
        r"base_visible_bias: expected shape \(4,\).*\(3,\)",
    ),
    "data of another size": (
        lambda: learn(bm.ContrastiveDivergence(), None, ZEROS[:, :3]),
        r"data: expected 4 numbers, one for each visible unit, on axis 1, got shape \(5, 3\)",
    ),
    "grey levels as data": (
        lambda: fit(RBM, bm.CentredGradient(), 255 + ZEROS, optimizer=optax.sgd(0.1), n_steps=1, key=KEY),
        r"data: expected numbers in \[0, 1\], got 255 to 255",
    ),
    "chains for CD": (
        lambda: learn(bm.ContrastiveDivergence(), bm.PersistentChains(zeros(2, 3))),
        "state: expected None, CD keeps no chains, got PersistentChains",
    ),
    "one sample as a batch": (
        lambda: bm.ContrastiveObjective(bm.ContrastiveDivergence())(RBM, None, BASE, KEY),
        r"data: expected 2 axes \(batch visible\), got shape \(4,\)",
    ),
    "a column as the data's mean": (
        lambda: bm.CentredGradient().init(RBM, 2, KEY, data_mean=zeros(2, 4)),
        r"data_mean: expected shape \(4,\), one sample .*got shape \(2, 4\)",
    ),
    "two sparsities": (
        lambda: bm.ContrastiveObjective(sparsity=np.ones(2)),
        r"sparsity: expected 0 axes .*\(2,\)",
    ),
    # Labels.
    "label too large": (lambda: labels([0, 3]), r"labels: expected 0 to 2 \(n_classes\), got 0 to 3"),
    "labels with fractions": (lambda: labels([0.0, 1.5]), "labels: expected integers, got dtype float"),
    "negative label": (lambda: labels([-1, 0]), r"labels: expected 0 to 2 \(n_classes\), got -1 to 0"),
    "number of labels": (
        lambda: labels([1]),
        r"labels: expected shape \(2,\), one for each row, got .*\(1,\)",
    ),
    "one class": (lambda: labels([0, 0], 1), "n_classes: expected a whole number ≥ 2, got 1"),
    "features and classes": (
        lambda: bm.class_log_probabilities(RBM, zeros(3), 2),
        r"features: expected shape \(2,\), 4 visible units less 2 classes, got shape \(3,\)",
    ),
    "a column of labels": (
        lambda: labels([[0], [1]]),
        r"labels: expected shape \(2,\), one for each row, got shape \(2, 1\)",
    ),
    "clamps as numbers": (
        lambda: bm.clamped_gibbs_step(RBM, BASE, BASE, KEY),
        "is_clamped: expected truth values, got dtype float32; compare",
    ),
    "a log Z for each sample": (
        lambda: bm.log_likelihood(RBM, BASE, zeros(3)),
        r"log_partition: expected 0 axes .*\(3,\)",
    ),
    "many rows' pseudo-likelihood": (
        lambda: bm.pseudo_log_likelihood(RBM, zeros(2, 4), KEY),
        r"v: expected shape \(4,\), one sample \(use vmap",
    ),
    "features of a network": (
        lambda: bm.DeepBeliefNetwork((RBM,)).features(zeros(3)),
        r"v: expected 4 numbers, one for each visible unit, got shape \(3,\)",
    ),
    "top units of a network": (
        lambda: bm.DeepBeliefNetwork((RBM,)).generate(zeros(3), KEY),
        r"top_visible: expected 4 numbers",
    ),
    "h of another machine": (
        lambda: RBM.visible_input(zeros(4)),
        "h: expected 3 numbers",
    ),
    "clamps": (
        lambda: bm.clamped_gibbs_step(RBM, BASE, array(np.zeros(3, bool)), KEY),
        r"is_clamped: expected shape \(4,\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name, untyped):
    call, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_constant_pixels_are_no_error():
    for constant in (0.0, 1.0):
        rbm = bm.BernoulliRBM.from_data(np.full((50, 4), constant, "float32"), 3, KEY)
        np.testing.assert_allclose(rbm.visible_bias, (2 * constant - 1) * np.log(51), rtol=1e-5)


def test_values_under_jit_are_not_checked_and_shapes_are(untyped):
    likelihood = jax.jit(lambda v: bm.log_likelihood(RBM, v, 0.0))
    assert np.isfinite(likelihood(BASE + 0.5))
    with pytest.raises(ValueError, match="v: expected 4 numbers"):
        likelihood(zeros(3))


def test_samples_and_machines_of_two_precisions(x64):
    # Not an error of a loop whose dtypes change, which tracing would raise.
    double = bm.BernoulliRBM(zeros(4, 3), BASE.astype(float), zeros(3))
    single = jax.tree.map(lambda x: x.astype("float32"), double)
    rows = array(np.zeros((2, 4), "float32"))

    def run():
        back = bm.log_partition_reverse_ais(double, rows, KEY, base_visible_bias=zeros(4))
        loss = bm.ContrastiveObjective(bm.ContrastiveDivergence(2))(double, None, rows, KEY)[0]
        tempered = bm.ContrastiveObjective(bm.ParallelTempering(zeros(4), n_temperatures=3, n_steps=2))
        return back.value, loss, tempered(single, tempered.init(single, 2, KEY), rows, KEY)[0]

    assert [x.dtype for x in jax.eval_shape(run)] == ["float64", "float64", "float32"]
