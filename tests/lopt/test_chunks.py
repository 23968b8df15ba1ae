"""Cutting a stack into pieces changes how it is computed and nothing else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.features import chunks
from lopt.features.chunks import Chunks, over_parameters, plan_chunks
from lopt.features.stacks import Stack, plan_stacks


def stack_of(shape: tuple[int, ...], count: int) -> Stack:
    return plan_stacks([jnp.zeros(shape)] * count)[0]


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [
        ((64, 64), 1, None),  # small: whole
        ((96, 128), 2, Chunks(1, 3)),  # 12 288 = 3 · 4 096
        ((32, 32), 12, Chunks(4, 1)),  # 4 tensors of 1 024 make a piece
        ((30_011,), 1, None),  # prime: whole
        ((3, 2_500), 7, Chunks(1, 2)),  # 7 500 = 2 · 3 750
    ],
)
def test_pieces_are_equal_and_at_most_the_asked_size(
    shape: tuple[int, ...], count: int, expected: Chunks | None
) -> None:
    assert plan_chunks(stack_of(shape, count), 4096) == expected


@pytest.mark.parametrize(("shape", "count"), [((96, 128), 2), ((32, 32), 12), ((3, 2_500), 7)])
def test_pieces_give_what_the_whole_gives(
    shape: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of(shape, count)
    x = jax.random.normal(jax.random.key(0), (count, *shape))
    bias = jax.random.normal(jax.random.key(1), (count, 2))
    pieces = []

    def function(values: jax.Array, arrays: dict[str, jax.Array]) -> tuple[Any, Any]:
        x = arrays["x"]
        pieces.append(x.size)
        spread = values[:, 0].reshape(-1, *(1,) * (x.ndim - 1))
        axes = tuple(range(1, x.ndim))
        sums = {"x": jnp.sum(x, axis=axes), "n": jnp.full((x.shape[0],), x[0].size, jnp.int32)}
        return {"y": jnp.tanh(x) + spread, "x": x}, sums

    outputs, sums = over_parameters(stack, function, bias, {"x": x}, chunk_size=4096)
    assert min(pieces) < x.size
    monkeypatch.setattr(chunks, "plan_chunks", lambda *_: None)
    expected, expected_sums = over_parameters(stack, function, bias, {"x": x}, chunk_size=4096)
    np.testing.assert_allclose(outputs["y"], expected["y"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(outputs["x"], x)
    np.testing.assert_allclose(sums["x"], expected_sums["x"], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(sums["n"], expected_sums["n"])


@pytest.mark.parametrize(("platform", "is_cut"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_only_a_cpu_gets_pieces(platform: str, is_cut: bool) -> None:
    stack = stack_of((96, 128), 2)

    def double(x: jax.Array) -> jax.Array:
        return over_parameters(stack, lambda _, a: (2.0 * a, ()), (), x, chunk_size=4096)[0]

    lowered = jax.jit(double).trace(jnp.ones((2, 96, 128))).lower(lowering_platforms=(platform,))
    assert ("while" in lowered.as_text()) is is_cut
