"""Papers' phases for two cores and a few minutes: the same mechanisms in the same order, everything else small."""

from __future__ import annotations

from typing import Any

from curriculum.phase import Phase
from curriculum.scaling import scaled, with_outer_steps
from lopt.config import derive
from runtime_model.rejection import ProblemSizeThresholds

CORES = 2
SUFFIX = "_laptop"


def on_a_laptop(
    phase: Phase,
    *,
    summary: str,
    distribution: str,
    outer_steps: int,
    learning_rate: float,
    estimator: dict[str, Any],
    seconds: tuple[float, ...] = (6e-5, 1.5e-4),
    **changes: Any,
) -> Phase:
    """Returns the phase, scaled to two workers and cut down by hand where a ratio would leave nothing.

    Args:
      phase: The paper's.
      summary: One line for people.
      distribution: One that needs no prepared data.
      outer_steps: How many; schedules and warm-ups shrink with them.
      learning_rate: Peak rate: a few dozen steps must show an effect.
      estimator: Changed fields, above all the lengths.
      seconds: Largest predicted seconds per inner step, equally often.
      **changes: Other changed fields.
    """
    small = with_outer_steps(scaled(phase, num_workers=CORES, suffix=SUFFIX), outer_steps)
    fields: dict[str, Any] = {
        "summary": summary,
        "distribution": distribution,
        "problem_size": ProblemSizeThresholds.normalized(
            seconds=seconds, probabilities=(1.0,) * len(seconds)
        ),
        "num_static_configs": 6,
        "min_num_params": 200,
        "max_num_params": 4_000,
        "estimator": derive(small.estimator, **estimator),
        "theta_optimizer": derive(small.theta_optimizer, learning_rate=learning_rate),
        "validate_every": max(outer_steps // 4, 1),
        "checkpoint_every": max(outer_steps // 4, 1),
    }
    return derive(small, **{**fields, **changes})
