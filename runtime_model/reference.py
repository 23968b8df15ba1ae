"""Timings that come with keirin: those of a reference machine, so that a first run has a run-time model.

Drawn from every family's whole prior on embedded data with VeLO's augmentations, stream 0
(`known_distributions.family_distribution`, `sample_task_configs(…, seed=0)`), and written by
`benchmarks/write_reference_timings.py`. A model fitted to them is corrected by timings of the machine at hand.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Sequence
from importlib import resources

from runtime_model.machine import Machine
from runtime_model.timing import StepTiming

FILE = "reference_timings.jsonl.gz"


@functools.lru_cache(maxsize=1)
def reference_timings() -> tuple[StepTiming, ...]:
    """Returns the shipped timings."""
    return unpack(resources.files("runtime_model").joinpath(FILE).read_bytes())


def pack(timings: Sequence[StepTiming], machine: Machine) -> bytes:
    """Returns the contents of the file: the machine, then one timing per line without it."""
    rows = [timing.model_dump(mode="json", exclude={"machine"}, exclude_defaults=True) for timing in timings]
    lines = [json.dumps(row, separators=(",", ":")) for row in (machine.model_dump(mode="json"), *rows)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)  # the same timings give the same bytes


def unpack(data: bytes) -> tuple[StepTiming, ...]:
    """Returns what `pack` was given."""
    first, *lines = gzip.decompress(data).decode().splitlines()
    machine = Machine.model_validate_json(first)
    return tuple(StepTiming.model_validate({**json.loads(line), "machine": machine}) for line in lines)
