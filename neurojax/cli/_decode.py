"""``neurojax decode``: what was shown, read from a population by many decoders, cross-validated."""

import json
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from .. import neural_coding as nc
from ..convergence import Status
from ..neural_coding import AbstractDecoder, AngleBins, CrossValidation
from ..runs import RunFolder
from ._decode_networks import (
    Learned,
    Scaling,
    Standardized,
    from_arrays,
    learn,
    load_if_same,
    save_with_identity,
    to_arrays,
)
from ._decode_pictures import Decoded, draw
from ._decode_settings import NETWORKS, Settings, check, chosen_decoders, make_decoder, network_of
from ._neural_data import Responses, angle_bins, read_responses
from ._settings import is_progress_shown, parse, plain_data, start_run, table, write_json

__all__ = ["main"]

_CHANCE_DECODER = "sincos-ridge"
_COLUMNS = ("median error", "mean error", "median, 180°", "mean, 180°", "correct", "seconds")


class Answers(NamedTuple):
    """The answers of a decoder, and the time it took."""

    held_out: CrossValidation
    seconds: float


def main(arguments: Sequence[str]) -> None:
    """Decode, measure, draw, and print a table."""
    start = time.perf_counter()
    settings, run = parse(Settings, "decode", arguments)
    recording = check(settings)
    keys = _keys(settings.learning.seed)
    responses = read_responses(recording, keys["data"])
    bins = angle_bins(responses, settings.decoding.bins)
    names = chosen_decoders(settings, responses)
    splits = _splits(settings, responses, bins, keys["folds"])
    decoders = {name: _decoder(name, settings, responses, bins) for name in names}
    run = start_run("decode", settings, run, may_change=("decoding",))

    answers = _answers(settings, run, decoders, responses, splits)
    train, test = _split_once(settings, responses, keys["split"])
    networks = {
        name: _network(settings, run, name, responses, bins, (train, test), keys["networks"])
        for name in names
        if name in NETWORKS
    }
    chance = _chance(settings, run, responses, bins, splits, keys["chance"])
    measured = _measure(responses, bins, answers, chance)
    write_json(run.path / "results.json", measured)
    draw(run, Decoded(responses, bins, _held_out(answers), measured, networks, train, test))
    print(_summary(settings, run, responses, bins, measured, time.perf_counter() - start))


def _keys(seed: int) -> dict[str, Array]:
    names = ("data", "folds", "split", "networks", "chance")
    return dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True))


def _splits(settings: Settings, responses: Responses, bins: AngleBins, key: Array):
    """Return the folds, or raise ``ValueError`` where a class would be tested that was not learned."""
    n_folds, period = settings.decoding.n_folds, responses.period_degrees
    splits = nc.stratified_folds(responses.angles_degrees, n_folds, key, period_degrees=period)
    index = np.asarray(bins.index(responses.angles_degrees))
    for train, test in splits:
        missing = np.setdiff1d(index[test], index[train])
        if len(missing):
            center, n_trials = bins.centers_degrees[missing[0]], np.sum(index == missing[0])
            raise ValueError(
                f"bins: expected trials of each bin in every training set, got none round {center:g}° in one "
                f"({n_trials} in all); take fewer bins."
            )
    return splits


def _decoder(name: str, settings: Settings, responses: Responses, bins: AngleBins) -> AbstractDecoder:
    decoder = make_decoder(name, settings, responses, bins)
    return Standardized(decoder) if name in NETWORKS else decoder


def _identity(settings: Settings, **more: Any) -> str:
    """Return, as text, what decides a result; one that was written by other settings is made anew."""
    decisive = {"data": plain_data(settings.data), "seed": settings.learning.seed, **more}
    return json.dumps(decisive, sort_keys=True)


def _answers(
    settings: Settings, run: RunFolder, decoders: dict[str, AbstractDecoder], responses: Responses, splits
) -> dict[str, Answers]:
    """Cross-validate each decoder, or take what the run has of it already."""
    is_shown = is_progress_shown(settings.output)
    answers, true = {}, np.asarray(responses.angles_degrees, float)
    for name, decoder in tqdm(decoders.items(), disable=not is_shown, unit="decoder"):
        path = run.path / "decoders" / f"{name}.npz"
        identity = _identity(settings, n_folds=len(splits), decoder=repr(decoder))
        saved = load_if_same(path, identity)
        if saved is None:
            begin = time.perf_counter()
            held_out = _cross_validate(decoder, responses, splits)
            seconds = time.perf_counter() - begin
            saved = {"predicted_degrees": held_out.predicted_degrees, "fold": held_out.fold}
            saved |= {"true_degrees": true, "seconds": np.array(seconds)}
            saved |= {} if held_out.status is None else {"status": held_out.status}
            save_with_identity(path, identity, saved)
        held_out = CrossValidation(
            predicted_degrees=saved["predicted_degrees"],
            true_degrees=true,
            fold=saved["fold"],
            log_probabilities=None,
            period_degrees=responses.period_degrees,
            status=saved.get("status"),
        )
        answers[name] = Answers(held_out, float(saved["seconds"]))
    return answers


def _cross_validate(decoder: AbstractDecoder, responses: Responses, splits) -> CrossValidation:
    with warnings.catch_warnings():
        # The command says itself which neurons do not vary, once.
        warnings.filterwarnings("ignore", message="responses: .* do not vary")
        return nc.cross_validate(decoder, responses.responses, responses.angles_degrees, splits)


def _split_once(settings: Settings, responses: Responses, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the trials that the networks of the pictures learn from, and of the others."""
    n_trials = len(responses.angles_degrees)
    n_train = min(max(round(settings.learning.train_share * n_trials), 1), n_trials - 1)
    order = np.asarray(jax.random.permutation(key, n_trials))
    return np.sort(order[:n_train]), np.sort(order[n_train:])


def _network(
    settings: Settings, run: RunFolder, name: str, responses: Responses, bins: AngleBins, split, key: Array
) -> Learned:
    """Train the network of the pictures, or take the run's."""
    network = network_of(name, settings.learning, responses.responses.shape[1])
    share = settings.learning.train_share
    identity = _identity(settings, network=network._asdict(), bins=repr(bins), train_share=share)
    path = run.path / "networks" / f"{name}.npz"
    saved = load_if_same(path, identity)
    if saved is not None:
        return from_arrays(saved)
    scaling = Scaling.of(responses.responses[split[0]])
    train, test = ((scaling(responses.responses[rows]), responses.angles_degrees[rows]) for rows in split)
    learned = learn(network, train, test, bins, key)
    save_with_identity(path, identity, to_arrays(learned))
    return learned


def _chance(
    settings: Settings, run: RunFolder, responses: Responses, bins: AngleBins, splits, key: Array
) -> dict[str, Any]:
    """Return the scores of a guess at random, and of a decoder under permuted angles."""
    period, n = responses.period_degrees, settings.decoding.n_permutations
    n_shown = len(np.unique(np.asarray(bins.index(responses.angles_degrees))))
    chance: dict[str, Any] = {"median_error": period / 4, "fraction_correct": 1 / n_shown}
    if not n:
        return chance
    identity = _identity(settings, n_folds=len(splits), n_permutations=n, bins=repr(bins))
    path = run.path / "decoders" / "permutations.npz"
    scores = load_if_same(path, identity)
    if scores is None:
        correct = []

        def measure(predicted, true, period):
            # Beside the score that is asked for, so that the permutations are decoded once for both.
            correct.append(np.mean(bins.index(predicted) == bins.index(true)))
            return nc.median_circular_error(predicted, true, period)

        decoder, trials = nc.SinCosRidge(period), (responses.responses, responses.angles_degrees)
        errors = nc.chance_level(decoder, *trials, splits, measure, key, n_permutations=n)
        scores = {"median_error": errors, "fraction_correct": np.reshape(correct, (n, -1)).mean(axis=1)}
        save_with_identity(path, identity, scores)
    permuted = {
        name: {"mean": float(values.mean()), "deviation": float(values.std(ddof=1)) if n > 1 else None}
        for name, values in scores.items()
    }
    return chance | {"permuted": permuted, "n_permutations": n, "decoder": _CHANCE_DECODER}


def _measure(
    responses: Responses, bins: AngleBins, answers: dict[str, Answers], chance: dict[str, Any]
) -> dict[str, Any]:
    """Return what ``results.json`` holds: scores over held-out trials with standard errors, in degrees."""
    periods = (360, 180) if responses.period_degrees == 360 else (180,)
    scores = {}
    for name, (held_out, seconds) in answers.items():
        values: dict[str, Any] = {}
        for period in periods:
            for kind, measure in (
                ("median", nc.median_circular_error),
                ("mean", nc.mean_circular_error),
            ):
                score = held_out.score(measure, period)
                values[f"{kind}_error_{period}"] = score._asdict()
        correct = held_out.fraction_correct(bins)
        scores[name] = {**values, "fraction_correct": correct._asdict(), "seconds": seconds}
        if held_out.status is not None:
            scores[name]["folds_not_converged"] = int(np.sum(held_out.status != Status.converged))
    return {
        "recording": responses.name,
        "n_trials": len(responses.angles_degrees),
        "n_neurons": responses.responses.shape[1],
        "period_degrees": responses.period_degrees,
        "bin_centers_degrees": bins.centers_degrees.tolist(),
        "n_folds": int(next(iter(answers.values())).held_out.fold.max()) + 1,
        "decoders": scores,
        "chance": chance,
    }


def _held_out(answers: dict[str, Answers]) -> dict[str, CrossValidation]:
    return {name: answer.held_out for name, answer in answers.items()}


def _summary(
    settings: Settings,
    run: RunFolder,
    responses: Responses,
    bins: AngleBins,
    measured: dict[str, Any],
    seconds: float,
) -> str:
    columns = _COLUMNS if responses.period_degrees == 360 else (*_COLUMNS[:2], *_COLUMNS[4:])
    lines = {"decoder": _row(columns)}
    for name, values in measured["decoders"].items():
        cells = [
            _with_error(score, "°" if "error" in kind else "%")
            for kind, score in values.items()
            if isinstance(score, dict)
        ]
        n_short = values.get("folds_not_converged", 0)
        note = f"  ({n_short} of {measured['n_folds']} folds not converged)" if n_short else ""
        lines[name] = _row([*cells, f"{values['seconds']:.1f}"]) + note
    chance = measured["chance"]
    lines["chance"] = (
        f"{chance['median_error']:g}° median error, {chance['fraction_correct']:.1%} correct for even angles"
    )
    if "permuted" in chance:
        error, correct = (chance["permuted"][name] for name in ("median_error", "fraction_correct"))
        lines["permuted"] = (
            f"{error['mean']:.1f}°{_spread(error, 1, '°')}, {correct['mean']:.1%}"
            f"{_spread(correct, 100, '%')}, {chance['n_permutations']} permutations of the angles, "
            f"{_CHANCE_DECODER}"
        )
    lines["errors"] = (
        f"absolute, on a circle of {responses.period_degrees:g}°, of all trials held out in one of "
        f"{measured['n_folds']} folds; ± standard error over recordings of as many trials"
    )
    start = (bins.start_degrees + bins.width_degrees / 2) % bins.period_degrees
    lines["bins"] = f"{bins.n_bins} of {bins.width_degrees:g}°, the first round {start:g}°"
    lines["data"] = (
        f"{responses.name}: {measured['n_trials']} trials, {measured['n_neurons']:,} neurons, "
        f"{'spike counts' if responses.is_count else 'real responses'}"
    )
    return table({**lines, **responses.notes, "time": f"{seconds:.1f} s", "run folder": str(run.path)})


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>16}" for cell in cells).removeprefix("  ")


def _with_error(score: dict[str, float], unit: str) -> str:
    factor, digits = (100, 1) if unit == "%" else (1, 2)
    value, error = factor * score["value"], factor * score["standard_error"]
    return f"{value:.{digits}f} ± {error:.{digits}f}{unit}"


def _spread(values: dict[str, Any], factor: int, unit: str) -> str:
    deviation = values["deviation"]
    return "" if deviation is None else f" ± {factor * deviation:.1f}{unit} (deviation)"
