"""What a measurement was made on: the hardware, the versions, and how busy the machine was."""

from __future__ import annotations

import functools
import os
import platform
from importlib.metadata import version
from pathlib import Path

import jax

from lopt.config import FrozenConfig


class Machine(FrozenConfig):
    """Where and with what a timing was taken; two timings of equal machines can be compared."""

    hardware: str
    """JAX platform, device or processor, and the threads that XLA was given: "cpu:Intel Xeon:1 thread"."""
    jax_version: str
    jaxlib_version: str
    keirin_version: str

    @property
    def threads(self) -> int:
        """Threads that XLA was given; 1 where the hardware is no processor."""
        words = self.hardware.rpartition(":")[2].split()
        return int(words[0]) if words[-1].startswith("thread") else 1

    def differences(self, other: Machine) -> list[str]:
        """Returns what differs, "jax 0.10.2 there, 0.11.0 here" each, in the order of the fields."""
        names = {"jax_version": "jax", "jaxlib_version": "jaxlib", "keirin_version": "keirin"}
        pairs = ((name, getattr(other, name), getattr(self, name)) for name in type(self).model_fields)
        return [f"{names.get(n, n)} {there} there, {here} here" for n, there, here in pairs if there != here]


@functools.lru_cache(maxsize=1)
def this_machine() -> Machine:
    """Returns what this process runs on. Asks JAX for its devices, which initialises it."""
    return Machine(
        hardware=_hardware(),
        jax_version=jax.__version__,
        jaxlib_version=version("jaxlib"),
        keirin_version=version("keirin"),
    )


def load_average() -> float | None:
    """Returns how many processes wanted a core in the last minute, this one included; None where unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _hardware() -> str:
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.platform}:{device.device_kind}"
    threads = int(os.environ.get("NPROC") or os.cpu_count() or 1)  # NPROC is what XLA's CPU client reads
    return f"cpu:{_processor()}:{threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    """Returns the processor's name; JAX calls every one "cpu"."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
