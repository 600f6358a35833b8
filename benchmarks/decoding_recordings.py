"""How well, and how fast, are gratings decoded from recordings, against a tuned multinomial regression?

Macaque V1, spike counts in 0 to 500 ms at the higher contrast: 17 sessions of static gratings (7 or 8
orientations) and 25 of 27 of moving ones (16 directions; two have too few trials for the inner folds of the
reference), units with contamination below 0.05, and all units. Mouse
V1, the three control sessions, mean after minus mean before onset: 4 orientations in 5 and in 8 folds, 8
directions in 5. Stratified folds (scikit-learn's, shuffled), the same for all contenders; accuracy is the
share of held-out trials decoded right, averaged over sessions. The difference to the reference is paired by
session, with its standard error.

Reference: scikit-learn's `LogisticRegressionCV` (multinomial, L2, 7 strengths by an inner 5-fold
cross-validation) on standardised responses; and, as it is the better preparation of counts, the same on
√counts.
Ours: the Gaussian decoder with one covariance (Ledoit and Wolf's shrinkage) on √counts (macaque) or responses
(mouse), the same with independent neurons, the Poisson decoder (counts), multinomial regression and ridge
onto bumps with strengths tuned inside. Seconds are those of all sessions, compilation included. Nothing is
chosen by what is tested. Without the recordings a simulated session of 200 trials takes their place.

    python benchmarks/decoding_recordings.py [--repeats 1] [--quick]

`--repeats` averages over as many random divisions into folds.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from threadpoolctl import threadpool_limits

from neurojax import data
from neurojax import neural_coding as nc
from neurojax.penalties import ElasticNet

REFERENCE = "scikit-learn logistic"


class Setting(NamedTuple):
    """Sessions that are decoded in the same way."""

    name: str
    sessions: list[data.GratingRecording]
    n_folds: int
    is_counts: bool


def settings(is_quick: bool) -> list[Setting]:
    """Return the recordings, or what takes their place."""
    try:
        macaque = {kind: data.macaque_sessions(kind) for kind in ("static", "moving")}
        mouse = [session for session in data.mouse_sessions() if session.is_control]
    except (FileNotFoundError, ConnectionError) as error:
        print(f"recordings not at hand ({error}); a simulated session takes their place.")
        return [Setting("simulated", [simulated()], 5, True)]
    found = []
    for limit, units in ((0.05, "clean units"), (None, "all units")):
        for kind, sessions in macaque.items():
            recordings = [session.recording(max_contamination=limit) for session in sessions]
            found.append(Setting(f"macaque {kind}, {units}", recordings, 5, True))
    orientations = [session.recording(orientation=True) for session in mouse]
    found.append(Setting("mouse, 4 orientations, 5 folds", orientations, 5, False))
    found.append(Setting("mouse, 4 orientations, 8 folds", orientations, 8, False))
    found.append(Setting("mouse, 8 directions, 5 folds", [s.recording() for s in mouse], 5, False))
    return [s._replace(sessions=s.sessions[:1]) for s in found[::3]] if is_quick else found


def simulated() -> data.GratingRecording:
    """Return 200 trials of 30 Poisson neurons at 8 orientations."""
    angles = np.repeat(np.arange(8) * 22.5, 25).astype(np.float32)
    population = nc.simulate(
        jax.random.key(0), n_neurons=30, angles_degrees=angles, period_degrees=180, responses="poisson"
    )
    return data.GratingRecording(
        population.responses, jnp.asarray(angles), 180.0, "simulated", np.arange(30), 30
    )


def ours(bins: nc.AngleBins, is_counts: bool) -> dict[str, nc.AbstractDecoder]:
    """Return the library's decoders."""
    multinomial = nc.MultinomialDecoder(bins, ElasticNet(0.0, 0.1))
    bumps = nc.BumpRidge(
        bins.period_degrees, n_bumps=max(bins.n_bins, 8), width_degrees=bins.period_degrees / 12
    )
    found = {
        "Gaussian, shared covariance": nc.GaussianDecoder(bins, square_root=is_counts, prior_count=1.0),
        "Gaussian, independent": nc.GaussianDecoder(
            bins, square_root=is_counts, prior_count=1.0, shrinkage=1.0
        ),
        "multinomial, tuned": nc.Tuned(
            multinomial, jnp.logspace(-4, 0, 5), where=lambda decoder: decoder.penalty.l2
        ),
        "ridge onto bumps, tuned": nc.Tuned(bumps, jnp.logspace(-3, 1, 5)),
    }
    if is_counts:
        found["Poisson"] = nc.PoissonDecoder(bins)
    return found


def scikit(is_counts: bool) -> dict[str, Any]:
    """Return the reference."""
    strengths = np.logspace(-4, 2, 7)

    def logistic(*before: Any) -> Any:
        regression: Any = LogisticRegressionCV  # its stubs know no array of strengths
        return make_pipeline(*before, StandardScaler(), regression(Cs=strengths, cv=5, max_iter=2000))

    found = {REFERENCE: logistic()}
    if is_counts:
        found[f"{REFERENCE}, √counts"] = logistic(FunctionTransformer(np.sqrt))
    return found


def decode(recording: data.GratingRecording, n_folds: int, is_counts: bool, seed: int) -> dict[str, tuple]:
    """Return accuracy and seconds of each contender; none where the reference cannot be tuned."""
    bins = nc.AngleBins.around(recording.angles_degrees, recording.period_degrees)
    classes = np.asarray(bins.index(recording.angles_degrees))
    responses = np.asarray(recording.responses, np.float64)
    # The inner folds of the reference need five trials of a class in every training set.
    if np.min(np.bincount(classes)[np.unique(classes)]) * (n_folds - 1) // n_folds < 5:
        return {}
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    splits = list(folds.split(responses, classes))

    def by_library(decoder: nc.AbstractDecoder) -> np.ndarray:
        found = nc.cross_validate(decoder, recording.responses, recording.angles_degrees, splits)
        return np.asarray(bins.index(found.predicted_degrees))

    def by_scikit(model: Any) -> np.ndarray:
        return np.asarray(cross_val_predict(model, responses, classes, cv=splits))

    contenders: list[tuple[str, Callable, Any]] = [
        *((name, by_library, decoder) for name, decoder in ours(bins, is_counts).items()),
        *((name, by_scikit, model) for name, model in scikit(is_counts).items()),
    ]
    answers = {}
    for name, run, contender in contenders:
        begin = time.perf_counter()
        correct = float(np.mean(run(contender) == classes))
        answers[name] = (correct, time.perf_counter() - begin)
    return answers


def compare(setting: Setting, repeats: int) -> tuple[list[dict], dict[str, dict[str, float]]]:
    """Decode all sessions; return the table's rows, and the accuracies of each session."""
    sessions: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    for recording in setting.sessions:
        runs = [decode(recording, setting.n_folds, setting.is_counts, seed) for seed in range(repeats)]
        if not runs[0]:
            print(
                f"{setting.name}: {recording.name} left out, too few trials for the reference's inner folds"
            )
            continue
        sessions[recording.name] = {name: float(np.mean([run[name][0] for run in runs])) for name in runs[0]}
        for run in runs:
            for name, (_, spent) in run.items():
                seconds[name] = seconds.get(name, 0.0) + spent / repeats
    return [_row(setting.name, name, sessions, spent) for name, spent in seconds.items()], sessions


def _row(recordings: str, name: str, sessions: dict[str, dict[str, float]], seconds: float) -> dict:
    values = np.array([of[name] for of in sessions.values()])
    paired = values - np.array([of[REFERENCE] for of in sessions.values()])
    return {
        "recordings": recordings,
        "decoder": name,
        "sessions": len(values),
        "accuracy": float(values.mean()),
        "± (sessions)": _error(values),
        "minus reference": float(paired.mean()),
        "± (paired)": _error(paired),
        "s": seconds,
    }


def _error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=1).parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="responses: .* do not vary")
    setting: dict[str, Any] = {"repeats": arguments.repeats, "dtype": "float32 (scikit-learn: float64)"}
    print(setting, common.machine(), sep="\n")
    table, by_session = [], {}
    with threadpool_limits(1, "openmp"):
        for group in settings(arguments.quick):
            rows, by_session[group.name] = compare(group, arguments.repeats)
            table += rows
            if rows:
                common.print_table(rows)
    setting["accuracy by session"] = by_session
    common.save_results(arguments.results, "decoding_recordings", table, setting, _plot(table))


def _plot(table: Sequence[dict]) -> Figure:
    names = list(dict.fromkeys(row["recordings"] for row in table))
    figure = Figure((9, 1 + 1.5 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        rows = [row for row in table if row["recordings"] == name and row["decoder"] != REFERENCE][::-1]
        places = np.arange(len(rows))
        values = [row["minus reference"] for row in rows]
        axes.errorbar(values, places, xerr=[row["± (paired)"] for row in rows], fmt="o", color="#0072B2")
        axes.axvline(0, color="#333333", lw=1)
        axes.set_yticks(places, [row["decoder"] for row in rows])
        axes.set_title(f"{name} ({rows[0]['sessions']} sessions)", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(
        "accuracy minus that of the tuned logistic regression (standard error, paired by session)"
    )
    return figure


if __name__ == "__main__":
    main()
