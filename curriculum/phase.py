"""A phase: one stage of the curriculum, as data.

A phase says which tasks, how large (by predicted seconds per inner step), how long (horizons), how the
meta-gradient is estimated and applied, and where theta starts. It is validated whole at construction. Critical
numbers have no default. Derive a phase from another with `lopt.config.derive`, which re-validates, or with
`curriculum.scaling` for other hardware. Where a phase starts is checked where phases are registered.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from curriculum.theta_optimizer import ThetaOptimizerConfig
from curriculum.transports import AUTO, choose
from lopt.config import FrozenConfig
from lopt.estimators import AnyEstimator
from lopt.estimators.evolution import TasksConfig
from lopt.estimators.trajectory import WindowedConfig
from lopt.outer_schedule import PiecewiseLinear
from lopt.registry import lookup
from runtime_model.rejection import SAFETY_QUANTILE, ProblemSizeThresholds
from task_generator.held_out import HeldOut
from task_generator.known_distributions import DISTRIBUTIONS
from task_generator.task_config import TaskConfig

Mode = Literal["synchronous", "asynchronous"]


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
    transport: str = AUTO
    """How meta-gradients travel (`curriculum.transports`); "auto": what suits theta's size and the mode."""
    num_workers: int = Field(2, ge=1)
    """Workers that batch size and number of configurations are made for. Decides nothing while training;
    `curriculum.scaling` goes by it."""
    start_from: str | None = None
    """The phase whose promoted checkpoint this one starts from; None: the architecture's initialisation."""

    def whole_tasks(self) -> tuple[TaskConfig, ...]:
        """Returns the tasks of a distribution of whole tasks that are not held out; () of one that draws fields.

        Raises:
          ValueError: If all of them are held out.
        """
        whole = DISTRIBUTIONS[self.distribution].tasks
        allowed = self.held_out.allowed(whole)
        if whole and not allowed:
            raise ValueError(
                f"all {len(whole)} tasks of distribution {self.distribution!r} are held out by phase {self.name!r}"
                ". Narrow its `held_out`, or name another `distribution`."
            )
        return allowed

    def is_validated_at(self, outer_step: int) -> bool:
        """Whether the averaged theta of that outer step is validated: now and then, and the last."""
        return outer_step == self.outer_steps or outer_step % self.validate_every == 0

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
        self.whole_tasks()  # says now, not when the first is drawn, if all are held out
        choose(self.transport, self.estimator, self.mode, num_numbers=0)
        if self.start_from == self.name:
            raise ValueError(f"phase {self.name!r} cannot start from itself; name an earlier phase or None")
        if self.theta_optimizer.steps_before_peak >= self.outer_steps:
            raise ValueError(
                "`warm_up` and `statistics_warm_up` together must be shorter than the phase, got "
                f"{self.theta_optimizer.warm_up} + {self.theta_optimizer.statistics_warm_up} and "
                f"outer_steps={self.outer_steps}"
            )
        for name, limit in _limits(self.estimator).items():
            if limit.ends_at >= self.outer_steps:
                raise ValueError(
                    f"`{name}` must end within the phase, got a last point at outer step {limit.ends_at} and "
                    f"outer_steps={self.outer_steps}. Use `curriculum.scaling.with_outer_steps`, which stretches "
                    "schedules with the phase."
                )
        _require_windows_fit(self.estimator)
        return self


def _limits(estimator: TasksConfig) -> dict[str, PiecewiseLinear]:
    """Returns the estimator's schedules by field."""
    fields = ("horizon_limit", "unroll_limit")
    limits = {name: getattr(estimator, name, None) for name in fields}
    return {name: limit for name, limit in limits.items() if limit is not None}


def _require_windows_fit(estimator: TasksConfig) -> None:
    """Refuses windows that no horizon is long enough for, at any outer step; jitter may exceed it.

    The shortest window must fit the shortest horizon, and the longest the longest.
    """
    if not isinstance(estimator, WindowedConfig):
        return
    num_steps = 1 + max((limit.ends_at for limit in _limits(estimator).values()), default=0)
    horizons = estimator.min_horizon, estimator.max_horizon
    windows = estimator.min_unroll_length or estimator.unroll_length, estimator.unroll_length
    for which, window, horizon in zip(("shortest", "longest"), windows, horizons, strict=True):
        by_step = _by_step(window, estimator.unroll_limit, num_steps)
        at_most = _by_step(horizon, estimator.horizon_limit, num_steps)
        too_long = np.flatnonzero(by_step > at_most)
        if too_long.size:
            step = int(too_long[0])
            raise ValueError(
                f"windows must fit horizons, got a {which} window of {by_step[step]:g} and a {which} horizon of "
                f"{at_most[step]:g} at outer step {step}. Lower `unroll_length` (or `unroll_limit` there), or "
                "raise `min_horizon` (or `horizon_limit`)."
            )


def _by_step(length: int, limit: PiecewiseLinear | None, num_steps: int) -> np.ndarray:
    values = np.full(num_steps, np.inf) if limit is None else limit.values(num_steps)
    return np.minimum(length, values)
