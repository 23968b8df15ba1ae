"""Accumulators in bfloat16: exact on average, never stalled, deterministic, and really smaller."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimizers import NAMES, fast_for, moved, perturbed_theta, small

from lopt.architectures import ARCHITECTURES
from lopt.features.rounding import store

WITH_STATE_DTYPE = [name for name in NAMES if "state_dtype" in ARCHITECTURES[name].model_fields]


def neighbours(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bfloat16 numbers on either side of float32 `x`, towards zero first."""
    low = x.view(np.uint32) & np.uint32(0xFFFF0000)
    return low.view(np.float32), (low + np.uint32(0x10000)).view(np.float32)


def test_rounds_to_a_neighbour_and_is_right_on_average() -> None:
    """Over n steps the mean error is within five standard errors of none, for each of 2 000 numbers."""
    n, values = 4096, np.random.default_rng(0).normal(size=2000).astype(np.float32)
    values[:1000] *= np.float32(10.0) ** np.random.default_rng(1).integers(-30, 30, 1000).astype(np.float32)
    once = lambda salt: store(jnp.asarray(values), jnp.bfloat16, salt).astype(jnp.float32)
    total, low, high = np.zeros(2000), *neighbours(values)
    for batch in np.arange(n, dtype=np.int32).reshape(16, -1):
        rounded = np.asarray(jax.lax.map(once, jnp.asarray(batch)), np.float64)
        assert np.all((rounded == low) | (rounded == high))
        total += rounded.sum(axis=0)
    unit = np.abs(high.astype(np.float64) - low)
    up = np.abs(values.astype(np.float64) - low) / unit
    error = np.abs(total / n - values) / unit
    assert np.all(error <= 5.0 * np.sqrt(up * (1.0 - up) / n) + 1.0 / n)


def test_equal_steps_round_independently_of_each_other() -> None:
    """Successive salts are like fresh dice: the number of runs is that of independent draws, within five sigma."""
    value = jnp.full((1,), 1.00390625, jnp.float32)  # half-way between two bfloat16 numbers
    n = 4096
    up = np.asarray(jax.lax.map(lambda salt: store(value, jnp.bfloat16, salt)[0] > 1.002, jnp.arange(n)))
    assert abs(up.mean() - 0.5) < 5 * 0.5 / n**0.5
    for lag in (1, 2, 3, 7):
        agree = np.mean(up[lag:] == up[:-lag])
        assert abs(agree - 0.5) < 5 * 0.5 / (n - lag) ** 0.5


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_a_moving_average_neither_stalls_nor_drifts(decay: float) -> None:
    """1 000 averages of numbers around 1, against float32; round-to-nearest stands still at 0.6 for 0.999."""
    width = 1000

    def body(carry: Any, step: jax.Array) -> Any:
        kept, nearest, exact = carry
        value = 1.0 + 0.5 * jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (width,))
        average = lambda ema: decay * ema.astype(jnp.float32) + (1.0 - decay) * value
        kept = store(average(kept), jnp.bfloat16, step)
        return (kept, average(nearest).astype(jnp.bfloat16), average(exact)), None

    half = jnp.zeros(width, jnp.bfloat16)
    steps = jnp.arange(int(10 / (1.0 - decay)))
    (kept, nearest, exact), _ = jax.lax.scan(body, (half, half, jnp.zeros(width)), steps)
    errors = np.asarray(kept.astype(jnp.float32) - exact, np.float64)
    assert (
        abs(errors.mean()) < 5 * errors.std() / width**0.5
    )  # no drift: the mean error is that of 1 000 dice
    assert errors.std() < 0.05
    if decay == 0.999:
        assert float(jnp.mean(nearest.astype(jnp.float32))) < 0.7
        assert float(jnp.mean(exact)) > 0.99


def test_what_bfloat16_has_is_kept_exactly() -> None:
    kept = jnp.asarray([0.0, -0.0, 1.0, -2.5, 3.0e38, jnp.inf, -jnp.inf, 2.0**-126], jnp.float32)
    kept = kept.astype(jnp.bfloat16).astype(jnp.float32)
    for salt in range(50):
        stored = np.asarray(store(kept, jnp.bfloat16, salt).astype(jnp.float32))
        np.testing.assert_array_equal(stored.view(np.uint32), np.asarray(kept).view(np.uint32))


def test_not_finite_stays_so_and_finite_stays_finite() -> None:
    bits = np.asarray(
        [0x7F800001, 0xFF800001, 0x7FFFFFFF], np.uint32
    )  # NaNs whose mark is in the cut-off half
    largest = np.float32(np.finfo(np.float32).max)
    for salt in range(200):
        assert np.all(np.isnan(store(jnp.asarray(bits.view(np.float32)), jnp.bfloat16, salt)))
        stored = store(jnp.asarray([largest, -largest]), jnp.bfloat16, salt)
        assert np.all(np.isfinite(np.asarray(stored, np.float32)))


def test_it_is_deterministic_and_compiled_or_not_the_same() -> None:
    x = jax.random.normal(jax.random.key(0), (100,))
    once = store(x, "bfloat16", jnp.float32(7.0))
    for again in (store(x, jnp.bfloat16, 7), jax.jit(lambda s: store(x, jnp.bfloat16, s))(jnp.int32(7))):
        np.testing.assert_array_equal(np.asarray(once, np.float32), np.asarray(again, np.float32))
    assert np.any(np.asarray(once, np.float32) != np.asarray(store(x, jnp.bfloat16, 8), np.float32))


def test_float32_is_returned_as_it_is_and_other_dtypes_are_refused() -> None:
    x = jnp.ones(3)
    assert store(x, jnp.float32, 0) is x
    for array, dtype in ((x, jnp.float16), (x.astype(jnp.bfloat16), jnp.bfloat16), (x, jnp.int32)):
        with pytest.raises(TypeError, match="`store` keeps float32 as float32 or bfloat16"):
            store(array, dtype, 0)


# -- state_dtype of the architectures

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 128 * 64).reshape(128, 64), "b": jnp.linspace(0.1, 0.2, 64)}


IN_FULL = {"hierarchical_gru": 5}
"""Architecture → numbers per parameter that stay float32: two decays, two log step lengths, the attended offset."""


def accumulator_bytes(state: Any) -> int:
    """Bytes of the arrays that hold a number per parameter of the matrix."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state) if leaf.size >= 128 * 64)


@pytest.mark.parametrize("name", fast_for("pacer", among=WITH_STATE_DTYPE))
def test_bfloat16_state_is_half_the_size_and_trains_the_same(name: str) -> None:
    ends, sizes, peaks = [], [], []
    for dtype in ("float32", "bfloat16"):
        learned = small(name, state_dtype=dtype)
        theta = perturbed_theta(learned)

        def step(params: Any, state: Any, loss: jax.Array, learned: Any = learned, theta: Any = theta) -> Any:
            opt = learned.transform(theta, num_steps=8)
            grads = jax.tree.map(lambda p: p - 0.3, params)
            updates, state = opt.update(grads, state, params, value=loss)
            return jax.tree.map(jnp.add, params, updates), state

        state = learned.transform(theta, num_steps=8).init(PARAMS)
        compiled = jax.jit(step).lower(PARAMS, state, jnp.float32(1.0)).compile()
        peaks.append(compiled.memory_analysis().argument_size_in_bytes)
        params = PARAMS
        for i in range(8):
            params, after = compiled(params, state, jnp.float32(1.0 / (1 + i)))
            assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
                lambda x: (x.shape, x.dtype), state
            )
            state = after
        ends.append(params)
        sizes.append(accumulator_bytes(state))
    in_full = 4 * IN_FULL.get(name, 0) * PARAMS["w"].size
    assert (sizes[1] - in_full) * 2 == sizes[0] - in_full
    assert peaks[0] - peaks[1] >= sizes[0] - sizes[1]
    assert moved(ends[0], ends[1]) < 0.1 * moved(PARAMS, ends[0])
    assert moved(ends[0], ends[1]) > 0  # the accumulators were really rounded
