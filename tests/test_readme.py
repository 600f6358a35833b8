"""The README's Python runs as it stands, and the commands it names exist."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["solution"].status == 0 and names["codes"].shape == (1000, 128)
    assert len(names["result"].history) == 500
    assert (tmp_path / "my-run" / "metrics.jsonl").exists()


NAMED = sorted(set(re.findall(r"(?:tests|benchmarks|notebooks|neurojax)/[\w./-]+\w", TEXT)))


@pytest.mark.parametrize("path", NAMED)
def test_every_file_that_is_named_exists(path):
    assert (README.parent / path).exists()
