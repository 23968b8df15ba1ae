"""Timings as arrays: what every estimator is fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from runtime_model.features import Pair, read_pairs
from runtime_model.timing import StepTiming


class TimingTable(NamedTuple):
    """N timings of one machine."""

    pairs: tuple[list[Pair], ...]
    families: np.ndarray  # [N] str
    fingerprints: np.ndarray  # [N] str
    log_seconds: np.ndarray  # [N], NaN where not measured; at the machine's usual speed
    is_valid: np.ndarray  # [N] bool: it runs; whether soon enough, the seconds say

    @property
    def is_timed(self) -> np.ndarray:
        """[N]: whether the seconds are known."""
        return np.isfinite(self.log_seconds)

    def rows(self, keep: np.ndarray) -> TimingTable:
        """Returns the rows that `keep` [N] (bool) marks."""
        kept = [pairs for pairs, wanted in zip(self.pairs, keep, strict=True) if wanted]
        return TimingTable(tuple(kept), *(column[keep] for column in self[1:]))


def timing_table(timings: Sequence[StepTiming], config_type: type[BaseModel]) -> TimingTable:
    """Returns the table of `timings`.

    A configuration that ran but was slower than the limit of its timing counts as one that runs: a budget
    decides by its seconds. Those of a first, cold step, after which it was refused, count as not measured.
    Seconds are brought to the machine's usual speed: a timing that was taken while the speed probe needed a
    third longer than usual is taken to have needed a third longer, too.
    """
    usual = usual_probe(timings)
    slowdown = [(timing.probe_seconds or usual) / usual for timing in timings]

    def at_usual_speed(seconds: Sequence[float | None]) -> np.ndarray:
        pairs = zip(seconds, slowdown, strict=True)
        return np.asarray([math.nan if not s else s / factor for s, factor in pairs])

    return TimingTable(
        pairs=tuple(read_pairs(config_type.model_validate_json(t.config_json)) for t in timings),
        families=np.asarray([t.family for t in timings]),
        fingerprints=np.asarray([t.config_fingerprint for t in timings]),
        log_seconds=np.log(at_usual_speed([t.seconds_per_step if t.num_steps else None for t in timings])),
        is_valid=np.asarray([t.valid or bool(t.seconds_per_step) for t in timings], bool),
    )


def usual_probe(timings: Sequence[StepTiming]) -> float:
    """Returns the geometric mean of the probes; a median would jump between two speeds that a machine often has."""
    logs = [math.log(timing.probe_seconds) for timing in timings if timing.probe_seconds]
    return math.exp(math.fsum(logs) / len(logs)) if logs else 1.0
