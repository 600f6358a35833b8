"""Shared fixtures: double precision on request, and messages seen as a user without type checks sees them."""

import os

import jax
import jaxtyping
import pooch
import pytest
from threadpoolctl import threadpool_limits

# Compile in a third of the time, as most functions of the tests run once: machine code that is not optimised,
# and XLA's plain way of emitting fused loops. XLA ends the process at a flag that it does not know, so those
# that may go are set only for the versions that are known to have them.
QUICK_COMPILATION = "--xla_backend_optimization_level=0"
if (0, 8) <= jax.__version_info__[:2] <= (0, 10):
    QUICK_COMPILATION += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def pytest_configure(config):
    """Have the default run compile quickly; slow tests run what users run."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] = f"{QUICK_COMPILATION} {os.environ.get('XLA_FLAGS', '')}"


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
