"""Whether data fit the device: asked before anything is loaded, of a set's numbers alone."""

from __future__ import annotations

import os

import jax

DEVICE_SHARE = 0.5
"""Of the device's memory: what data may take. The rest is for parameters, optimizer states and activations."""


class DatasetTooLargeError(ValueError):
    """A data set that does not fit the device next to training."""


def device_memory() -> int | None:
    """Returns the bytes of memory of the first device (on a CPU: of the machine), or None where unknown."""
    statistics = jax.devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_fits_device(what: str, num_bytes: int, remedy: str) -> None:
    """Refuses data that would take more than `DEVICE_SHARE` of the device.

    Args:
      what: How the message names the data: "dataset 'imagenet64' at 64×64".
      num_bytes: Their size on the device.
      remedy: What to do instead, a sentence.

    Raises:
      DatasetTooLargeError: With both sizes.
    """
    memory = device_memory()
    if memory is not None and num_bytes > DEVICE_SHARE * memory:
        raise DatasetTooLargeError(
            f"{what} takes {_size(num_bytes)} on the device, which may give it {_size(DEVICE_SHARE * memory)} "
            f"({DEVICE_SHARE:.0%} of {_size(memory)}). {remedy}"
        )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**28 else f"{num_bytes / 2**20:.1f} MiB"
