"""Quick compilation for all tests; fixtures: double precision on request, messages without type checks."""

import gc
import os
import shutil
from collections import Counter
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pooch
import pytest
from threadpoolctl import threadpool_limits

# Most functions of the tests run once, so the tests compile in a third of the time: machine code that is not
# optimized, and XLA's plain way of emitting fused loops. XLA ends the process at a flag it does not know;
# the flags that may disappear are set only for the versions that are known to have them.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if (0, 8) <= jax.__version_info__[:2] <= (0, 12):
    QUICK_COMPILATION += " --xla_cpu_parallel_codegen_split_count=1"
if (0, 8) <= jax.__version_info__[:2] <= (0, 10):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false"

# Compiled programs are kept from run to run, and shared by the workers and by the processes that tests start.
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
COMPILED_LIMIT = 1_000_000_000  # bytes
CACHE = {
    "jax_compilation_cache_dir": str(COMPILED),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_traceback_in_locations_limit": 0,  # nobody reads where an operation of a compiled test was written
}


# The same examples in each run: a change fails for what it does, and not for the examples of the day.
# `pytest --hypothesis-profile=default` looks for new ones.
hypothesis.settings.register_profile("same-examples", derandomize=True, database=None)
hypothesis.settings.load_profile("same-examples")


def pytest_configure(config):
    """Have the default run compile quickly and keep what it compiled; slow tests run what users run."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] = f"{QUICK_COMPILATION} {os.environ.get('XLA_FLAGS', '')}"
    if not hasattr(config, "workerinput"):
        forget_too_much()
    # In the environment for the processes that tests start, in the configuration for this one.
    for name, value in CACHE.items():
        os.environ.setdefault(name.upper(), str(value))
        jax.config.update(name, type(value)(os.environ[name.upper()]))


def forget_too_much():
    """Empty the folder of compiled programs when it has grown over its limit, before any worker starts."""
    if COMPILED.exists() and sum(path.stat().st_size for path in COMPILED.iterdir()) > COMPILED_LIMIT:
        shutil.rmtree(COMPILED)


# Each program that a process holds has memory mapped for its code. With ten thousand such areas (Linux ends a
# process at 65,530) the kernel takes three times as long for each change of them, and all of JAX with it.
AREAS = Path("/proc/self/maps")
AREAS_LIMIT = 4000  # a process that only imported everything has about 1600


def pytest_addoption(parser):
    """Add ``--share K/N``: N such runs, from 1/N to N/N, are together one whole run."""
    parser.addoption("--share", default="1/1", metavar="K/N", help="of each file's slow tests every N-th")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Make the examples of docstrings slow tests, which other tests hold; keep the share asked for."""
    first, n_shares = map(int, config.option.share.split("/"))
    n_before, kept, passed_over = Counter(), [], []
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("slow")
        is_slow = item.get_closest_marker("slow") is not None
        is_kept = not is_slow or n_before[item.path] % n_shares == first - 1
        n_before[item.path] += is_slow
        (kept if is_kept else passed_over).append(item)
    if passed_over:
        config.hook.pytest_deselected(items=passed_over)
    items[:] = kept


def pytest_collection_finish(session):
    """Spare the garbage collector what stays to the end: the modules and the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_runtest_teardown(item, nextitem):
    """Let go of compiled programs after a file of tests, when there are many."""
    if (nextitem is None or nextitem.path != item.path) and memory_areas() > AREAS_LIMIT:
        jax.clear_caches()
        gc.collect()


def memory_areas():
    """Return the number of separately mapped areas of memory, 0 where the system does not tell."""
    return AREAS.read_bytes().count(b"\n") if AREAS.exists() else 0


def pytest_sessionfinish(session):
    """Spare pytest's last collections of garbage a walk through all that is left."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """Tests run in a process a core: more BLAS threads would only get in each other's way."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def x64():
    """Run one test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def untyped():
    """Switch jaxtyping's checks off, so that the library's own messages are what is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No data folder, an empty cache, and a download that fails."""
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)

    def refuse(*args, **kwargs):
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    return tmp_path / "neurojax"
