"""Does a dictionary trained through inference classify digits better than one learned without labels?

Task-driven dictionary learning (Mairal, Bach & Ponce 2012) on MNIST: the first 10,000 training and the first
5,000 test digits, each minus its own mean and of unit length. From one dictionary learned without labels, one
contender goes on without them, the other trains it, by `Implicit`, together with a linear classifier of the
codes; as many updates each. Then both are treated alike: the same inference, the same multinomial logistic
regression on the codes, λ and the classifier's penalty chosen from the same grids by the error on 2,000
training digits held back. With that choice everything is learned anew on all 10,000, from several random
starts. Beside them classifiers of scikit-learn on pixels, chosen in the same way. Test digits choose nothing.

    python benchmarks/task_driven_mnist.py [--repeats 2] [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from functools import cache
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from neurojax import data, plotting, training
from neurojax.convergence import raise_unless_converged
from neurojax.penalties import ElasticNet
from neurojax.sparse_coding import (
    Dictionary,
    DictionaryUpkeep,
    SparseClassifier,
    SparseCodingObjective,
    TaskDrivenObjective,
    encode_batch,
    normalize_classifier,
)

L2 = 0.01
BATCH = 200
UNSUPERVISED = "dictionary without labels, logistic regression"
TASK_DRIVEN = "dictionary trained for the task, logistic regression"
PIXELS = {
    "pixels, logistic regression": lambda c: LogisticRegression(C=c, max_iter=5000),
    "pixels, support vectors (Gaussian kernel)": lambda c: SVC(C=c),
}


class Setting(NamedTuple):
    """Sizes, grids and lengths of the training."""

    n_train: int = 10_000
    n_held_back: int = 2000
    n_test: int = 5000
    n_atoms: int = 200
    strengths: tuple[float, ...] = (0.05, 0.1)  # λ, of unit-length digits
    inverse_penalties: tuple[float, ...] = (1, 10, 100)  # scikit-learn's C, on codes
    pixel_inverse_penalties: tuple[float, ...] = (0.01, 0.1, 1, 10, 100)
    n_start_epochs: int = 10
    n_epochs: int = 10


QUICK = Setting(1000, 200, 500, 40, (0.1,), (1, 10), (0.1, 1), 2, 2)


class Digits(NamedTuple):
    """Pixels in [0, 1], the same as the dictionary sees them, and classes."""

    pixels: np.ndarray
    xs: np.ndarray
    labels: np.ndarray

    def rows(self, start: int, end: int) -> Digits:
        """Return some of the digits."""
        return Digits(*(array[start:end] for array in self))


class Learned(NamedTuple):
    """What one λ gives: the common start, both dictionaries, the history, and seconds for each stage."""

    start: Dictionary
    dictionaries: dict[str, Dictionary]
    history: training.History
    seconds: dict[str, float]


class Choice(NamedTuple):
    """What the held-back digits chose."""

    error: float
    strength: float | None
    inverse_penalty: float


def load(split: Any, n_digits: int) -> Digits:
    """Load the first digits of a split."""
    images, labels = data.mnist(split)
    pixels = np.asarray(images[:n_digits]).reshape(n_digits, -1)
    xs = pixels - pixels.mean(axis=1, keepdims=True)
    return Digits(pixels, xs / np.linalg.norm(xs, axis=1, keepdims=True), np.asarray(labels[:n_digits]))


def make_penalty(strength: float) -> ElasticNet:
    """Return the penalty of the codes."""
    return ElasticNet(strength, L2)


@cache  # a program is compiled once for each optimiser object
def unsupervised_optimizer(n_steps: int) -> optax.GradientTransformation:
    """Return Adam with a cosine schedule."""
    return optax.adam(optax.cosine_decay_schedule(5e-3, n_steps))


@cache
def task_optimizer(n_steps: int) -> optax.GradientTransformation:
    """Return the same with a step size for the atoms and one for the classifier."""
    transforms: dict[Hashable, optax.GradientTransformation] = {
        name: optax.adam(optax.cosine_decay_schedule(step_size, n_steps))
        for name, step_size in (("atoms", 1e-2), ("classifier", 3e-2))
    }

    def labels(model: SparseClassifier) -> SparseClassifier:
        names = jax.tree.map(lambda _: "classifier", model)
        return eqx.tree_at(lambda m: m.dictionary.atoms, names, "atoms")

    return optax.partition(transforms, labels)


def encode_all(dictionary: Dictionary, xs: np.ndarray, strength: float) -> np.ndarray:
    """Return certified codes: the relative duality gap of each is at most 1e-4."""
    solution = encode_batch(dictionary, xs, make_penalty(strength), tol=1e-4, steps_per_check=20)
    return np.asarray(raise_unless_converged(solution).value)


def fit_classifier(codes: np.ndarray, labels: np.ndarray, inverse_penalty: float) -> LogisticRegression:
    """Fit the classifier that judges both dictionaries."""
    return LogisticRegression(C=inverse_penalty, max_iter=5000).fit(codes, labels)


def learn_without_labels(start: Dictionary, digits: Digits, strength: float, n_epochs: int, seed: int):
    """Learn atoms that reconstruct."""
    n_steps = n_epochs * (len(digits.xs) // BATCH)
    return training.fit(
        start,
        SparseCodingObjective(make_penalty(strength), tol=1e-2),
        digits.xs,
        optimizer=unsupervised_optimizer(n_steps),
        n_steps=n_steps,
        batch_size=BATCH,
        key=jax.random.key(seed),
        after_update=DictionaryUpkeep(),
        progress=False,
    ).model


def learn_for_the_task(
    start: Dictionary, digits: Digits, strength: float, n_epochs: int, seed: int, held_back: Digits | None
) -> training.FitResult:
    """Train atoms and classifier together; the classifier starts as, and has the penalty of, C = 1."""
    first = fit_classifier(encode_all(start, digits.xs, strength), digits.labels, 1.0)
    model = SparseClassifier(start, np.float32(first.coef_.T), np.float32(first.intercept_))
    n_batches = len(digits.xs) // BATCH

    def evaluation(model: SparseClassifier, state: Any, key: Any) -> dict[str, float]:
        assert held_back is not None
        return {"loss": error_of(model, held_back, strength)}

    return training.fit(
        model,
        TaskDrivenObjective(
            make_penalty(strength), 1 / len(digits.xs), tol=1e-5, max_steps=500, steps_per_check=20
        ),
        (digits.xs, digits.labels),
        optimizer=task_optimizer(n_epochs * n_batches),
        n_steps=n_epochs * n_batches,
        batch_size=BATCH,
        key=jax.random.key(seed),
        after_update=normalize_classifier,
        evaluate=None if held_back is None else training.Evaluation(evaluation, n_batches),
        progress=False,
    )


def error_of(model: SparseClassifier, digits: Digits, strength: float) -> float:
    """Return the share of digits that the jointly trained classifier gets wrong."""
    guesses = jnp.argmax(model.logits(encode_all(model.dictionary, digits.xs, strength)), axis=1)
    return float(np.mean(np.asarray(guesses) != digits.labels))


def learn(
    digits: Digits, strength: float, setting: Setting, seed: int, held_back: Digits | None = None
) -> Learned:
    """Learn a dictionary without labels, and go on from it without and with them."""
    rows = np.random.default_rng(seed).permutation(len(digits.xs))[: setting.n_atoms]
    times = [time.perf_counter()]
    start = learn_without_labels(Dictionary(digits.xs[rows]), digits, strength, setting.n_start_epochs, seed)
    times.append(time.perf_counter())
    longer = learn_without_labels(start, digits, strength, setting.n_epochs, seed + 100)
    times.append(time.perf_counter())
    taught = learn_for_the_task(start, digits, strength, setting.n_epochs, seed + 100, held_back)
    times.append(time.perf_counter())
    dictionaries = {UNSUPERVISED: longer, TASK_DRIVEN: taught.model.dictionary}
    common_start, without, with_labels = np.diff(times).tolist()
    seconds = {UNSUPERVISED: common_start + without, TASK_DRIVEN: common_start + with_labels}
    print(
        f"λ = {strength}, seed {seed}: {without:.0f} s without labels, {with_labels:.0f} s with", flush=True
    )
    return Learned(start, dictionaries, taught.history, seconds)


def choose(scores: list[Choice]) -> Choice:
    """Return the lowest error; of equals the first."""
    return min(scores, key=lambda score: score.error)


def search(seen: Digits, held_back: Digits, setting: Setting) -> tuple[dict[str, list[Choice]], dict]:
    """Return the held-back errors over the grids, for each contender, and what was learned for each λ."""
    scores: dict[str, list[Choice]] = {UNSUPERVISED: [], TASK_DRIVEN: []}
    learned = {}
    for strength in setting.strengths:
        learned[strength] = learn(seen, strength, setting, 0, held_back)
        for contender, dictionary in learned[strength].dictionaries.items():
            codes, held_codes = (encode_all(dictionary, d.xs, strength) for d in (seen, held_back))
            for c in setting.inverse_penalties:
                model = fit_classifier(codes, seen.labels, c)
                error = 1 - float(model.score(held_codes, held_back.labels))
                scores[contender].append(Choice(error, strength, c))
    for contender, make in PIXELS.items():
        scores[contender] = []
        for c in setting.pixel_inverse_penalties:
            model = make(c).fit(seen.pixels, seen.labels)
            error = 1 - float(model.score(held_back.pixels, held_back.labels))
            scores[contender].append(Choice(error, None, c))
    return scores, learned


def judge(train: Digits, test: Digits, choices: dict[str, Choice], setting: Setting, repeats: int):
    """Learn anew on all training digits; return each contender's mistakes, a row a start, and seconds."""
    mistakes: dict[str, list[np.ndarray]] = {contender: [] for contender in choices}
    seconds: dict[str, list[float]] = {contender: [] for contender in choices}
    for seed in range(1, repeats + 1):
        learned: dict[float, Learned] = {}
        for contender in (UNSUPERVISED, TASK_DRIVEN):
            _, strength, c = choices[contender]
            assert strength is not None
            if strength not in learned:
                learned[strength] = learn(train, strength, setting, seed)
            dictionary = learned[strength].dictionaries[contender]
            model = fit_classifier(encode_all(dictionary, train.xs, strength), train.labels, c)
            guesses = model.predict(encode_all(dictionary, test.xs, strength))
            mistakes[contender].append(np.not_equal(guesses, test.labels))
            seconds[contender].append(learned[strength].seconds[contender])
    for contender, make in PIXELS.items():
        begin = time.perf_counter()
        model = make(choices[contender].inverse_penalty).fit(train.pixels, train.labels)
        seconds[contender].append(time.perf_counter() - begin)
        mistakes[contender].append(np.not_equal(model.predict(test.pixels), test.labels))
    return {name: np.array(rows) for name, rows in mistakes.items()}, seconds


def table(choices: dict[str, Choice], mistakes: dict[str, np.ndarray], seconds) -> list[dict[str, object]]:
    """Return a row a contender; the standard error is that of so many test digits."""
    rows: list[dict[str, object]] = []
    for contender, wrong in mistakes.items():
        error = float(wrong.mean())
        rows.append({
            "contender": contender,
            "λ": choices[contender].strength if choices[contender].strength is not None else "",
            "C": choices[contender].inverse_penalty,
            "held-back error": choices[contender].error,
            "test error": error,
            "standard error": float(np.sqrt(error * (1 - error) / wrong.shape[1])),
            "test error of each start": ", ".join(f"{e:.2%}" for e in wrong.mean(axis=1)),
            "seconds to learn": float(np.median(seconds[contender])),
        })  # fmt: skip
    return rows


def reduction(mistakes: dict[str, np.ndarray]) -> dict[str, float]:
    """Return by how much the labels lower the error, and its standard error over test digits, paired."""
    without, with_labels = (mistakes[name].mean(axis=0) for name in (UNSUPERVISED, TASK_DRIVEN))
    ratio = with_labels.mean() / without.mean()
    # Of a ratio of means, by the delta method.
    deviation = np.std(with_labels - ratio * without) / np.sqrt(len(without)) / without.mean()
    return {"relative reduction": float(1 - ratio), "its standard error": float(deviation)}


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=2)
    arguments = parser.parse_args()
    setting, repeats = (QUICK, 1) if arguments.quick else (Setting(), arguments.repeats)
    begin = time.perf_counter()
    try:
        train, test = load("train", setting.n_train), load("test", setting.n_test)
    except ConnectionError as error:
        if not arguments.quick:
            raise
        print(f"skipped: MNIST is not at hand. {error}")
        return
    n_seen = setting.n_train - setting.n_held_back
    seen, held_back = train.rows(0, n_seen), train.rows(n_seen, setting.n_train)
    # More BLAS threads than free cores slow scikit-learn's small products tenfold.
    with threadpool_limits(1):
        scores, learned = search(seen, held_back, setting)
        choices = {contender: choose(scored) for contender, scored in scores.items()}
        mistakes, seconds = judge(train, test, choices, setting, repeats)
    rows, gain = table(choices, mistakes, seconds), reduction(mistakes)
    summary = {
        "data": "MNIST, each digit minus its mean, unit length", **setting._asdict(), "batch_size": BATCH,
        "l2": L2, "repeats": repeats, **gain, "seconds in all": time.perf_counter() - begin,
        "held-back errors (error, λ, C)": scores,
    }  # fmt: skip
    print(summary, common.machine(), sep="\n")
    common.print_table(rows)
    strength = choices[TASK_DRIVEN].strength
    without = choose([score for score in scores[UNSUPERVISED] if score.strength == strength])
    figure = _plot(learned[strength], without.error, choices[TASK_DRIVEN])
    common.save_results(arguments.results, "task_driven_mnist", rows, summary, figure)


def _plot(learned: Learned, without: float, chosen: Choice) -> Figure:
    figure = Figure((13, 4.2), layout="constrained")
    before, after, curve = figure.subplots(1, 3)
    plotting.atom_grid(learned.start.atoms[:100], (28, 28), before)
    before.set_title("learned without labels")
    plotting.atom_grid(learned.dictionaries[TASK_DRIVEN].atoms[:100], (28, 28), after)
    after.set_title("the same atoms, trained for the task")
    steps, errors = learned.history.evaluation_steps, learned.history.evaluation["loss"]
    curve.plot(steps, 100 * errors, "o-", markersize=3, color="tab:blue", label="trained for the task")
    curve.axhline(100 * without, color="0.5", ls="--", label="without labels, best classifier")
    curve.axhline(100 * chosen.error, color="tab:blue", ls=":", label="for the task, best classifier")
    curve.set(xlabel="updates", ylabel="error (%)", title=f"held-back digits, λ = {chosen.strength}")
    curve.set_ylim(bottom=0)
    curve.legend()
    return figure


if __name__ == "__main__":
    main()
