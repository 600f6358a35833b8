"""``neurojax encode``: predict a population from the gratings shown, against baselines and floors."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import neural_coding as nc
from ..runs import RunFolder, save
from ._encode_models import Trained, fit_repeats, n_parameters, predict_angles
from ._encode_pictures import Encoded, draw
from ._encode_settings import Settings, Stimuli, check, chosen_encoders, folds, make_optimizer, read_stimuli
from ._settings import is_progress_shown, parse, start_run, table, write_json

__all__ = ["main"]

_TITLES = {
    "repeats": "other trials of the gratings learned from",
    "angles": "gratings not learned from",
}


def main(arguments: Sequence[str]) -> None:
    """Train, predict, measure, draw, and print a table."""
    start = time.perf_counter()
    settings, run = parse(Settings, "encode", arguments)
    recording = check(settings)
    data_key, fit_key = jax.random.split(jax.random.key(settings.learning.seed))
    stimuli = read_stimuli(settings, recording, data_key)
    names, schemes = chosen_encoders(settings, stimuli), _schemes(settings)
    of_folds = folds(settings, stimuli) if "angles" in schemes else []
    run = start_run("encode", settings, run)

    trained: dict[str, Trained] = {}
    predicted: dict[str, dict[str, np.ndarray]] = {scheme: {} for scheme in schemes}
    optimizer = make_optimizer(settings.learning)
    is_shown = is_progress_shown(settings.output)
    for name in names:
        folder = run.path / "encoders" / name
        if "repeats" in schemes:
            trained[name] = _repeats(settings, folder, name, stimuli, optimizer, fit_key, progress=is_shown)
            predicted["repeats"][name] = trained[name].predicted
        if "angles" in schemes:
            predicted["angles"][name] = predict_angles(
                settings, folder, name, stimuli, of_folds, optimizer, fit_key
            )
    for scheme in schemes:
        predicted[scheme] |= _baselines(stimuli, of_folds if scheme == "angles" else None)
    scores = {
        scheme: {name: _scores(settings, stimuli, values) for name, values in of_scheme.items()}
        for scheme, of_scheme in predicted.items()
    }
    measured = _measured(stimuli, trained, scores, of_folds)
    write_json(run.path / "results.json", measured)
    draw(run, Encoded(stimuli, trained, predicted, scores, measured))
    print(_summary(settings, run, stimuli, measured, time.perf_counter() - start))


def _schemes(settings: Settings) -> tuple[str, ...]:
    asked = settings.encoding.hold_out
    return ("repeats", "angles") if asked == "both" else (asked,)


def _repeats(
    settings: Settings, folder: Path, name: str, stimuli: Stimuli, optimizer, key: Array, *, progress: bool
) -> Trained:
    trained = fit_repeats(settings, folder / "repeats", name, stimuli, optimizer, key, progress=progress)
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / "model.npz", trained.model)
    return trained


def _baselines(stimuli: Stimuli, of_folds: list[np.ndarray] | None) -> dict[str, np.ndarray]:
    """Return what knows nothing of images, or nothing but training responses or pixels, by name."""
    pixels, train = stimuli.images.reshape(len(stimuli.images), -1), jnp.asarray(stimuli.train)
    if of_folds is not None:
        null, linear = np.full_like(stimuli.train, np.nan), np.full_like(stimuli.train, np.nan)
        for held in of_folds:
            rows = np.setdiff1d(np.arange(len(pixels)), held)
            null[held] = np.asarray(nc.null_baseline(train[rows]))[0]
            linear[held] = np.asarray(nc.linear_baseline(pixels[rows], train[rows], pixels[held]))
        return {"linear": linear, "null": null}
    known = {"linear": nc.linear_baseline(pixels, train, pixels), "null": nc.null_baseline(train)}
    known["repeat mean"] = train
    if _has_opposites(stimuli):
        known["paired mean"] = nc.paired_mean_baseline(train, stimuli.angles_degrees)
    return {name: np.asarray(values) for name, values in known.items()}


def _has_opposites(stimuli: Stimuli) -> bool:
    if stimuli.period_degrees != 360:
        return False
    places = np.round(stimuli.angles_degrees, 3)
    return bool(np.all(np.isin(np.round(np.mod(places + 180, 360), 3), places)))


def _scores(settings: Settings, stimuli: Stimuli, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each neuron scores on the test trials."""
    measured = stimuli.test.mean(axis=0)
    scores = {
        "squared_error": np.mean((predicted - measured) ** 2, axis=0),
        "correlation": np.asarray(nc.response_correlation(predicted, measured)),
    }
    if len(stimuli.test) > 1:
        explained = nc.feve(predicted, stimuli.test, threshold=settings.encoding.threshold)
        scores["feve"] = np.asarray(explained.feve)
    return scores


def _measured(
    stimuli: Stimuli,
    trained: dict[str, Trained],
    scores: dict[str, dict[str, dict[str, np.ndarray]]],
    of_folds: list[np.ndarray],
) -> dict[str, Any]:
    """Return what ``results.json`` holds: means over neurons with standard errors."""
    n_images = len(np.unique(np.asarray(stimuli.images).reshape(len(stimuli.images), -1), axis=0))
    return {
        "recording": stimuli.name,
        "n_stimuli": len(stimuli.images),
        "n_distinct_images": n_images,
        "image_shape": list(stimuli.images.shape[1:]),
        "n_neurons": stimuli.train.shape[1],
        "n_train_repeats": stimuli.n_train_repeats,
        "n_test_repeats": len(stimuli.test),
        "n_folds": len(of_folds) or None,
        "n_parameters": {name: n_parameters(of.model) for name, of in trained.items()},
        "scores": {
            scheme: {
                name: {kind: _mean(values) for kind, values in of_model.items()}
                for name, of_model in of_scheme.items()
            }
            for scheme, of_scheme in scores.items()
        },
    }


def _mean(values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)].astype(np.float64)
    n = len(known)
    return {
        "mean": float(known.mean()) if n else None,
        "standard_error": float(known.std(ddof=1) / n**0.5) if n > 1 else None,
        "n_neurons": n,
    }


def _summary(
    settings: Settings, run: RunFolder, stimuli: Stimuli, measured: dict[str, Any], seconds: float
) -> str:
    parts, has_feve = [], measured["n_test_repeats"] > 1
    for scheme, of_scheme in measured["scores"].items():
        header = ("squared error", "correlation", *(("variance explained",) if has_feve else ()))
        lines = {_TITLES[scheme]: _row(header)}
        for name, kinds in of_scheme.items():
            lines[name] = _row([_text(score) for score in kinds.values()])
        parts.append(table(lines))
    lines = {
        "scores": "means over neurons ± standard error over other neurons in the same trials; responses "
        "z-scored by the training trials"
    }
    if has_feve:
        explained = next(iter(next(iter(measured["scores"].values())).values()))["feve"]
        lines["variance explained"] = (
            f"share of the explainable (FEVE), {explained['n_neurons']} of {measured['n_neurons']:,} neurons "
            f"with at least {settings.encoding.threshold:g} explainable"
        )
    else:
        lines["variance explained"] = "not known: it takes two test trials of each grating"
    if measured["n_distinct_images"] < measured["n_stimuli"]:
        lines["floor"] = (
            f"{measured['n_stimuli']} gratings are {measured['n_distinct_images']} distinct images, θ and "
            "θ + 180° being the same: of images alone nothing better than the paired mean is to be had"
        )
    if measured["n_folds"]:
        lines["folds"] = f"{measured['n_folds']} of angles, each with its opposite"
    lines["trials"] = (
        f"{measured['n_train_repeats']} of each grating for training, {measured['n_test_repeats']} for tests"
    )
    for name, n in measured["n_parameters"].items():
        lines[f"parameters, {name}"] = f"{n:,}"
    rows, columns = measured["image_shape"]
    lines["data"] = f"{stimuli.name}: {measured['n_neurons']:,} neurons, images of {rows} × {columns} pixels"
    lines = {**lines, **stimuli.notes, "time": f"{seconds:.1f} s", "run folder": str(run.path)}
    return "\n\n".join([*parts, table(lines)])


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>20}" for cell in cells).removeprefix("  ")


def _text(score: dict[str, Any]) -> str:
    if score["mean"] is None:
        return "not known"
    error = "" if score["standard_error"] is None else f" ± {score['standard_error']:.3f}"
    return f"{score['mean']:.3f}{error}"
