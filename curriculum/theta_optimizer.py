"""How meta-gradients change theta: clipped, made a direction by a rule, multiplied by a rate; then averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import optax
from pydantic import Field

from curriculum.schedules import ScheduleName, learning_rate_schedule
from curriculum.update_rules import AdamConfig, AnyUpdateRule
from lopt.config import FrozenConfig

Clip = Literal["global_norm", "elementwise"]
CLIPS: dict[Clip, Callable[[float], optax.GradientTransformation]] = {
    "global_norm": optax.clip_by_global_norm,
    "elementwise": optax.clip,
}


class ThetaOptimizerConfig(FrozenConfig):
    """Clip, rule, learning rate, and the average of theta. The critical numbers have no default."""

    learning_rate: float = Field(gt=0)
    schedule: ScheduleName = "cosine"
    statistics_warm_up: int = Field(0, ge=0)
    """First outer steps, at learning rate 0: theta stays, the rule's statistics fill (Metz et al. 2020, B: 300
    before a trained theta is trained on)."""
    warm_up: int = Field(5, ge=0)
    """Outer steps of linear warm-up after those."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    update_rule: AnyUpdateRule = AdamConfig()
    gradient_clip: float = Field(gt=0)
    """Largest global norm of a meta-gradient, or largest absolute value of each of its numbers."""
    clip: Clip = "global_norm"
    averaging: float = Field(0.9, ge=0, lt=1)
    """Decay of the running average of theta, which is what gets validated and promoted."""

    @property
    def steps_before_peak(self) -> int:
        """Outer steps until the learning rate is at its peak."""
        return self.statistics_warm_up + self.warm_up


def theta_optimizer(config: ThetaOptimizerConfig, outer_steps: int) -> optax.GradientTransformation:
    """Returns the optax transformation of theta that a phase of `outer_steps` describes."""
    schedule = learning_rate_schedule(
        config.schedule,
        peak=config.learning_rate,
        num_steps=outer_steps,
        warm_up=config.warm_up,
        final_fraction=config.final_fraction,
        zero_steps=config.statistics_warm_up,
    )
    return optax.chain(
        CLIPS[config.clip](config.gradient_clip),
        optax.chain(config.update_rule.build(), optax.scale_by_learning_rate(schedule)),
    )
