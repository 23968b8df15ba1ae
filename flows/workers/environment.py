"""The environment of a worker process: it owns its cores and shares one compilation cache.

XLA starts a thread pool as wide as the machine in every process; two such workers on two cores spend their
time on each other's threads. So every worker gets exactly the threads it was given. The persistent cache
means that a restarted run, or a worker that takes over from a killed one, loads a program instead of
compiling it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from flows.settings import ENVIRONMENT_PREFIX, RuntimeSettings

HOME = f"{ENVIRONMENT_PREFIX}HOME"


def worker_environment(settings: RuntimeSettings) -> dict[str, str]:
    """Returns the variables that must be set before JAX is imported in a worker."""
    threads = settings.threads_per_worker
    environment = {
        HOME: str(settings.home.resolve()),  # prepared data sets are found there
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "NPROC": str(threads),  # read by XLA's CPU client: the size of its own thread pool
        "XLA_FLAGS": xla_flags(threads),
        "JAX_COMPILATION_CACHE_DIR": str((settings.home / "compilation_cache").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # Compilers allocate from many threads; with an arena for each, freed memory stays in pieces.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's notes on cached programs: nothing to act on
        # The cache only saves time; a full disk, or an entry cut short by one, is reported by who needs it.
        "PYTHONWARNINGS": "ignore:Error writing persistent:UserWarning,ignore:Error reading persistent:UserWarning",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # several workers may share one GPU
    }
    if settings.platform:
        environment["JAX_PLATFORMS"] = settings.platform
    return environment


def apply_worker_environment(
    settings: RuntimeSettings, environment: MutableMapping[str, str] | None = None
) -> None:
    """Gives this process the workers' variables; call before importing JAX.

    What the user has set stays, except the workspace: an option of the command line wins over the variable.

    The learner's own arithmetic then runs in the same program, with the same number of threads, whether the
    units of work run here or elsewhere.
    """
    target = os.environ if environment is None else environment
    for name, value in worker_environment(settings).items():
        target.setdefault(name, value)
    target[HOME] = str(settings.home.resolve())


def xla_flags(threads: int) -> str:
    """Returns XLA's flags for a process of so many threads.

    XLA fills half of a 512-bit register unless told otherwise; measured on one processor (AMD, Zen 5), full ones
    take a third off `pacer`'s network. The last word is no flag of XLA's, which reads none after it.
    """
    eigen = "true" if threads > 1 else "false"
    return (
        f"--xla_cpu_multi_thread_eigen={eigen} --xla_cpu_prefer_vector_width=512 "
        f"intra_op_parallelism_threads={threads}"
    )
