"""A tiny family with everything an augmentation has to respect: leaves, labels, noise, model state, dynamics.

It draws little, because random generators are most of what a small program takes to compile.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lopt.types import Split, TaskState

SIZE = 5
"""Parameters in all."""


class ToyDynamic(NamedTuple):
    """A curvature per task, and a sign per work unit."""

    curvature: jax.Array  # float32 []
    sign: jax.Array  # float32 []


class ToyBatch(NamedTuple):
    """Eight examples."""

    points: jax.Array  # float32 [8, SIZE]
    labels: jax.Array  # int32 [8]


def vector(params: Any) -> jax.Array:
    """Returns all parameters in one vector."""
    return jnp.concatenate([params["a"], params["b"].reshape(-1)])


@dataclasses.dataclass(frozen=True)
class ToyFamily:
    """Powers of the distance to the mean of a batch: bowls for `power` 2. `noise` shifts the loss at random."""

    power: int = 2
    noise: float = 0.0
    has_state: bool = True

    def sample_dynamic(self, key: jax.Array) -> ToyDynamic:
        return ToyDynamic(0.5 + jax.random.uniform(key, (), jnp.float32), jnp.float32(-1))

    def dynamic_axes(self) -> ToyDynamic:
        return ToyDynamic(0, None)  # type: ignore[arg-type]

    def task(self, dynamic: ToyDynamic) -> ToyTask:
        return ToyTask(self, dynamic)


@dataclasses.dataclass(frozen=True)
class ToyTask:
    """curvature · Σ (w − mean of the points)^power / power + sign · mean of the labels + noise."""

    family: ToyFamily
    dynamic: ToyDynamic

    def init(self, key: jax.Array) -> TaskState:
        del key
        w = jnp.cos(jnp.arange(SIZE, dtype=jnp.float32))
        state = {"steps": jnp.int32(0), "average": jnp.float32(0)} if self.family.has_state else ()
        return TaskState({"a": w[:3], "b": w[3:].reshape(2, 1)}, state)

    def batch(self, key: jax.Array, split: Split = "train") -> ToyBatch:
        points = jax.random.uniform(key, (8, SIZE), jnp.float32)
        return ToyBatch(points, (4.0 * points[:, 0]).astype(jnp.int32))

    def loss(self, state: TaskState, key: jax.Array, batch: ToyBatch) -> tuple[jax.Array, TaskState]:
        w = vector(state.params)
        apart = w - jnp.mean(batch.points, axis=0)
        power = jnp.sum(apart**self.family.power).astype(jnp.float32) / self.family.power
        loss = self.dynamic.curvature * power
        loss = loss + self.dynamic.sign * jnp.mean(batch.labels.astype(jnp.float32))
        if self.family.noise:
            loss = loss + self.family.noise * jax.random.normal(key, (), jnp.float32)
        if not self.family.has_state:
            return loss, state
        # In the parameters' precision on purpose: a wrapper that lowers it must bring the type back.
        average = 0.9 * state.model_state["average"].astype(w.dtype) + 0.1 * jnp.mean(w)
        return loss, state._replace(model_state={"steps": state.model_state["steps"] + 1, "average": average})

    def normalize(self, loss: jax.Array) -> jax.Array:
        return loss / 3.0


jax.tree_util.register_dataclass(ToyFamily, data_fields=[], meta_fields=["power", "noise", "has_state"])
