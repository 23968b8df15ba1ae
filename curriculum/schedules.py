"""Outer learning-rate schedules by name: data in a phase, an optax schedule in the learner."""

from __future__ import annotations

from typing import Literal

import optax

ScheduleName = Literal["constant", "cosine"]


def learning_rate_schedule(
    name: ScheduleName,
    *,
    peak: float,
    num_steps: int,
    warm_up: int,
    final_fraction: float,
    zero_steps: int = 0,
) -> optax.Schedule:
    """Returns the outer learning rate as a function of the outer step.

    Args:
      name: "constant", or "cosine": half a cosine from `peak` to `final_fraction · peak`.
      peak: Largest rate.
      num_steps: Length of the phase.
      warm_up: Steps over which the rate rises linearly from zero; Adam's first steps are all of full size
        whatever their gradient, and a meta-gradient from few pairs should not be trusted that far.
      final_fraction: Rate at the end, relative to the peak; ignored by "constant".
      zero_steps: Steps before all that, of rate zero.
    """
    decaying = max(num_steps - warm_up - zero_steps, 1)
    if name == "cosine":
        after = optax.cosine_decay_schedule(peak, decaying, alpha=final_fraction)
    else:
        after = optax.constant_schedule(peak)
    if warm_up:
        rising = optax.linear_schedule(peak / (warm_up + 1), peak, warm_up)
        after = optax.join_schedules([rising, after], [warm_up])
    if zero_steps:
        after = optax.join_schedules([optax.constant_schedule(0.0), after], [zero_steps])
    return after
