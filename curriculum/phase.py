"""A phase: one stage of the curriculum, as data.

A phase says which tasks, how large (by predicted seconds per inner step), how long (horizons), how the
meta-gradient is estimated and applied, and where theta starts. It is validated whole at construction. Critical
numbers have no default. Derive a phase from another with `lopt.config.derive`, which re-validates.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from curriculum.schedules import ScheduleName
from lopt.config import FrozenConfig
from lopt.estimators import AnyEstimator
from lopt.registry import lookup
from runtime_model.rejection import SAFETY_QUANTILE, ProblemSizeThresholds
from task_generator.held_out import HeldOut
from task_generator.known_distributions import DISTRIBUTIONS

Mode = Literal["synchronous", "asynchronous"]


class ThetaOptimizerConfig(FrozenConfig):
    """How meta-gradients change theta: clipped, then Adam under a schedule, then averaged."""

    learning_rate: float = Field(gt=0)
    schedule: ScheduleName = "cosine"
    warm_up: int = Field(5, ge=0)
    """Outer steps of linear warm-up."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    b1: float = Field(0.9, ge=0, lt=1)
    b2: float = Field(0.99, gt=0, lt=1)
    gradient_clip: float = Field(gt=0)
    """Largest global norm of a meta-gradient."""
    averaging: float = Field(0.9, ge=0, lt=1)
    """Decay of the running average of theta, which is what gets validated and promoted."""


class Phase(FrozenConfig):
    """One stage of meta-training."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    summary: str
    """One line for people: what the phase adds."""
    distribution: str
    """Name of a task distribution."""
    held_out: HeldOut = HeldOut()
    """What the distribution offers and this phase never draws, so that it can be evaluated on."""
    problem_size: ProblemSizeThresholds
    """Largest predicted seconds per inner step of a task, and with which probability."""
    min_valid_probability: float = Field(0.5, ge=0, le=1)
    safety_quantile: float = Field(SAFETY_QUANTILE, gt=0, lt=1)
    """Least predicted probability that a task stays within its problem size."""
    min_num_params: int = Field(1, ge=1)
    """Smaller networks are not used: with a handful of parameters every optimizer ends at the same loss."""
    max_num_params: int = Field(10**9, ge=1)
    """Larger networks are not used. The run-time model predicts a gradient step; a learned optimizer's own cost
    grows with the parameters, and on small batches it is the larger part."""
    num_static_configs: int = Field(ge=1)
    """Task configurations held (and compiled) at a time; every outer step uses each of them once."""
    estimator: AnyEstimator
    theta_optimizer: ThetaOptimizerConfig
    outer_steps: int = Field(ge=1)
    validate_every: int = Field(10, ge=1)
    """Outer steps between validations of the averaged theta, on fixed tasks, data and horizons."""
    checkpoint_every: int = Field(10, ge=1)
    mode: Mode = "synchronous"
    """"synchronous": every outer step waits for one meta-gradient of each task; bit for bit reproducible.
    "asynchronous": meta-gradients are applied as batches fill, some computed at an older theta (VeLO, E.1)."""
    batch_size: int | None = Field(None, ge=1)
    """Meta-gradients per outer step, where asynchronous; None: `num_static_configs`."""
    max_staleness: int = Field(5, ge=0)
    """Outer steps after which a meta-gradient is dropped, where asynchronous (Metz et al. 2020: 5)."""
    resample_probability: float = Field(0.0, ge=0, le=1)
    """Of a task's place being given to a newly drawn one after a unit, where asynchronous (VeLO, E.3)."""
    max_tries: int = Field(3, ge=1)
    """Failures in a row after which a task is left out, where asynchronous."""
    unit_timeout: float = Field(600.0, gt=0)
    """Seconds that a unit of work may take, where asynchronous. It is given up after twice as many, because it may
    have waited behind another."""
    start_from: str | None = None
    """The phase whose promoted checkpoint this one starts from; None: the architecture's initialisation."""

    @field_validator("distribution")
    @classmethod
    def _known_distribution(cls, name: str) -> str:
        lookup(DISTRIBUTIONS, name, kind="task distribution")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> Phase:
        if self.min_num_params > self.max_num_params:
            raise ValueError(
                f"`min_num_params` must not exceed `max_num_params`, got {self.min_num_params} > "
                f"{self.max_num_params}"
            )
        if self.start_from == self.name:
            raise ValueError(f"phase {self.name!r} cannot start from itself; name an earlier phase or None")
        if self.theta_optimizer.warm_up >= self.outer_steps:
            raise ValueError(
                f"`warm_up` must be shorter than the phase, got warm_up={self.theta_optimizer.warm_up} "
                f"and outer_steps={self.outer_steps}"
            )
        return self
