"""What test error do stacked autoencoders reach on MNIST, with and without pretraining?

Layers of sigmoid units are learned greedily, then fine-tuned with a softmax head; 50,000 training digits,
10,000 held back by which the epoch is chosen, and 10,000 test digits that choose nothing. Contenders:
stacked denoising autoencoders (masking 0.1, 0.2, 0.3), stacked contractive ones, and the same network
without pretraining, all fine-tuned in the same way. Published: 1.3 % (tutorial, SdA of three layers of
1000), 1.28 % (Vincent et al. 2010, SDAE-3), 1.14 % (Rifai et al. 2011, CAE-2).

    python benchmarks/autoencoder_classification.py [--kinds denoising contractive none] [--long] [--quick]
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from matplotlib.figure import Figure

from neurojax.autoencoder import (
    ClassificationObjective,
    Classifier,
    MaskingNoise,
    ReconstructionObjective,
    fit_stacked_autoencoder,
)
from neurojax.metrics import classification_error
from neurojax.training import Evaluation, fit

KINDS = ("denoising", "contractive", "none")


class Setting(NamedTuple):
    """Sizes and lengths of the training."""

    sizes: tuple[int, ...] = (1000, 1000, 1000)
    pretraining_epochs: int = 15
    pretraining_step_size: float = 1e-3
    pretraining_batch: int = 100
    fine_tuning_epochs: int = 40
    fine_tuning_step_size: float = 1e-3
    fine_tuning_batch: int = 100
    fine_tuning_corruption: float = 0.2
    contraction: float = 0.1


QUICK = Setting(sizes=(50, 50), pretraining_epochs=1, fine_tuning_epochs=2)
LONG = Setting(pretraining_epochs=50, fine_tuning_epochs=150)


def digits(is_quick: bool) -> tuple[tuple, tuple, tuple, str]:
    """Return training, held-back and test rows with labels, and their name."""
    train, test, name = common.digits(is_quick)
    n_train = 50_000 if len(train.labels) == 60_000 else 4000
    rows, test_rows = train.images.reshape(-1, 784), test.images.reshape(-1, 784)
    return (
        (rows[:n_train], train.labels[:n_train]),
        (rows[n_train:], train.labels[n_train:]),
        (test_rows, test.labels),
        name,
    )


def objectives(kind: str, setting: Setting) -> list[ReconstructionObjective]:
    """Return the objective of each layer."""
    if kind == "contractive":
        return [ReconstructionObjective(contraction=setting.contraction) for _ in setting.sizes]
    rates = [0.1, 0.2, 0.3, *[0.3] * len(setting.sizes)]
    return [ReconstructionObjective(corruption=MaskingNoise(rate)) for rate in rates[: len(setting.sizes)]]


def decayed(step_size: float, n_steps: int) -> optax.GradientTransformation:
    """Return Adam with a step size that falls to 0 along a cosine."""
    return optax.adam(optax.cosine_decay_schedule(step_size, n_steps))


@eqx.filter_jit
def error_of(classifier: Classifier, rows: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of rows that are taken for another class."""
    scores = jax.lax.map(classifier.log_probabilities, rows, batch_size=1000)
    return classification_error(scores, labels)


def learn(kind: str, setting: Setting, train: tuple, held_back: tuple, seed: int) -> tuple[Classifier, Any]:
    """Pretrain (unless kind is "none") and fine-tune; return the classifier best on the digits held back."""
    stack_key, fit_key = jax.random.split(jax.random.key(seed))
    n_steps = setting.pretraining_epochs * (len(train[0]) // setting.pretraining_batch)
    stack = fit_stacked_autoencoder(
        train[0], setting.sizes, objectives=objectives(kind, setting), is_pretrained=kind != "none",
        optimizer=decayed(setting.pretraining_step_size, n_steps), n_steps=n_steps,
        batch_size=setting.pretraining_batch, key=stack_key,
    )  # fmt: skip
    for layer, history in enumerate(stack.histories):
        first, last = history["reconstruction_loss"][[0, -1]]
        print(f"layer {layer}: reconstruction loss {first:.1f} to {last:.1f} nats", flush=True)
    epoch = len(train[0]) // setting.fine_tuning_batch
    n_steps = setting.fine_tuning_epochs * epoch

    def evaluate(model, state, key):
        error = error_of(model, *held_back)
        print(f"held-back error {100 * float(error):.2f} %", flush=True)
        return {"loss": error, "error": error}

    result = fit(
        Classifier.from_autoencoder(stack.autoencoder, 10),
        ClassificationObjective(MaskingNoise(setting.fine_tuning_corruption)), train,
        optimizer=decayed(setting.fine_tuning_step_size, n_steps), n_steps=n_steps,
        batch_size=setting.fine_tuning_batch, key=fit_key,
        evaluate=Evaluation(evaluate, epoch, keep_best=True), steps_per_block=epoch,
    )  # fmt: skip
    return result.model, result.history


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["denoising", "none"])
    parser.add_argument("--long", action="store_true", help="more epochs, for the published figures")
    arguments = parser.parse_args()
    setting = QUICK if arguments.quick else LONG if arguments.long else Setting()
    train, held_back, test, name = digits(arguments.quick)
    print({"data": name, **setting._asdict()}, common.machine(), sep="\n", flush=True)
    table, curves = [], {}
    for kind in arguments.kinds:
        for seed in range(arguments.repeats):
            begin = time.perf_counter()
            classifier, history = learn(kind, setting, train, held_back, seed)
            error, size = float(error_of(classifier, *test)), len(test[0])
            table.append({
                "pretraining": kind, "seed": seed, "test error, %": 100 * error,
                "standard error, %": 100 * (error * (1 - error) / size) ** 0.5,
                "held-back error, %": 100 * float(error_of(classifier, *held_back)),
                "minutes": (time.perf_counter() - begin) / 60,
            })  # fmt: skip
            common.print_table(table[-1:])
            curves[f"{kind}, seed {seed}"] = history.evaluation
    suffix = "_long" if arguments.long else ""
    common.save_results(
        arguments.results, f"autoencoder_classification{suffix}", table,
        {"data": name, "epochs chosen by": "held-back digits", **setting._asdict()}, _plot(curves),
    )  # fmt: skip


def _plot(curves: dict[str, Any]) -> Figure:
    figure = Figure((6, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, evaluations in curves.items():
        errors = 100 * jnp.asarray(evaluations["error"])
        axes.plot(range(1, len(errors) + 1), errors, label=name)
    axes.set(xlabel="epoch of fine-tuning", ylabel="held-back error, %", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
