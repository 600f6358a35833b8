"""The report of the GPU benchmark, and what happens where there is no GPU; none of this needs one."""

import json
import time

import _gpu_plot as plot
import _gpu_tests as tests
import gpu
import pytest
from _gpu_report import Part, Report, markdown

SETTING = {"quick": True}


def read(folder):
    return json.loads((folder / "gpu.json").read_text())


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path, SETTING)


@pytest.fixture
def no_gpu(monkeypatch):
    """Have JAX find no GPU, so that nothing is measured where there is one."""
    monkeypatch.setattr(gpu.jax, "default_backend", lambda: "cpu")


def test_without_a_gpu_it_refuses_and_names_quick(no_gpu, capsys):
    assert gpu.main(["--parts=tests"]) == 2
    error = capsys.readouterr().err
    assert "expected a GPU" in error and "--quick" in error


def test_where_all_scripts_run_it_is_skipped_without_a_gpu(no_gpu, monkeypatch, capsys):
    monkeypatch.setenv("NEUROJAX_BENCHMARKS", "all")
    assert gpu.main([]) == gpu.SKIPPED
    assert "no GPU: skipped" in capsys.readouterr().out


def test_an_unknown_part_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--quick", "--parts=cods"])
    assert ended.value.code == 2
    assert "tests,codes,updates,pipeline; got cods" in capsys.readouterr().err


def test_a_row_is_in_the_file_before_the_part_ends(report, tmp_path):
    def measure(part):
        part.add("table", {"ms": 1.0})
        assert read(tmp_path)["parts"]["first"]["status"] == "running"
        assert read(tmp_path)["parts"]["first"]["tables"] == {"table": [{"ms": 1.0}]}

    report.run("first", 10, measure)
    assert read(tmp_path)["parts"]["first"]["status"] == "ok"
    assert not report.has_failed()


@pytest.mark.parametrize("error", [ValueError("wrong\nlong"), SystemExit("wrong")])
def test_a_failure_keeps_the_figures_and_the_other_parts(report, tmp_path, error):
    def measure(part):
        part.add("table", {"ms": 1.0})
        raise error

    report.run("first", 10, measure)
    report.run("second", 10, lambda part: part.add("other", {"ms": 2.0}))
    parts = read(tmp_path)["parts"]
    assert parts["first"]["status"] == "failed" and parts["second"]["status"] == "ok"
    assert parts["first"]["errors"] == [f"first: {type(error).__name__}: wrong"]
    assert parts["first"]["tables"] == {"table": [{"ms": 1.0}]}
    assert report.has_failed()


def test_a_step_that_would_not_fit_is_left_out_by_name():
    part = Part("part", 0.5, lambda: None)
    assert part.attempt("first", "kind", 0.1, lambda: time.sleep(0.3) or "done") == "done"
    assert (
        part.attempt("second", "kind", 0.1, lambda: "done") is None
    )  # expected to take as long as the first
    assert part.attempt("third", "quicker kind", 0.1, lambda: "done") == "done"
    assert [what.split()[0] for what in part.left_out] == ["second"]
    assert not part.errors


def test_the_picture_is_drawn_of_whatever_there_is(report):
    report.skip("codes", "no time is left for it")
    report.run("updates", 10, lambda part: part.add("updates", UPDATE))
    figure = plot.draw(report.content())
    titles = [axes.get_title() for axes in figure.axes]
    assert "updates" in titles
    assert sum("not measured" in text.get_text() for axes in figure.axes for text in axes.texts) == 3
    text = markdown(report.content())
    assert "codes (no time is left for it)" in text
    assert "| PCD |" in text


UPDATE = {"update": "PCD", "ms an update": 2.0, "ms of its products alone": 1.0}


@pytest.mark.parametrize(("outcome", "code"), [("failed", 1), ("skipped", 0), ("error", 1)])
def test_a_test_that_did_not_pass_fails_the_part(outcome, code):
    part = Part("tests", 10, lambda: None)
    part.add("agreement with the CPU", {"test": "t", "outcome": outcome})
    tests.judge(part, code)
    assert part.errors == [f"t: {outcome}"]


def test_no_test_at_all_and_a_crash_fail_the_part():
    part = Part("tests", 10, lambda: None)
    tests.judge(part, 0)
    assert part.errors == ["pytest ran no test"]
    part = Part("tests", 10, lambda: None)
    part.add("agreement with the CPU", {"test": "t", "outcome": "passed"})
    tests.judge(part, -11)
    assert part.errors == ["pytest ended with status -11"]


def test_the_tests_get_both_platforms_and_no_large_share_of_memory(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    variables = tests.environment(has_gpu=True)
    assert variables["JAX_PLATFORMS"] == "cuda,cpu"
    assert variables["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "NEUROJAX_GPU_TESTS" not in variables
    assert tests.environment(has_gpu=False)["NEUROJAX_GPU_TESTS"] == "cpu"
