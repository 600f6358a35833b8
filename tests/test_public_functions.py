"""The table of the public interface is complete and true."""

import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from public_functions import COMPUTATION, ENTRIES, KINDS, PLATFORMS, public_names

NAMES = public_names()


def of_kind(*kinds):
    return [entry for entry in ENTRIES if entry.kind in kinds]


def test_the_table_holds_every_public_name_and_no_other():
    listed = {entry.name for entry in ENTRIES}
    assert sorted(NAMES.keys() - listed) == [], "public names without an entry in tests/public_functions"
    assert sorted(listed - NAMES.keys()) == [], "entries whose name is not public"


def test_every_entry_has_its_own_identifier():
    repeated = [name for name, count in Counter(map(str, ENTRIES)).items() if count > 1]
    assert repeated == []


def test_an_entry_says_why_it_takes_no_transformation():
    for entry in ENTRIES:
        assert entry.kind in KINDS, entry
        assert (entry.call is not None) == (entry.kind in (COMPUTATION, "eager")), entry
        takes_all = entry.is_jittable and entry.is_differentiable and entry.platforms == PLATFORMS
        assert takes_all or entry.why, f"{entry} does not say why"


def test_differentiable_arguments_exist():
    for entry in ENTRIES:
        if entry.is_differentiable:
            arguments = eqx.filter_eval_shape(entry.arguments)
            assert set(entry.differentiable) <= arguments.keys(), entry


def test_kinds_are_those_of_the_objects():
    for entry in of_kind("exception"):
        assert issubclass(NAMES[entry.name], BaseException), entry
    for entry in ENTRIES:
        name = entry.name.rpartition(".")[2]
        assert name.startswith("Abstract") == (entry.kind == "abstract class"), entry
        assert (entry.name.startswith("plotting.")) == (entry.kind == "pictures"), entry
        if entry.kind == "record":
            assert inspect.isclass(NAMES[entry.name]), entry


@pytest.mark.parametrize("entry", of_kind("eager"), ids=str)
def test_eager_entries_refuse_to_be_traced(entry):
    arguments = eqx.filter_eval_shape(entry.arguments)
    with pytest.raises(Exception, match=r"(?i)tracer|known|concrete|traced"):
        jax.eval_shape(entry.call, **arguments)


@pytest.mark.parametrize("entry", of_kind("eager"), ids=str)
def test_eager_entries_can_be_called(entry):
    for leaf in jax.tree.leaves(entry.call(**entry.arguments())):
        assert np.all(np.isfinite(leaf))


@pytest.mark.slow
def test_the_table_starts_nothing():
    """Importing the table adds little to importing the library, and computes nothing."""
    program = (
        "import time, jax, equinox, optax, matplotlib.pyplot\n"
        "from jax._src import xla_bridge\n"
        "import neurojax.autoencoder, neurojax.neural_coding, neurojax.plotting, neurojax.sparse_coding\n"
        "before = set(xla_bridge._backends)\n"
        "start = time.process_time()\n"
        "import public_functions\n"
        "assert time.process_time() - start < 1\n"
        "assert set(xla_bridge._backends) == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent, timeout=120)
