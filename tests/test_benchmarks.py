import json
import subprocess
import sys
from pathlib import Path

import _common as common
import jax
import numpy as np
import pytest

from neurojax.penalties import L1
from neurojax.sparse_coding import SpaRSA, duality_gap, random_dictionary

ROOT = Path(__file__).parents[1]

GOOD = '''"""Does it work?

More.
"""
import json, pathlib, sys

if __name__ == "__main__":
    pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(sys.argv[1:]))
'''

NOT_HERE = '''"""Does it need another machine?"""
import os

if __name__ == "__main__":
    raise SystemExit(77 if os.environ.get("NEUROJAX_BENCHMARKS") == "all" else 0)
'''


@pytest.fixture
def entry(tmp_path):
    """The entry point, in a folder with two scripts and two files that are none."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(
        '"""Does it fail?"""\nif __name__ == "__main__":\n    raise SystemExit(3)\n'
    )
    (tmp_path / "helper.py").write_text('"""No script."""\n')
    (tmp_path / "_shared.py").write_text(GOOD)
    program = (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
    (tmp_path / "__main__.py").write_text(program, encoding="utf-8")

    def call(*arguments):
        command = [sys.executable, str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    call.folder = tmp_path
    return call


def test_the_list_has_a_line_a_script_and_runs_nothing(entry):
    done = entry("--list")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["bad   Does it fail?", "good  Does it work?"]
    assert not (entry.folder / "good.json").exists()


def test_the_scripts_of_the_suite_are_found_and_ask_something():
    command = [sys.executable, "-m", "benchmarks", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert {"inference_speed", "scaling", "roofline", "learning_speed", "rbm_speed"} <= set(lines)
    assert {"collectives", "weak_scaling", "streaming"} <= set(lines)
    assert not {"_common", "__main__", "published_loop"} & set(lines)
    assert all("?" in question for question in lines.values())


def test_flags_are_passed_on_and_success_is_reported(entry, tmp_path):
    done = entry("good", "--quick", "--results", str(tmp_path / "there"))
    assert done.returncode == 0
    assert json.loads((tmp_path / "good.json").read_text()) == [
        "--quick",
        "--results",
        str(tmp_path / "there"),
    ]
    assert done.stdout.splitlines()[-1].split()[::2] == ["good", "ok"]


def test_a_failure_is_named_and_the_others_still_run(entry):
    (entry.folder / "later.py").write_text(NOT_HERE)
    done = entry()
    assert done.returncode == 1
    assert (entry.folder / "good.json").exists()
    results = [line.split()[2:] for line in done.stdout.splitlines()[-3:]]
    assert results == [["failed", "(exit", "status", "3)"], ["ok"], ["skipped"]]


def test_an_unknown_name_is_refused_with_those_there_are(entry):
    done = entry("goof")
    assert done.returncode == 2
    assert "bad, good; got goof" in done.stderr


def test_the_exact_certificate_is_the_duality_gap():
    dictionary = random_dictionary(jax.random.key(0), 6, 4)
    atoms, xs = np.asarray(dictionary.atoms), np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    codes, step = np.zeros((5, 6), np.float32), 1 / np.linalg.norm(atoms, 2) ** 2
    for _ in range(50):
        moved = codes + step * (xs - codes @ atoms) @ atoms.T
        codes = np.sign(moved) * np.maximum(np.abs(moved) - 0.5 * step, 0)
    gaps = jax.jit(jax.vmap(lambda x, z: duality_gap(dictionary, x, z, L1(0.5))))
    worst = []
    for scale in (1, 1.1):
        expected = np.max(np.asarray(gaps(xs, scale * codes)) / (0.5 * np.sum(xs**2, axis=1)))
        worst.append(common.certify(atoms, xs, scale * codes, 0.5)[0])
        np.testing.assert_allclose(worst[-1], expected, rtol=1e-3, atol=1e-6)
    assert worst[0] < 1e-2 and worst[1] > 2 * worst[0]


def test_the_clock_of_the_slots():
    counts = np.array([1, 1, 1, 5])
    assert common.steps_in_slots(counts, 2, np.array([3, 0, 1, 2])) == 5
    assert common.steps_in_slots(counts, 2, np.arange(4)) == 6


def test_blocks_are_counted_whole():
    solver = SpaRSA(block_size=4)
    np.testing.assert_array_equal(common.blocks_of(np.array([0, 4, 8, 9]), solver), [0, 1, 2, 3])


def test_stragglers_do_not_keep_the_slots_waiting():
    counts = np.where(np.arange(1600) % 100 == 0, 60, 3)
    taken = common.steps_in_slots(counts, 64, np.argsort(-counts, kind="stable"))
    assert counts.sum() / 64 <= taken <= 1.3 * counts.sum() / 64


def test_the_slope_is_that_of_a_power_law():
    xs = np.array([1.0, 10.0, 100.0])
    assert common.slope(xs, 3 * xs**1.5) == pytest.approx(1.5)


def test_rows_are_taken_in_the_order_of_the_library():
    dictionary = random_dictionary(jax.random.key(0), 6, 4)
    x = np.ones(4, np.float32)
    order = common.longest_first(dictionary, np.stack([x, 0 * x, 3 * x, 2 * x]))
    assert order.tolist()[:3] == [2, 3, 0]
