"""How fast do certified codes, updates and their input run on one GPU, and do they agree with a CPU's?

Four parts, in this order; each writes its figures as soon as it has them, a failure in one costs no other,
and what does not fit into the budget is left out by name:

tests      the tests marked ``gpu``: products to 1e-6 of float64 (reduced precision would show), codes,
           gradients, AIS, and updates of five models against the CPU of the same process
codes      100,000 whitened patches, 512 and 1024 learned atoms, relative gaps of 1e-4 and 1e-5, beside SPAMS,
           scikit-learn and the library itself on this machine's CPU cores, which take the first rows only
           (the column "rows"); everyone's codes are certified in float64 before any time is printed. The
           share of the rate of a large float32 product is measured, and several numbers of slots
updates    PCD-1, a sparse autoencoder, online dictionary learning and a VAE, each beside its products alone
pipeline   `fit` through the input pipelines and with the same batches ready; needs grain

Times are medians after a first call, whose compilation is reported by itself. Writes gpu.json, gpu.md and
gpu.png to ``results/gpu``. Without a GPU it runs with ``--quick`` alone, whose figures measure nothing, and
which writes to a temporary folder unless ``--results`` is given.

    python -m benchmarks gpu [--parts tests,codes,updates,pipeline] [--budget 480] [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

# The tests run in a second process at the same device, so neither may take most of its memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import _common as common
import _gpu_codes as codes
import _gpu_inputs as inputs
import _gpu_plot as plot
import _gpu_tests as tests
import _gpu_updates as updates
import jax
import numpy as np
from _gpu_report import STARTED, Part, Report

from neurojax import data

SHARES = {"tests": 0.27, "codes": 0.4, "updates": 0.2, "pipeline": 0.13}  # of the budget
RESERVE = 15.0  # seconds for the picture and for steps that take longer than expected
SKIPPED = 77  # the exit status of a script that cannot run here, to `python -m benchmarks` without names


def images() -> tuple[np.ndarray, str]:
    """Return whitened images: the 1996 set where NEUROJAX_DATA may hold it; no download is tried else."""
    if os.environ.get("NEUROJAX_DATA"):
        return common.whitened_images()
    bundled = data.rescale_variance(data.whiten_1996(data.natural_images()), 0.079)
    return np.asarray(bundled, np.float64), "the bundled photographs, whitened"


def measures(is_quick: bool, has_gpu: bool) -> dict[str, Callable[[Part], None]]:
    """Return the parts by name."""
    found: list[tuple[np.ndarray, str]] = []

    def rows(part: Part) -> np.ndarray:
        found.extend([] if found else [images()])
        part.note("data", found[0][1])
        return found[0][0]

    def measure_codes(part: Part) -> None:
        codes.measure(part, codes.QUICK if is_quick else codes.Setting(), *common.split_rows(rows(part)))

    return {
        "tests": partial(tests.measure, has_gpu=has_gpu),
        "codes": measure_codes,
        "updates": lambda part: updates.measure(
            part, updates.QUICK if is_quick else updates.Setting(), rows(part)
        ),
        "pipeline": lambda part: inputs.measure(
            part, inputs.QUICK if is_quick else inputs.Setting(), rows(part)
        ),
    }


def run(report: Report, chosen: dict[str, Callable[[Part], None]], budget: float) -> None:
    """Run the parts; each has its share of the budget, and what those before it left; in a quick run, all."""
    total, ahead = sum(SHARES[name] for name in chosen), 0.0
    for name, measure in chosen.items():
        ahead = 1.0 if report.setting["quick"] else ahead + SHARES[name] / total
        seconds = ahead * (budget - RESERVE) - (time.perf_counter() - STARTED)
        if seconds <= 0:
            report.skip(name, "no time is left for it")
        else:
            report.run(name, seconds, measure)
        plot.draw(report.content()).savefig(report.folder / "gpu.png", dpi=120)


def parts_of(text: str) -> list[str]:
    """Read the names of parts."""
    names = text.split(",")
    if unknown := [name for name in names if name not in SHARES]:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(SHARES)}; got {','.join(unknown)}")
    return [name for name in SHARES if name in names]


def compile_quickly() -> None:
    """Have XLA optimize less, for most of a quick run is compilation; as the tests do (``conftest.py``)."""
    flags = "--xla_backend_optimization_level=0"
    if (0, 8) <= jax.__version_info__[:2] <= (0, 10):
        flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0, or 1 if a part failed, or 2 if there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=parts_of, default=list(SHARES), help="some of the parts, by commas")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds in all; what does not fit goes")
    parser.add_argument("--quick", action="store_true", help="a short setting that shows that it works")
    parser.add_argument("--results", type=Path, help="folder in which gpu/ is written")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        compile_quickly()
    has_gpu = jax.default_backend() == "gpu"
    if not has_gpu and not chosen.quick:
        if os.environ.get("NEUROJAX_BENCHMARKS") == "all":
            print("no GPU: skipped")
            return SKIPPED
        print("gpu: expected a GPU, JAX found none; --quick shows on a CPU that it works.", file=sys.stderr)
        return 2
    results = chosen.results or (Path(tempfile.mkdtemp()) if chosen.quick else common.RESULTS)
    setting = {"quick": chosen.quick, "budget, s": chosen.budget, "strength": common.STRENGTH}
    report = Report(results / "gpu", setting)
    print(setting, report.machine, sep="\n", flush=True)
    known = measures(chosen.quick, has_gpu)
    run(report, {name: known[name] for name in chosen.parts}, chosen.budget)
    report.write()
    print(f"\n{(report.folder / 'gpu.md').read_text('utf-8')}")
    print(f"written: gpu.json, gpu.md, gpu.png in {report.folder}")
    return int(report.has_failed())


if __name__ == "__main__":
    sys.exit(main())
