"""One phase on other hardware: a derivation by stated rules, not a copy.

`with_outer_steps` makes a phase longer or shorter. Its length schedules are stretched with it, so that they
end at the same share of the phase; a warm-up keeps its length, because it is what the rule's statistics need,
but takes no more than a quarter of the phase.

`scaled` changes the number of workers, from the one the phase says it was made for:

- the batch and the number of configurations are multiplied by the ratio, so that every worker has the work it had;
  no fewer than eight configurations are held (or as many as there were): fewer would be a narrower distribution;
- staleness stays as it is, since theta moves as often per unit of work;
- the learning rate is multiplied by the ratio of the batches to the power that the rule says: ½ for rules that
  divide by the gradient's size [1], 1 for gradient descent;
- outer steps stay as they are, and fewer tasks are seen; `keep="tasks"` makes as many more as the batch is smaller.

[1] Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms", arXiv:2205.10287.
"""

from __future__ import annotations

from typing import Any, Literal

from curriculum.phase import Phase
from lopt.config import derive
from runtime_model.rejection import ProblemSizeThresholds

Keep = Literal["outer_steps", "tasks"]
MIN_STATIC_CONFIGS = 8
"""What one of VeLO's workers held (E.3)."""


def with_outer_steps(phase: Phase, outer_steps: int, **changes: Any) -> Phase:
    """Returns the phase with that many outer steps, and `changes` to other fields, validated whole."""
    if outer_steps < 1:
        raise ValueError(f"`outer_steps` must be at least 1, got {outer_steps}")
    optimizer, estimator = phase.theta_optimizer, phase.estimator
    quarter = outer_steps // 4
    optimizer = derive(
        optimizer,
        warm_up=min(optimizer.warm_up, quarter),
        statistics_warm_up=min(optimizer.statistics_warm_up, quarter),
    )
    limits = {
        name: limit.stretched(old=phase.outer_steps, new=outer_steps)
        for name in ("horizon_limit", "unroll_limit")
        if (limit := getattr(estimator, name, None)) is not None
    }
    changed = {"theta_optimizer": optimizer, "estimator": derive(estimator, **limits), **changes}
    return derive(phase, outer_steps=outer_steps, **changed)


def scaled(
    phase: Phase, *, num_workers: int, suffix: str, slowdown: float = 1.0, keep: Keep = "outer_steps"
) -> Phase:
    """Returns the phase for `num_workers` workers; the module says by which rules.

    Args:
      phase: What to scale.
      num_workers: How many there will be.
      suffix: Put behind the phase's name, and behind that of the phase it starts from.
      slowdown: How many times longer the same inner step takes on the other hardware; limits in seconds follow.
      keep: What stays: the number of outer steps, or that of the tasks that are trained on.

    Raises:
      ValueError: If an argument is not positive.
    """
    if num_workers < 1 or not slowdown > 0:
        raise ValueError(f"`num_workers` and `slowdown` must be positive, got {num_workers} and {slowdown}")
    ratio, held = num_workers / phase.num_workers, phase.num_static_configs
    num_static_configs = max(min(MIN_STATIC_CONFIGS, held), round(held * ratio))
    batch_size = None if phase.batch_size is None else max(1, round(phase.batch_size * ratio))
    smaller = (batch_size or num_static_configs) / (phase.batch_size or held)
    optimizer = phase.theta_optimizer
    rate = optimizer.learning_rate * smaller**optimizer.update_rule.rate_exponent
    thresholds = phase.problem_size
    result = derive(
        phase,
        name=phase.name + suffix,
        start_from=phase.start_from and phase.start_from + suffix,
        num_workers=num_workers,
        num_static_configs=num_static_configs,
        batch_size=batch_size,
        theta_optimizer=derive(optimizer, learning_rate=rate),
        problem_size=ProblemSizeThresholds(
            seconds=tuple(s * slowdown for s in thresholds.seconds), probabilities=thresholds.probabilities
        ),
        unit_timeout=phase.unit_timeout * slowdown,
    )
    return with_outer_steps(result, round(phase.outer_steps / smaller)) if keep == "tasks" else result
