"""The faults that mutation testing tries, and the drawing of new ones; `tests/mutants.py` runs them."""

import dataclasses

import mutant_table
import mutants
import pytest
from mutant_drawing import candidates, draw
from mutant_table import Fault, complaints, library_files, part_of, read_table, write_table

FAULTS = read_table()
LIVE = [fault for fault in FAULTS if not fault.struck]
ONE = Fault("half", "neurojax/metrics.py", "error / ", "0.5 * error / ", "hand", "The error is halved.")


def test_every_fault_can_be_run():
    assert not complaints(FAULTS)


def test_there_are_enough_faults_of_both_origins_in_every_part():
    assert len(LIVE) >= 80
    n_drawn = sum(fault.origin == "drawn" for fault in LIVE)
    assert min(n_drawn, len(LIVE) - n_drawn) >= 40
    assert {fault.part for fault in LIVE} == {part_of(file) for file in library_files()}
    assert all(fault.why for fault in LIVE if fault.origin == "hand")


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"before": "no such line"}, "holds 0 times, not once: 'no such line'"),
        ({"before": "return"}, "holds 7 times, not once"),
        ({"file": "neurojax/gone.py"}, "neurojax/gone.py holds 0 times"),
        ({"after": "0.5 * * error / "}, "does not parse"),
        ({"after": "error  / "}, "is the same program"),
        ({"origin": "found"}, "expected an origin of"),
    ],
)
def test_an_entry_that_cannot_be_run_is_told(change, complaint):
    (found,) = complaints([dataclasses.replace(ONE, **change)])
    assert found.startswith("half: ") and complaint in found


def test_two_entries_of_one_name_are_told():
    assert complaints([ONE, ONE]) == ["half: expected one entry of this name"]


def test_a_written_table_is_read_back(tmp_path):
    odd = dataclasses.replace(ONE, before="a = 'b' # ½\n\tc", after='"\\n"', struck="No reason.")
    write_table([odd], tmp_path / "table.toml")
    assert read_table(tmp_path / "table.toml") == [odd]


def test_the_same_seed_draws_the_same_faults():
    one, same, other = (draw(seed, 6, ("chains", "metrics")) for seed in (3, 3, 4))
    assert one == same != other
    assert {fault.part for fault in one} == {"chains", "metrics"}
    assert not complaints(one)


def test_every_kind_of_fault_is_drawn_and_messages_are_left_alone(tmp_path):
    (tmp_path / "one.py").write_text(
        '"""The docstring has 1 number."""\n'
        "def run(x: Array[3], key, limit=1.5):\n"
        "    a, b = jax.random.split(key)\n"
        "    loss = jnp.sum(lax.stop_gradient(x), axis=0) - x * 2\n"
        "    if loss > limit:\n"
        '        raise ValueError(f"expected at most {limit + 1}")\n'
        '    return Path(x) / "name", -loss\n'
    )
    found = {(kind, after) for kind, _, after in candidates("one.py", tmp_path)}
    assert found == {
        ("constant", "def run(x: Array[3], key, limit=3.0):"),
        ("key", "a, b = (key, key)"),
        ("stop_gradient", "loss = jnp.sum((x), axis=0) - x * 2"),
        ("function", "loss = jnp.mean(lax.stop_gradient(x), axis=0) - x * 2"),
        ("axis", "loss = jnp.sum(lax.stop_gradient(x), axis=-1) - x * 2"),
        ("constant", "loss = jnp.sum(lax.stop_gradient(x), axis=1) - x * 2"),
        ("sign", "loss = jnp.sum(lax.stop_gradient(x), axis=0) + x * 2"),
        ("factor", "loss = jnp.sum(lax.stop_gradient(x), axis=0) - x / 2"),
        ("constant", "loss = jnp.sum(lax.stop_gradient(x), axis=0) - x * 3"),
        ("comparison", "if loss >= limit:"),
        ("sign", 'return Path(x) / "name", loss'),
    }


def test_every_fault_meets_the_tests_of_its_own_part_first():
    for fault in LIVE:
        first = mutants.first_tests(fault, mutant_table.ROOT)
        tests = [file for file in first if file.startswith("tests/")]
        assert tests and mutants.OWN_TESTS not in tests
        assert [file for file in first if file not in tests] in ([], [fault.file])


def test_a_sample_holds_live_faults_and_is_the_same_for_the_same_seed():
    words = ["run", "--sample", "15", "--seed", "2"]
    one, same = (mutants.chosen(FAULTS, mutants.parse(words)) for _ in range(2))
    assert one == same and len(one) == 15
    assert not any(fault.struck for fault in one)
    (named,) = mutants.chosen(FAULTS, mutants.parse(["run", "--names", LIVE[0].name]))
    assert named == LIVE[0]
