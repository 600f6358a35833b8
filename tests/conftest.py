"""Shared fixtures: double precision on request, and messages seen as a user without type checks sees them."""

import jax
import jaxtyping
import pooch
import pytest
from threadpoolctl import threadpool_limits


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
