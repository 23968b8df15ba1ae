"""Giving memory back: JAX keeps what it has compiled, and the C library what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

import jax


def release_memory() -> None:
    """Drops compiled programs and gives freed memory back to the system."""
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL("libc.so.6").malloc_trim(0)
