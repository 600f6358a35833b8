"""The README's Python runs as it stands, calls what there is, and names files that exist."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def run(blocks, names=None):
    names = {} if names is None else names
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    return names


@pytest.mark.slow
def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(BLOCKS[:1])
    assert names["solution"].status == 0 and names["codes"].shape == (1000, 128)
    names = run(BLOCKS[1:], names)
    assert len(names["result"].history) == 500
    assert (tmp_path / "my-run" / "metrics.jsonl").exists()


def imported_names(tree):
    """Return what the imports of a program bind, by name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = importlib.import_module(alias.name)
                names[alias.asname or alias.name] = (
                    module if alias.asname else importlib.import_module(alias.name.partition(".")[0])
                )
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(module, alias.name)
    return names


def resolve(node, names):
    """Return the object that a dotted name stands for, or None if it is not imported."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


def check_calls(program):
    """Bind the arguments of each call of an imported function to its signature; return how many there are."""
    tree = ast.parse(program)
    names, n_calls = imported_names(tree), 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or (function := resolve(node.func, names)) is None:
            continue
        is_open = any(isinstance(a, ast.Starred) for a in node.args) or any(not k.arg for k in node.keywords)
        signature = inspect.signature(function)
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        bind = signature.bind_partial if is_open else signature.bind
        try:
            bind(*(None for a in node.args if not isinstance(a, ast.Starred)), **keywords)
        except TypeError as error:
            raise AssertionError(f"{ast.unparse(node)}: {error}") from error
        n_calls += 1
    return n_calls


def test_calls_in_python_blocks_name_functions_and_arguments_that_exist():
    assert check_calls("\n".join(BLOCKS)) > 60
    with pytest.raises(AssertionError, match="lamda"):
        check_calls("from neurojax.penalties import L1\nL1(lamda=1)")
    with pytest.raises(AttributeError, match="encod"):
        check_calls("from neurojax import sparse_coding\nsparse_coding.encod(1)")


def test_every_file_that_is_named_exists():
    named = sorted(set(re.findall(r"(?:tests|benchmarks|notebooks|neurojax)/[\w./-]+\w", TEXT)))
    assert len(named) > 5
    assert not [path for path in named if not (README.parent / path).exists()]
