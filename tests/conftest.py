"""Strict settings for every test: what JAX would promote silently is an error, and so is any warning."""

from __future__ import annotations

import ctypes
import gc
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
import psutil
import pytest

# Most of XLA's time goes into optimizing programs that a test then runs for milliseconds. Hardly optimized, they do
# the same operations through another of its code generators, and round differently. `--optimized` compiles as for
# users: `make test-slow` does so, and every process that a test starts does so anyway. Comparisons with room for a
# rounding or two are always compiled as for users (tests/support/compilation.py).
UNOPTIMIZED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"

# Tracing makes objects by the million and few cycles: looking for those less often saves 5 to 9 % of what compiles.
gc.set_threshold(50_000, 20, 50)

MAX_MEMORY = 2 * 2**30  # bytes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--optimized", action="store_true", help="compile as for users; takes several times as long"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Keeps what takes long to compile in pytest's own cache: most of a test's time is compilation.

    pytest-xdist's processes share it, and a second run finds all of it. It is not set in the environment: processes
    that tests start have the caches that they would have for a user.
    """
    optimized = config.getoption("--optimized") or not compile_unoptimized()
    if getattr(config, "cache", None) is not None:  # it is a plugin, which can be switched off
        folder = config.cache.mkdir("xla" if optimized else "xla-unoptimized")
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def compile_unoptimized() -> bool:
    """Has XLA not optimize this process's programs, unless the caller set flags; returns whether it was done."""
    if jax.config.jax_platforms != "cpu" or "XLA_FLAGS" in os.environ:
        return False
    os.environ["XLA_FLAGS"] = UNOPTIMIZED
    jax.devices()  # XLA reads its flags once, now
    del os.environ["XLA_FLAGS"]  # processes that tests start have none
    return True


@pytest.fixture
def is_optimized(pytestconfig: pytest.Config) -> bool:
    """Whether programs are compiled as for users. Hardly optimized, two programs that do the same may differ by a
    rounding: what must be equal bit for bit is so in the slow tests, and close in the others."""
    return bool(pytestconfig.getoption("--optimized"))


@pytest.fixture
def xla_flags(pytestconfig: pytest.Config) -> str:
    """XLA's flags for a process that a test starts for the test's own programs: as this one's."""
    return "" if pytestconfig.getoption("--optimized") else UNOPTIMIZED


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Drops compiled programs when they fill the memory: JAX keeps them all, and a whole run makes thousands."""
    yield
    if psutil.Process().memory_info().rss > MAX_MEMORY:
        jax.clear_caches()
        gc.collect()
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc keeps what is freed, until it is told
            libc.malloc_trim(0)


@pytest.fixture(autouse=True, scope="session")
def strict_jax() -> Iterator[None]:
    """Refuses implicit dtype and rank promotion, as a numerical library should."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def golden() -> Path:
    """The folder of reference arrays, or a skip that says where it was looked for."""
    folder = Path(os.environ.get("KEIRIN_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")
    if not folder.is_dir():
        pytest.skip(f"no reference arrays at {folder}; set KEIRIN_GOLDEN to the folder that holds them")
    return folder
