"""Shampoo against the algorithm written down again in float64 NumPy, block by block, and its parts by hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.baselines.shampoo import GRAFTINGS, PUBLISHED, ShampooConstants, shampoo
from lopt.baselines.shampoo_blocks import inverse_root, join_blocks, merge_axes, split_blocks

Array = np.ndarray
SMALL = PUBLISHED._replace(block_size=4, merge_up_to=12, skip_above=30)
SHAPES = {
    "scalar": (),
    "bias": (7,),  # merged (7): blocks of 4 and 3
    "square": (4, 4),
    "merged": (3, 4),  # (12): three blocks of 4
    "uneven": (9, 5),  # blocks of 4, 4, 1 by 4, 1
    "kernel": (2, 2, 3, 6),  # (12, 6)
    "second_kernel": (2, 2, 3, 6),
    "long": (31, 2),  # not preconditioned
}


def numpy_shampoo(
    path: list[Array], *, grafting: str, constants: ShampooConstants, rate: float
) -> Iterator[Array]:
    """Yields the updates of one tensor for its gradients `path`."""
    c, shape = constants, path[0].shape
    merged = merge_axes(shape or (1,), max_size=c.merge_up_to)
    slices = list(product(*[[slice(i, i + c.block_size) for i in range(0, n, c.block_size)] for n in merged]))
    start = [[c.matrix_epsilon * np.eye(n) for n in np.zeros(merged)[where].shape] for where in slices]
    statistics, accumulator = start, np.zeros(shape)
    momentum, graft_momentum = np.zeros(shape), np.zeros(shape)
    for step, gradient in enumerate(path):
        scaled = gradient / np.linalg.norm(gradient) if grafting.endswith("normalized") else gradient
        if grafting.startswith("adagrad"):
            accumulator = accumulator + scaled**2
        else:
            accumulator = c.beta2 * accumulator + (1 - c.beta2) * scaled**2
        graft = {"sgd": gradient, "sqrt_n": np.sign(gradient)}.get(
            grafting, scaled / (np.sqrt(accumulator) + c.diagonal_epsilon)
        )
        direction = np.zeros(merged)
        for where, matrices in zip(slices, statistics, strict=True):
            block = gradient.reshape(merged)[where]
            for axis in range(len(merged)):
                unfolded = np.moveaxis(block, axis, 0).reshape(block.shape[axis], -1)
                matrices[axis] = c.beta2 * matrices[axis] + (1 - c.beta2) * unfolded @ unfolded.T
            for axis, matrix in enumerate(matrices):
                values, vectors = np.linalg.eigh(matrix)
                values = values + c.matrix_epsilon * max(values[-1], 1e-6)
                root = vectors @ np.diag(values ** (-0.5 / len(merged))) @ vectors.T
                block = np.moveaxis(np.tensordot(root, block, axes=(1, axis)), 0, axis)
            direction[where] = block
        direction = graft if max(shape, default=1) > c.skip_above else direction.reshape(shape)
        grafted = direction * np.linalg.norm(graft) / np.linalg.norm(direction)
        momentum = c.beta1 * momentum + grafted
        graft_momentum = c.beta1 * graft_momentum + graft
        preconditioned = grafted + c.beta1 * momentum
        yield -rate * (preconditioned if step >= c.start else graft + c.beta1 * graft_momentum)


def gradients(num_steps: int) -> dict[str, list[Array]]:
    rng = np.random.default_rng(1)
    return {
        name: [rng.normal(size=shape) * 10.0 ** rng.uniform(-2, 1) for _ in range(num_steps)]
        for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize("grafting", GRAFTINGS)
def test_it_is_the_algorithm_in_float64(grafting: Any) -> None:
    path = gradients(12)
    optimizer = shampoo(0.1, grafting=grafting, constants=SMALL)
    state = optimizer.init({name: jnp.zeros(shape) for name, shape in SHAPES.items()})
    update = jax.jit(optimizer.update)
    expected = {
        name: list(numpy_shampoo(path[name], grafting=grafting, constants=SMALL, rate=0.1)) for name in SHAPES
    }
    for t in range(12):
        updates, state = update({n: jnp.asarray(g[t], jnp.float32) for n, g in path.items()}, state)
        for name in SHAPES:
            error = np.linalg.norm(np.asarray(updates[name], np.float64) - expected[name][t])
            assert error <= 1e-3 * np.linalg.norm(expected[name][t]), (name, t)
    # The agreement is not that of two that never precondition.
    alone = list(
        numpy_shampoo(path["square"], grafting=grafting, constants=SMALL._replace(start=99), rate=0.1)
    )
    assert np.linalg.norm(alone[-1] - expected["square"][-1]) > 0.1 * np.linalg.norm(expected["square"][-1])


def test_one_preconditioned_step_by_hand() -> None:
    """Gradient diag(3, 4), no momentum, no decay of the statistics' past, ε → 0: L = R = diag(9, 16).

    L^(−1/4) G R^(−1/4) = diag(3/√9, 4/√16) = diag(1, 1), of norm √2; grafted to SGD's norm 5: 5/√2 each.
    """
    constants = PUBLISHED._replace(start=0, beta1=0.0, beta2=0.0, matrix_epsilon=1e-12, merge_up_to=2)
    optimizer = shampoo(1.0, grafting="sgd", constants=constants)
    gradient = jnp.diag(jnp.asarray([3.0, 4.0]))
    updates, _ = optimizer.update({"w": gradient}, optimizer.init({"w": gradient}))
    np.testing.assert_allclose(updates["w"], -5.0 / np.sqrt(2.0) * np.eye(2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "max_size", "expected"),
    [
        ((1, 2, 512, 1, 2048, 1, 3, 4), 1024, (1024, 2048, 12)),
        ((1, 2, 768, 1, 2048), 1024, (2, 768, 2048)),
        ((32, 32), 4096, (1024,)),
        ((3, 3, 64, 128), 4096, (576, 128)),
        ((1, 1), 4096, (1,)),
        ((5,), 3, (5,)),
    ],
)
def test_small_axes_are_merged(shape: tuple[int, ...], max_size: int, expected: tuple[int, ...]) -> None:
    assert merge_axes(shape, max_size=max_size) == expected


@pytest.mark.parametrize("shape", [(7,), (8,), (9, 5), (4, 4), (3, 9, 6), (5, 1)])
def test_blocks_are_cut_in_order_and_joined_again(shape: tuple[int, ...]) -> None:
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    block = tuple(min(n, 4) for n in shape)
    blocks = np.asarray(split_blocks(jnp.asarray(tensor), block))
    corners = product(*[range(0, n, b) for n, b in zip(shape, block, strict=True)])
    for corner, ours in zip(corners, blocks, strict=True):
        cut = tensor[tuple(slice(c, c + b) for c, b in zip(corner, block, strict=True))]
        np.testing.assert_array_equal(ours[tuple(slice(n) for n in cut.shape)], cut)
        assert np.sum(ours) == np.sum(cut)  # zeros beyond the tensor
    np.testing.assert_array_equal(join_blocks(jnp.asarray(blocks), shape), tensor)


def test_inverse_root_by_hand() -> None:
    """A = V diag(16, 1) Vᵀ with V a rotation by 30°: A^(−1/4) = V diag(½, 1) Vᵀ."""
    angle = np.pi / 6
    v = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = jnp.asarray(v @ np.diag([16.0, 1.0]) @ v.T, jnp.float32)
    root = inverse_root(matrix[None], power=4, epsilon=0.0)[0]
    np.testing.assert_allclose(root, v @ np.diag([0.5, 1.0]) @ v.T, rtol=1e-5)


def test_inverse_root_of_zero_is_bounded_by_the_ridge() -> None:
    root = inverse_root(jnp.zeros((1, 3, 3)), power=2, epsilon=1e-6)
    np.testing.assert_allclose(root[0], 1e6 * np.eye(3), rtol=1e-4)  # (1e-6 · 1e-6)^(−1/2)


def test_a_root_that_is_not_finite_is_not_used() -> None:
    """A gradient whose square overflows spoils the statistics; the last good root stays."""
    optimizer = shampoo(0.1, grafting="sgd", constants=PUBLISHED._replace(start=0))
    params = {"w": jnp.ones((3, 2))}
    state = optimizer.init(params)
    _, good = optimizer.update({"w": jnp.arange(6.0).reshape(3, 2)}, state)
    _, bad = optimizer.update({"w": jnp.full((3, 2), 1e30)}, good)
    np.testing.assert_array_equal(bad.stacks[0].roots[0], good.stacks[0].roots[0])


def test_only_its_graftings() -> None:
    with pytest.raises(ValueError, match=r"`grafting` must be one of sgd, adagrad.*got 'adam'"):
        shampoo(0.1, grafting="adam")  # type: ignore[arg-type]
