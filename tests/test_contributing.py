"""CONTRIBUTING.md: each recipe is a file to copy, and passes the test beside it."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^## (Add [^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
KINDS = ("penalty", "smooth term", "solver", "dictionary", "kind of visible unit", "decoder")


def test_there_is_a_recipe_for_each_part():
    assert set(RECIPES) == {f"Add a {kind}" for kind in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_passes_its_test(title):
    blocks = re.findall(r"^```python\n(.*?)^```", RECIPES[title], re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    names = {"__name__": "recipe"}
    for block in blocks:
        exec(compile(block, title, "exec"), names)
