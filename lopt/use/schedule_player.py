"""A run's hyper-parameters as plain data, and the player that replays them in another run or another codebase.

A controller that watches training is hard to bring into a large codebase; its schedule is not. LHOPT's authors ran
the controller once on a small task and replayed what it did on models of every size. Here, `export_schedule` turns
what a run recorded into a `HyperparameterSchedule`, numbers that travel as JSON, and `play_schedule` makes an optax
transformation of it and of any optimizer that can be built from hyper-parameters:

    schedule = export_schedule({"learning_rate": rates, "epsilon": epsilons})          # arrays [T]
    schedule = HyperparameterSchedule.model_validate_json(text)
    opt = play_schedule(schedule, lambda h: optax.adam(h["learning_rate"], eps=h["epsilon"]), num_steps=10_000)

Played for as many updates as were recorded, every value is the recorded one, bit for bit. For another number of
updates the schedule is stretched over the fraction of training, and values between two recorded ones are
interpolated linearly; then it is a copy of the run's schedule, not of its values.

[1] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers", Sec. 4.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from lopt.contract import horizon
from lopt.types import Scalar

MAX_STEPS = 2**24
"""Steps are counted in float32, where whole numbers end to be exact here."""


class Track(BaseModel):
    """One hyper-parameter: its values at some steps of the run, straight lines between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[int, ...] = Field(min_length=1)
    """Updates made before the value was used: ascending, the first is 0."""
    values: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _is_a_function_of_the_step(self) -> Track:
        if len(self.steps) != len(self.values):
            raise ValueError(
                f"`steps` and `values` must be equally long, got {len(self.steps)} and {len(self.values)}"
            )
        if self.steps[0] != 0 or any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError(f"`steps` must start at 0 and ascend, got {self.steps[:10]}")
        return self


class HyperparameterSchedule(BaseModel):
    """Hyper-parameters over a run of `num_steps` updates. JSON-serialisable without loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_steps: int = Field(ge=1, le=MAX_STEPS)
    hyperparameters: dict[str, Track] = Field(min_length=1)

    @model_validator(mode="after")
    def _tracks_end_with_the_run(self) -> HyperparameterSchedule:
        for name, track in self.hyperparameters.items():
            if track.steps[-1] >= self.num_steps:
                raise ValueError(
                    f"steps must be below num_steps={self.num_steps}, got {track.steps[-1]} for {name!r}"
                )
        return self

    def is_exact_for(self, num_steps: int) -> bool:
        """Returns whether a run of `num_steps` gets the recorded values themselves, not interpolated ones."""
        return num_steps == self.num_steps

    def at(self, num_updates: Scalar | int, *, num_steps: Scalar | int) -> dict[str, Scalar]:
        """Returns the hyper-parameters of the update that follows `num_updates` others; both may be traced.

        Args:
          num_updates: Updates made so far. From `num_steps` on, the last values hold.
          num_steps: Updates of the run that is played to.

        Returns:
          Float32 scalars by name.

        Raises:
          ValueError: If `num_steps` is not a whole number of at least 1.
        """
        # With equal horizons the factor is exactly 1, and the position a whole number.
        position = jnp.asarray(num_updates, jnp.float32) * (jnp.float32(self.num_steps) / horizon(num_steps))
        return {name: _interpolate(track, position) for name, track in self.hyperparameters.items()}


class PlayerState(NamedTuple):
    """Where the schedule is, what it last set, and the state of the optimizer that it plays to."""

    progress: jax.Array  # scalar int32: updates so far
    hyperparameters: dict[str, jax.Array]  # what the last update used; scalars
    inner: Any


Builder = Callable[[dict[str, Scalar]], optax.GradientTransformation]
"""Hyper-parameters by name → optimizer. Called at every update, with traced scalars."""


def export_schedule(record: Mapping[str, Any] | NamedTuple) -> HyperparameterSchedule:
    """Returns the schedule of a run from what it used at each of its T updates.

    Steps that lie on the line between their neighbours because all three are equal are left out: nothing is lost.

    Args:
      record: By name, or as a NamedTuple (`state.hyperparameters` of `ciao`, stacked by a scan): arrays [T].

    Raises:
      ValueError: If the arrays are not all of one shape [T] with T ≥ 1, or hold what is not finite.

    Example:
      >>> _, used = jax.lax.scan(step, start, keys)      # whose step returns `state.hyperparameters`
      >>> Path("schedule.json").write_text(export_schedule(used).model_dump_json())
    """
    arrays = {name: np.asarray(values) for name, values in _by_name(record).items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 or shape[0] < 1 for shape in shapes.values()):
        raise ValueError(
            f"a record must hold one value per update for every hyper-parameter, got shapes {shapes}"
        )
    return HyperparameterSchedule(
        num_steps=next(iter(shapes.values()))[0],
        hyperparameters={name: _compress(values) for name, values in arrays.items()},
    )


def play_schedule(
    schedule: HyperparameterSchedule, build: Builder, *, num_steps: int | Scalar
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer that `build` makes of the hyper-parameters, which follow the schedule.

    Exact if `num_steps` equals `schedule.num_steps`, interpolated otherwise (see the module's description). One
    compiled program serves the whole run, and every horizon where `num_steps` is traced.

    Args:
      schedule: What to play.
      build: Makes an optimizer from scalars by name. The shape of its state must not depend on their values, which
        is so for optax's optimizers and for `ciao`.
      num_steps: Updates of this run; may be traced.

    Raises:
      ValueError: If `num_steps` is not a whole number of at least 1.

    Example:
      >>> play_schedule(schedule, lambda h: ciao(CiaoHyperparameters(**h)), num_steps=2_000)
    """
    total = horizon(num_steps)

    def init(params: Any) -> PlayerState:
        progress = jnp.zeros((), jnp.int32)
        values = schedule.at(progress, num_steps=total)
        return PlayerState(progress, values, build(values).init(params))

    def update(
        grads: Any, state: PlayerState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, PlayerState]:
        values = schedule.at(state.progress, num_steps=total)
        optimizer = optax.with_extra_args_support(build(values))
        updates, inner = optimizer.update(grads, state.inner, params, **extra_args)
        return updates, PlayerState(state.progress + 1, values, inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _by_name(record: Mapping[str, Any] | NamedTuple) -> dict[str, Any]:
    return dict(record) if isinstance(record, Mapping) else record._asdict()


def _compress(values: np.ndarray) -> Track:
    """Keeps the ends of every run of equal values; the points between two equal ones follow."""
    same = np.concatenate([[False], values[1:] == values[:-1]])
    inside = same[:-1] & same[1:]  # equal to the one before and to the one after
    steps = np.flatnonzero(~np.append(inside, False))
    return Track(steps=tuple(steps.tolist()), values=tuple(values[steps].astype(np.float64).tolist()))


def _interpolate(track: Track, position: jax.Array) -> jax.Array:
    """Returns the value at a step that need not be whole; at a recorded step exactly the recorded value."""
    steps, values = jnp.asarray(track.steps, jnp.float32), jnp.asarray(track.values, jnp.float32)
    left = jnp.clip(jnp.searchsorted(steps, position, side="right") - 1, 0, len(track.steps) - 1)
    right = jnp.minimum(left + 1, len(track.steps) - 1)
    weight = (position - steps[left]) / jnp.maximum(steps[right] - steps[left], 1.0)
    return values[left] + jnp.where(right > left, weight, 0.0) * (values[right] - values[left])
