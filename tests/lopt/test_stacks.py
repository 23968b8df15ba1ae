"""Tensors of equal shape as one array: what goes in comes out, whichever way its axes lie."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.architectures import ARCHITECTURES
from lopt.features import grouping as gr
from lopt.features import stacks as st

LEAVES = [(32, 10), (), (10, 32), (3, 3, 40, 8), (0, 4), (32, 10), (7,)]


def _arrays(shapes: list[tuple[int, ...]], seed: int = 0) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("swap_narrow", [False, True])
def test_leaves_come_back_as_they_were(swap_narrow: bool) -> None:
    leaves = _arrays(LEAVES)
    stacks = st.plan_stacks(leaves, swap_narrow=swap_narrow)
    stacked = st.stack_leaves(stacks, leaves)
    assert [array.shape[1:] for array in stacked] == [stack.shape for stack in stacks]
    for out, leaf in zip(st.unstack_leaves(stacks, stacked, leaves), leaves, strict=True):
        np.testing.assert_array_equal(out, leaf)


def test_only_small_tensors_that_end_in_a_short_axis_are_swapped() -> None:
    shapes = {stack.shape for stack in st.plan_stacks(_arrays(LEAVES), swap_narrow=True) if stack.swapped}
    assert shapes == {(10, 32), (3, 3, 8, 40)}
    for shape in ((10, 32), (10, 10), (64, 32), (10_000, 10), (10,)):
        assert not st.is_narrow(shape), shape


@pytest.mark.parametrize("name", ["adafactor_mlp", "velo"])
def test_a_narrow_matrix_is_updated_as_its_transpose_is(name: str) -> None:
    sizes = {"lstm_hidden_size": 8, "mlp_bank_size": 2} if name == "velo" else {}
    learned = ARCHITECTURES[name].model_validate(sizes).build()
    theta = learned.init_theta(jax.random.key(1))
    # Away from its initial zeros, so that every term of the update counts.
    theta = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), theta)
    optimizer = learned.transform(theta, num_steps=10)
    (param,), gradients = _arrays([(40, 10)]), _arrays([(40, 10)] * 3, seed=3)

    def trained(turn: Any) -> jax.Array:
        params = {"w": turn(param)}
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update({"w": turn(gradient)}, state, params, value=jnp.float32(1.0))
            params = jax.tree.map(jnp.add, params, updates)
        return params["w"] - turn(param)

    narrow, wide = trained(lambda x: x), trained(jnp.transpose)
    assert float(jnp.max(jnp.abs(wide))) > 0
    np.testing.assert_allclose(narrow, wide.T, rtol=1e-4, atol=1e-6 * float(jnp.max(jnp.abs(wide))))


def test_each_tensor_of_a_group_is_scaled_by_its_own_factor() -> None:
    tensors = _arrays([(3, 4), (5,), ()])
    grouping = gr.plan(tensors)
    (vector,) = gr.gather(grouping, tensors)
    scaled = gr.scaled(grouping, 0, vector, jnp.asarray([2.0, -1.0, 0.5]))
    expected = np.concatenate([2.0 * np.ravel(tensors[0]), -np.ravel(tensors[1]), 0.5 * np.ravel(tensors[2])])
    np.testing.assert_array_equal(scaled, expected)
