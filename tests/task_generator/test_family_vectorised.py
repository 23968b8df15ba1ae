"""Vectorised over dynamic configurations, every task family computes what a loop computes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import AS_FOR_USERS

from lopt.types import TaskFamily
from task_generator import TaskConfig
from task_generator.augmentations import ReparametrizeConfig
from task_generator.families import FAMILIES
from task_generator.families.base import NORMALIZED_CAP
from task_generator.known_distributions import SMALL

SCALED = ReparametrizeConfig(level="tensor", low=0.1, high=10.0)
AUGMENTED = [TaskConfig(family=family.example(), augmentations=(SCALED,)) for family in FAMILIES.values()]


def _loss_and_grad(family: TaskFamily, dynamic: Any, key: jax.Array) -> Any:
    """Returns the loss at the start, its gradient, and the normalised loss."""
    task = family.task(dynamic)
    state, batch = task.init(key), task.batch(key)
    loss, grads = jax.value_and_grad(lambda p: task.loss(state._replace(params=p), key, batch)[0])(
        state.params
    )
    return loss, grads, task.normalize(loss)


def _stack(family: TaskFamily, keys: jax.Array) -> Any:
    """Draws one dynamic configuration per key; the first one's value stands where the axis is None."""
    draws = jax.jit(jax.vmap(family.sample_dynamic))(keys)
    return jax.tree.map(
        lambda axis, subtree: jax.tree.map(lambda x: x[0], subtree) if axis is None else subtree,
        family.dynamic_axes(),
        draws,
        is_leaf=lambda axis: axis is None,
    )


def _at(axes: Any, stacked: Any, index: int) -> Any:
    return jax.tree.map(
        lambda axis, subtree: subtree if axis is None else jax.tree.map(lambda x: x[index], subtree),
        axes,
        stacked,
        is_leaf=lambda axis: axis is None,
    )


# An augmented family contains the family itself, and compiling is what takes the time.
# VeLO's smaller families each time, the others with the slow tests: every one is two programs to compile.
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(c, marks=[pytest.mark.slow] * (c.family.family not in SMALL), id=c.label)
        for c in AUGMENTED
    ],
)
def test_vmap_over_dynamic_equals_a_loop_and_all_is_finite(config: TaskConfig) -> None:
    family = config.build()
    keys = jax.random.split(jax.random.key(0), 2)
    axes, stacked = family.dynamic_axes(), _stack(family, keys)

    def step(dynamic: Any, key: jax.Array) -> Any:
        return _loss_and_grad(family, dynamic, key)

    compiled = functools.partial(jax.jit, compiler_options=AS_FOR_USERS)
    together = compiled(jax.vmap(step, in_axes=(axes, 0)))(stacked, keys)
    alone = compiled(step)
    for i, key in enumerate(keys):
        loss, grads, normalized = alone(_at(axes, stacked, i), key)
        assert loss.shape == ()
        assert loss.dtype == jnp.float32
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((loss, grads, normalized))]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert any((leaf != 0).any() for leaf in leaves[1:-1])
        assert float(normalized) <= NORMALIZED_CAP
        for a, b in zip(jax.tree.leaves(together), leaves, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=1e-5)
