"""Strict settings for every test: what JAX would promote silently is an error, and so is any warning."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before JAX is imported: tests run on the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # its log belongs to its server

# First of all, because importing Prefect resets logging and closes the handlers it finds. absl's, which comes
# with Flax, would take with it whichever test's standard error it was made on.
import prefect.main  # noqa: F401, I001
import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Keeps what takes long to compile in pytest's own cache: most of a test's time is compilation.

    pytest-xdist's processes share it, and a second run finds all of it. It is not set in the environment: processes
    that tests start have the caches that they would have for a user.
    """
    if getattr(config, "cache", None) is not None:  # it is a plugin, which can be switched off
        jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="session")
def strict_jax() -> Iterator[None]:
    """Refuses implicit dtype and rank promotion, as a numerical library should."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def golden() -> Path:
    """The folder of reference arrays, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("KEIRIN_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no reference arrays at {folder}; set KEIRIN_GOLDEN to the folder that holds them")
    return folder
