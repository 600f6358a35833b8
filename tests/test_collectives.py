"""What eight devices send each other, read from the compiled programs; on one device a mesh adds nothing."""

import os
from collections import Counter

import _programs
import collectives
import pytest
from collectives import QUICK, Collective, of_a_step

from neurojax.distributed import make_mesh

ATOMS = (QUICK.side**2, QUICK.n_atoms)
# What XLA's simplifier writes in either of two ways: it meets the parts of a mapped program in another order.
ELEMENTWISE = {"multiply", "broadcast", "constant", "and", "shift-right-logical"}
ONE = QUICK._replace(replace_after=None)  # `encode_batch` is in the program once, not twice

LOOPS = """HloModule block

%step (p: (f32[4])) -> (f32[4]) {
  %p = (f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%p), index=0
  %whole = f32[32]{0} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
  %sum = (f32[4]{0}, f32[4]{0}) all-reduce(%x, /*index=1*/%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %t = (f32[4]{0}) tuple(%x)
}

%goes_on (p: (f32[4])) -> pred[] {
  %p = (f32[4]{0}) parameter(0)
  ROOT %c = pred[] constant(true)
}

%rare (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %m = f32[4]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
}

%often (p: f32[4]) -> f32[4] {
  ROOT %p = f32[4]{0} parameter(0)
}

ENTRY %main (x: f32[4], i: pred[]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %i = pred[] parameter(1)
  %t = (f32[4]{0}) tuple(%x)
  %w = (f32[4]{0}) while(%t), condition=%goes_on, body=%step
  %y = f32[4]{0} conditional(%i, %x, %x), true_computation=%rare, false_computation=%often
  ROOT %r = f32[4]{0} all-reduce-start(%y), replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add
}
"""


@pytest.fixture(scope="module")
def eight():
    """The collectives of each program on eight devices; compiled in a process beside this one."""
    names = (*collectives.TRAINING, "encode_batch", "sample_chains")
    return collectives.result_of(collectives.start_child(names, QUICK, os.environ.get("XLA_FLAGS", "")))


def test_collectives_are_read_with_the_loops_around_them():
    x = ("f32", (4,))
    assert collectives.collectives(LOOPS) == [
        Collective("all-gather", (x,), 8, 1, False),
        Collective("all-reduce", (x, x), 2, 1, False),
        Collective("collective-permute", (x,), 0, 0, True),
        Collective("all-reduce", (x,), 4, 0, False),
    ]
    assert [one.n_bytes for one in collectives.collectives(LOOPS)] == [16, 32, 16, 16]
    with pytest.raises(ValueError, match="expected a program with an entry computation"):
        _programs.parse("")


def test_an_all_reduce_takes_as_long_as_its_formula_says():
    link = collectives.Link("", 4, (100.0, 0.5), (10.0, 2.0))
    assert collectives.reduction_seconds(200.0, 1, link, False) == 0
    # Three quarters there and back, six hops; then a quarter of the bytes between two nodes.
    assert collectives.reduction_seconds(200.0, 4, link, False) == pytest.approx(2 * 0.75 * 2 + 6 * 0.5)
    both = 2 * 0.75 * 2 + 6 * 0.5 + 2 * 0.5 * 5 + 2 * 2.0
    assert collectives.reduction_seconds(200.0, 8, link, False) == pytest.approx(both)
    rings, trees = (collectives.reduction_seconds(200.0, 64, link, is_tree) for is_tree in (False, True))
    assert rings - trees == pytest.approx((30 - 8) * 2.0)


def without_mesh_and_with(name):
    """Count (opcode, shapes) on one device, outside fused loops and inside; the entry's opcodes in order."""
    counts = []
    for mesh in (None, make_mesh()):
        module = _programs.parse(collectives.compiled(name, ONE, mesh))
        fused = {
            line.rpartition("calls=%")[2].split(",")[0].strip()
            for lines in module.computations.values()
            for _, opcode, _, line in lines
            if opcode == "fusion"
        }
        outside, inside = Counter(), Counter()
        for computation, lines in module.computations.items():
            part = inside if computation in fused else outside
            part.update((one.opcode, _programs.arrays(one.result)) for one in lines)
        entry = [one.opcode for one in module.computations[module.entry] if one.opcode != "parameter"]
        counts.append((outside, inside, entry))
    return counts


def of_another_kind(one, other):
    """Count the instructions that only one of two programs has, all of which have to be element-wise."""
    difference = (one - other) + (other - one)
    assert {opcode for opcode, _ in difference} <= ELEMENTWISE | {"fusion", "parameter"}
    return sum(difference.values())


@pytest.mark.parametrize(
    "name",
    [
        "sample_chains",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("dictionary", "encode_batch", "RBM", "VAE")),
    ],
)
def test_on_one_device_a_mesh_compiles_to_the_same_instructions(name):
    (plain, plain_fused, entry), (meshed, meshed_fused, meshed_entry) = without_mesh_and_with(name)
    assert sum(plain.values()) > 50
    assert Counter(meshed_entry) == Counter(entry)
    if name in ("RBM", "VAE"):
        assert (meshed, meshed_fused, meshed_entry) == (plain, plain_fused, entry)
    # In long programs the compiler may take a factor by which numbers are multiplied at another place, in a
    # fused loop of its own: nothing else, which is to say no product, no copy, no gather and no exchange.
    assert of_another_kind(plain, meshed) <= 0.002 * sum(plain.values())
    assert of_another_kind(plain_fused, meshed_fused) <= 0.01 * sum(plain_fused.values())


@pytest.mark.slow
def test_a_step_of_dictionary_learning_reduces_one_gradient_and_small_things(eight):
    found = of_a_step(eight["dictionary"])
    assert len(found) == 4  # gradient and sums; a count that divides them; a maximum; the atoms used
    assert {one.kind for one in found} == {"all-reduce"}
    assert {one.n_together for one in found} == {8}
    operands = [operand for one in found for operand in one.operands]
    matrices = [shape for _, shape in operands if len(shape) > 1]
    assert matrices in ([ATOMS], [ATOMS[::-1]])  # the gradient, once, in one of its two layouts
    vectors = [operand for operand in operands if len(operand[1]) == 1]
    assert vectors == [("pred", (QUICK.n_atoms,))]  # which atoms any row of the batch used
    # The loss, the unit of the data, and the sums of which the metrics are made.
    assert len(operands) - 2 <= 12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RBM", "VAE"])
def test_a_step_has_one_all_reduce_of_nothing_but_parameters_and_scalars(name, eight):
    (found,) = of_a_step(eight[name])
    assert (found.kind, found.n_loops, found.n_together, found.is_conditional) == ("all-reduce", 1, 8, False)
    sizes = collectives.parameter_sizes(collectives.TRAINING[name](QUICK, 8).model)
    row = collectives.summary(name, [found], sizes)
    assert row["other all-reduced bytes"] == 0
    assert row["scalar bytes"] == {"RBM": 12, "VAE": 8}[name]
    n_phases = {"RBM": 2, "VAE": 1}[name]  # what the data give and what the chains give are reduced apart
    assert row["gradient bytes"] == n_phases * row["parameter bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*collectives.TRAINING])
def test_no_batch_moves_in_data_parallel_training(name, eight):
    """Rows are gathered only where atoms without use are replaced, by the worst coded rows of all devices."""
    # Once a block, whether the chains are finite wherever they lie.
    of_blocks = [one for one in eight[name] if not one.n_loops]
    assert all(one.kind == "all-reduce" and one.n_bytes <= 4 for one in of_blocks)
    assert len(of_blocks) == (2 if name == "RBM" else 0)  # finite, and not NaN
    assert all(one.kind == "all-reduce" for one in eight[name] if not one.is_conditional)
    rare = {one.kind for one in eight[name] if one.is_conditional}
    assert rare == ({"all-gather", "all-reduce"} if name == "dictionary" else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encode_batch", "sample_chains"])
def test_rows_and_chains_over_data_need_no_collective(name, eight):
    assert eight[name] == []


@pytest.mark.slow
def test_atoms_over_model_are_reduced_over_their_own_devices_only():
    """Inference talks over "model" alone; the gradient of the atoms that a device has goes over "data"."""
    name = collectives.OVER_MODEL
    found = collectives.result_of(collectives.start_child([name], QUICK))[name]
    assert {one.n_together for one in found if one.n_loops > 1 and not one.is_conditional} == {2}
    over_data = [one for one in of_a_step(found) if one.n_together == 4]
    matrices = [shape for one in over_data for _, shape in one.operands if len(shape) > 1]
    assert matrices in ([(ATOMS[0], ATOMS[1] // 2)], [(ATOMS[1] // 2, ATOMS[0])])
