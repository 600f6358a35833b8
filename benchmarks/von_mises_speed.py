"""How long do von Mises fits of a whole recording take, and are they as good as SciPy's?

Tuning curves of a simulated population of 23,589 neurons over 60 bins of 6° (360 trials), float32, with one
peak and with two. "Cold" is the first call, compilation included; "warm" the median of later ones. On a
sample of neurons `scipy.optimize.least_squares` fits the same function within the same limits in float64,
from one start at the curve's largest value; sums of squares are compared before times are printed, both
evaluated in float64 from the parameters. SciPy's time for all neurons is that of the sample, scaled.

    python benchmarks/von_mises_speed.py [--repeats 3] [--quick]
"""

from __future__ import annotations

import time

import _common as common
import jax
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from neurojax.convergence import Status
from neurojax.neural_coding import AngleBins, VonMises, fit_von_mises_batch, simulate, tuning_curves

LIMITS = np.log(0.1), np.log(100.0)


def evaluate(parameters: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return the curve of (preferred, log concentration, baseline, amplitude[, opposite amplitude])."""
    cosine = np.cos(np.deg2rad(angles - parameters[0]))
    concentration = np.exp(parameters[1])
    curve = parameters[2] + parameters[3] * np.exp(concentration * (cosine - 1))
    return curve + parameters[4] * np.exp(-concentration * (cosine + 1)) if len(parameters) == 5 else curve


def scipy_costs(curves: np.ndarray, angles: np.ndarray, n_peaks: int) -> np.ndarray:
    """Return SciPy's least sum of squares for each curve."""
    n_parameters = 3 + n_peaks
    lower = [-np.inf, LIMITS[0], -np.inf, 0, 0][:n_parameters]
    upper = [np.inf, LIMITS[1], np.inf, np.inf, np.inf][:n_parameters]
    costs = []
    for curve in curves:
        start = [angles[np.argmax(curve)], np.log(2), np.min(curve), np.ptp(curve), np.ptp(curve) / 2]
        result = least_squares(
            lambda parameters, curve=curve: evaluate(parameters, angles) - curve,
            start[:n_parameters], bounds=(lower, upper), x_scale="jac",
        )  # fmt: skip
        costs.append(2 * result.cost)
    return np.array(costs)


def our_costs(tuning: VonMises, curves: np.ndarray, angles: np.ndarray, n_peaks: int) -> np.ndarray:
    """Return the sums of squares that our parameters leave, in float64."""
    fields = [
        tuning.preferred_degrees, np.log(tuning.concentration), tuning.baseline, tuning.amplitude,
        tuning.opposite_amplitude,
    ]  # fmt: skip
    parameters = np.stack([np.asarray(field, np.float64) for field in fields], -1)[:, : 3 + n_peaks]
    fitted = np.stack([evaluate(row, angles) for row in parameters[: len(curves)]])
    return np.sum((fitted - curves) ** 2, 1)


def measure(curves: np.ndarray, angles: np.ndarray, n_peaks: int, n_sample: int, repeats: int):
    """Return a row of the table, and both costs of the sampled neurons."""

    def run():
        return jax.block_until_ready(fit_von_mises_batch(curves, angles, n_peaks=n_peaks))

    start = time.perf_counter()
    fits = run()
    cold = time.perf_counter() - start
    warm = common.interleaved_medians({"ours": run}, repeats)["ours"]
    sample = curves[:n_sample].astype(np.float64)
    start = time.perf_counter()
    theirs = scipy_costs(sample, angles, n_peaks)
    scipy_time = (time.perf_counter() - start) * len(curves) / n_sample
    ours = our_costs(fits.tuning, sample, angles, n_peaks)
    ratio = ours / theirs
    row = {
        "peaks": n_peaks,
        "neurons": len(curves),
        "bins": curves.shape[1],
        "dtype": str(curves.dtype),
        "cold s": cold,
        "warm s": warm,
        "converged": float(np.mean(np.asarray(fits.status) == Status.converged)),
        "same or lower": float(np.mean(ratio <= 1 + 1e-4)),
        "lower by > 1 %": float(np.mean(ratio < 0.99)),
        "worst ratio": float(ratio.max()),
        "SciPy s (scaled)": scipy_time,
        "SciPy/warm": scipy_time / warm,
        "SciPy/cold": scipy_time / cold,
    }
    return row, ours, theirs


def picture(costs: dict[int, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw the sums of squares of both against each other."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    for axes, (n_peaks, (ours, theirs)) in zip(figure.subplots(1, 2), costs.items(), strict=True):
        axes.plot(theirs, ours, ".", markersize=4)
        limits = [min(ours.min(), theirs.min()), max(ours.max(), theirs.max())]
        axes.plot(limits, limits, color="0.6", linewidth=1)
        axes.set(xlabel="SciPy: sum of squares", ylabel="neurojax", title=f"{n_peaks} peak(s)")
    return figure


def main() -> None:
    flags = common.parser(__doc__, repeats=3)
    arguments = flags.parse_args()
    n_neurons, n_sample = (1000, 50) if arguments.quick else (23_589, 300)
    bins = AngleBins(60)
    population = simulate(jax.random.key(0), n_neurons=n_neurons)
    curves = np.asarray(tuning_curves(population.responses, population.angles_degrees, bins))
    rows, costs = [], {}
    for n_peaks in (1, 2):
        row, *costs[n_peaks] = measure(curves, bins.centers_degrees, n_peaks, n_sample, arguments.repeats)
        assert row["same or lower"] > 0.95, f"SciPy is better for {1 - row['same or lower']:.1%} of neurons"
        rows.append(row)
    common.print_table(rows)
    setting = {"trials": 360, "sample of SciPy": n_sample, "repeats": arguments.repeats}
    common.save_results(arguments.results, "von_mises_speed", rows, setting, picture(costs))


if __name__ == "__main__":
    main()
