"""Newton–Schulz iterations against the singular value decomposition and against optax's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from celo2_reference import newton_schulz

from lopt.features.matrices import as_matrices, matrix_stack
from lopt.features.orthogonalize import SMALLEST_SPLIT, orthogonalize
from lopt.features.stacks import Stack


@pytest.mark.parametrize("shape", [(8, 8), (3, 17), (17, 3), (1, 5), (5, 1), (1, 1)])
def test_singular_values_go_through_the_polynomial(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    mine = np.asarray(orthogonalize(jnp.asarray(matrix)))
    np.testing.assert_allclose(mine, newton_schulz(matrix.astype(np.float64)), atol=2e-5)
    values = np.linalg.svd(mine, compute_uv=False)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_is_the_one_inside_optax_muon() -> None:
    matrix = jax.random.normal(jax.random.key(1), (6, 20))
    axes = {"w": optax.contrib.MuonDimensionNumbers()}
    muon = optax.contrib.scale_by_muon(beta=0.0, nesterov=False, weight_dimension_numbers=axes)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, _ = muon.update({"w": matrix}, muon.init({"w": matrix}))
    np.testing.assert_allclose(orthogonalize(matrix), theirs["w"], atol=2e-5)


def test_stacked_matrices_are_independent() -> None:
    stack = jax.random.normal(jax.random.key(2), (2, 3, 4, 7)) * jnp.asarray([1e-3, 1e3]).reshape(2, 1, 1, 1)
    together = orthogonalize(stack)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(together[i, j], orthogonalize(stack[i, j]), atol=1e-6)


def test_large_matrices_in_blocks_are_the_same() -> None:
    n = SMALLEST_SPLIT + 1
    matrix = np.random.default_rng(3).normal(size=(n + 20, n)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(orthogonalize)(matrix), newton_schulz(matrix), atol=5e-5)


def test_zeros_stay_zero() -> None:
    assert not jnp.any(orthogonalize(jnp.zeros((2, 4, 3))))
    matrix = jax.random.normal(jax.random.key(4), (5, 4)).at[2].set(0.0).at[:, 1].set(0.0)
    out = orthogonalize(matrix)
    np.testing.assert_array_equal(np.asarray(out == 0), np.asarray(matrix == 0))


def test_tensors_are_stacks_of_matrices() -> None:
    stack = Stack((2, 3, 4, 5), (0, 1), (0, 1))
    array = jnp.arange(240.0).reshape(2, 2, 3, 4, 5)
    assert matrix_stack(stack).shape == (4, 5)
    assert matrix_stack(stack).num_tensors == 12
    np.testing.assert_array_equal(as_matrices(stack, array), array.reshape(12, 4, 5))
    rows = array[:, :1, :, :, :1]  # constant along the first and the last axis of a tensor
    whole = jnp.broadcast_to(rows, array.shape).reshape(12, 4, 5)
    np.testing.assert_array_equal(jnp.broadcast_to(as_matrices(stack, rows), (12, 4, 5)), whole)
    assert as_matrices(stack, rows).shape == (12, 4, 1)


def test_vectors_and_matrices_are_left_alone() -> None:
    for shape in ((7,), (3, 4)):
        stack = Stack(shape, (0, 1), (0, 1))
        assert matrix_stack(stack) is stack
        array = jnp.ones((2, *shape))
        assert as_matrices(stack, array) is array
