"""A task whose cost is known in closed form, and timings of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lopt.config import FrozenConfig
from runtime_model.timing import StepTiming


class Inner(FrozenConfig):
    """A family whose cost is known in closed form."""

    family: Literal["toy", "other"] = "toy"
    width: int
    batch: int
    depth: int
    device: Literal["fast", "slow"] = "fast"

    def approximate_cost(self) -> dict[str, float]:
        """Returns width² · batch · (depth + 1), and depth."""
        return {
            "num_params": float(self.width**2),
            "flops_per_step": float(self.width**2 * self.batch * (self.depth + 1)),
            "depth": float(self.depth + 1),
        }


class Toy(FrozenConfig):
    """What is timed."""

    family: Inner

    def approximate_cost(self) -> dict[str, float]:
        """Returns the family's."""
        return self.family.approximate_cost()


def draw(rng: np.random.Generator, count: int, *, family: Literal["toy", "other"] = "toy") -> list[Toy]:
    """Returns toys of widths 8 to 128, batches 4 to 512 and depths 0 to 4."""
    return [
        Toy(
            family=Inner(
                family=family,
                width=int(np.exp(rng.uniform(np.log(8), np.log(129)))),
                batch=int(np.exp(rng.uniform(np.log(4), np.log(513)))),
                depth=int(rng.integers(5)),
                device="slow" if rng.random() < 0.5 else "fast",
            )
        )
        for _ in range(count)
    ]


def seconds(config: Toy) -> float:
    """1e-9 s per operation and 1e-6 s per layer; the slow device takes three times as long."""
    cost, factor = config.approximate_cost(), 3.0 if config.family.device == "slow" else 1.0
    return factor * (1e-9 * cost["flops_per_step"] + 1e-6 * cost["depth"])


def runs(config: Toy) -> bool:
    """Returns whether the toy fits memory."""
    return config.family.width * config.family.batch < 12_000


def record(
    config: Toy, *, valid: bool = True, measured: float | None = None, probe: float | None = None
) -> StepTiming:
    """Returns the timing of a toy."""
    return StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family=config.family.family,
        seconds_per_step=measured,
        compile_seconds=1.0,
        valid=valid,
        reason="" if valid else "too large",
        num_steps=0 if measured is None else 10,
        probe_seconds=probe,
    )


def timings(configs: Sequence[Toy]) -> list[StepTiming]:
    """Returns noiseless timings, of which those that do not fit memory are invalid."""
    return [record(c, valid=runs(c), measured=seconds(c) if runs(c) else None) for c in configs]
