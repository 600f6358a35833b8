"""The notebooks: what is stored is whole and says nothing of the machine, and they still run."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|opt|Users|var)/|[A-Z]:\\\\Users")
MAX_BYTES = 4_000_000


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_is_executed_and_clean(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), "expected every cell run once, in order"
    for number, cell in enumerate(cells, 1):
        kinds = [output["output_type"] for output in cell["outputs"]]
        assert kinds, f"code cell {number} has no output"
        assert "error" not in kinds, f"code cell {number} ended in an error"
        assert not any(output.get("name") == "stderr" for output in cell["outputs"]), number
    assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_names_no_machine_path(path):
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    found = MACHINE_PATH.search(json.dumps(notebook, ensure_ascii=False))
    assert found is None, found and found.group()


@pytest.mark.parametrize("line", ["see /home/someone/x", "in '/var/abc'", "C:\\\\Users\\\\x", "(/root/y)"])
def test_a_machine_path_would_be_found(line):
    assert MACHINE_PATH.search(line)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_the_short_setting(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("NEUROJAX_SHORT", "1")
    # Data that are not at hand are not to be downloaded: let the attempt fail at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("short setting" in output.get("text", "") for output in outputs)
