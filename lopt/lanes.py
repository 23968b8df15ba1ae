"""Vectorising tasks: which fields of a dynamic configuration vary between the lanes of one program.

A family's `dynamic_axes` is a prefix of its dynamic configuration: 0 where every lane has its own value, None
where a field selects code and one value serves the whole work unit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lopt.types import Dynamic, PRNGKey, Task, TaskFamily, TaskState


@dataclasses.dataclass(frozen=True)
class ChoicesPerTask:
    """A family in which every task has its own activation and initialiser, not one per work unit.

    More variety in a work unit, at a price: a vectorised choice runs every branch (`benchmarks/unroll.py` has the
    factor), where one choice for all runs only the one chosen.
    """

    inner: TaskFamily

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Returns one dynamic configuration."""
        return self.inner.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns 0 everywhere."""
        return 0

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the problem that `dynamic` selects."""
        return self.inner.task(dynamic)


jax.tree_util.register_dataclass(ChoicesPerTask, data_fields=["inner"], meta_fields=[])


def _map_prefix(fn: Callable[..., Any], axes: Dynamic, *dynamics: Dynamic) -> Dynamic:
    """Applies `fn(axis, *subtrees)` at every leaf of the prefix `axes`, None being one."""
    return jax.tree.map(fn, axes, *dynamics, is_leaf=lambda x: x is None)


def sample_dynamics(family: TaskFamily, key: PRNGKey, num_tasks: int) -> Dynamic:
    """Returns dynamic configurations, leaves [num_tasks, …], single where the family's axes say None."""
    one = family.sample_dynamic(key)
    many = jax.lax.map(family.sample_dynamic, jax.random.split(key, num_tasks))
    return _map_prefix(
        lambda axis, single, stacked: single if axis is None else stacked, family.dynamic_axes(), one, many
    )


def repeat_dynamics(family: TaskFamily, dynamics: Dynamic, repeats: int) -> Dynamic:
    """Returns each task's dynamic configuration `repeats` times in a row; shared fields stay single.

    Leaves [num_tasks, …] → [num_tasks · repeats, …].
    """

    def repeat(axis: Any, subtree: Any) -> Any:
        if axis is None:
            return subtree
        return jax.tree.map(lambda x: jnp.repeat(x, repeats, axis=0), subtree)

    return _map_prefix(repeat, family.dynamic_axes(), dynamics)


def init_lanes(family: TaskFamily, dynamics: Dynamic, keys: PRNGKey) -> TaskState:
    """Returns the initial state of every lane: leaves [lanes, …], from keys [lanes].

    Where a field of `dynamics` varies, its leaves are [lanes, …], too.
    One lane after the other: initialisation runs once per unroll, and random draws under a nested `vmap` take
    ten times longer to compile.
    """
    axes = family.dynamic_axes()
    varying = _map_prefix(lambda axis, x: None if axis is None else x, axes, dynamics)

    def init(args: tuple[Dynamic, PRNGKey]) -> TaskState:
        lane, key = args
        dynamic = _map_prefix(lambda axis, x, shared: shared if axis is None else x, axes, lane, dynamics)
        return family.task(dynamic).init(key)

    return jax.lax.map(init, (varying, keys))
