"""Shampoo with a grafted step length: the direction of one optimizer, tensor by tensor, at the length of another.

    u = direction · ‖graft‖ / (‖direction‖ + 1e-16)        direction: `shampoo_blocks`
    M ← β₁ M + u,       p ← p − η · (u + β₁ M)             Nesterov momentum without (1 − β₁)

For the first `start` updates the grafted optimizer runs alone, with a momentum of its own, while the statistics
gather. The six graftings of [1] are the six of [3]; each is one line of `_graft`.

No kept package has it for today's JAX: PyPI's optax-shampoo, which [1] ran, is of 2022 and calls what JAX has since
removed. This follows its numbers, with one deviation: the inverse root comes from an eigendecomposition, exact to
rounding, where that one iterates and keeps the last root on failing; here a root that is not finite is not used.

[1] Metz et al. 2022, "VeLO", Sec. 4.1.1. [2] Anil et al. 2020, "Scalable second order optimization".
[3] Agarwal et al. 2020, "Disentangling adaptive gradient methods from learning rates" (grafting).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from lopt.baselines.shampoo_blocks import (
    block_shape,
    gram_matrices,
    inverse_root,
    join_blocks,
    merge_axes,
    multiply_axes,
    num_blocks,
    split_blocks,
)
from lopt.features.accumulators import update_ema
from lopt.features.stacks import Stack, plan_stacks, stack_leaves, unstack_leaves
from lopt.types import Params, Scalar

Grafting = Literal["sgd", "adagrad", "rmsprop", "rmsprop_normalized", "sqrt_n", "adagrad_normalized"]
GRAFTINGS: tuple[Grafting, ...] = get_args(Grafting)
TINY = 1e-16


class ShampooConstants(NamedTuple):
    """What [1] did not tune."""

    block_size: int = 128
    merge_up_to: int = 4_096
    """Neighbouring axes are merged up to this product."""
    skip_above: int = 4_096
    """Tensors with a longer axis are not preconditioned: grafting only."""
    start: int = 5
    """Updates before the first preconditioned one."""
    beta1: float = 0.9
    beta2: float = 0.999
    """Decay of the statistics, and of RMSProp's accumulator."""
    matrix_epsilon: float = 1e-6
    """Of a matrix's largest eigenvalue, added to all; also the statistics' start."""
    diagonal_epsilon: float = 1e-10
    """Added to the root of the grafted optimizer's accumulator."""


PUBLISHED = ShampooConstants()


class ShampooStackState(NamedTuple):
    """Accumulators of the k tensors of one shape, float32; per merged axis i with b_i the block's length there."""

    statistics: tuple[jax.Array, ...]  # [k, num_blocks, b_i, b_i]; empty where tensors are not preconditioned
    roots: tuple[jax.Array, ...]  # the same shapes
    graft_accumulator: jax.Array  # [k, *shape]
    momentum: jax.Array  # [k, *shape]
    graft_momentum: jax.Array  # [k, *shape]


class ShampooState(NamedTuple):
    """State of `shampoo`."""

    step: jax.Array  # [] int32: updates so far
    stacks: tuple[ShampooStackState, ...]


def shampoo(
    learning_rate: Scalar, *, grafting: Grafting, constants: ShampooConstants = PUBLISHED
) -> optax.GradientTransformationExtraArgs:
    """Returns Shampoo at a constant rate.

    Args:
      learning_rate: η; may be traced.
      grafting: The optimizer whose step length it takes.
      constants: Everything else.

    Raises:
      ValueError: If `grafting` is not one of `GRAFTINGS`.
    """
    if grafting not in GRAFTINGS:
        raise ValueError(f"`grafting` must be one of {', '.join(GRAFTINGS)}, got {grafting!r}")

    def init(params: Params) -> ShampooState:
        stacks = plan_stacks(jax.tree.leaves(params))
        return ShampooState(jnp.zeros((), jnp.int32), tuple(_init_stack(s, constants) for s in stacks))

    def update(
        grads: optax.Updates, state: ShampooState, params: Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ShampooState]:
        del params, extra_args  # without weight decay, gradients are all it needs
        leaves, treedef = jax.tree.flatten(grads)
        stacks = plan_stacks(leaves)
        updates, states = [], []
        for stack, old, gradient in zip(stacks, state.stacks, stack_leaves(stacks, leaves), strict=True):
            direction, new = _update_stack(stack, old, gradient, state.step, grafting, constants)
            updates.append(-learning_rate * direction)
            states.append(new)
        out = jax.tree.unflatten(treedef, unstack_leaves(stacks, updates, leaves))
        return out, ShampooState(state.step + 1, tuple(states))

    return optax.GradientTransformationExtraArgs(init, update)


def _merged_shape(stack: Stack, constants: ShampooConstants) -> tuple[int, ...] | None:
    """Returns the shape that is preconditioned, or None for tensors that are not."""
    if max(stack.shape) > constants.skip_above:
        return None
    return merge_axes(stack.shape, max_size=constants.merge_up_to)


def _init_stack(stack: Stack, constants: ShampooConstants) -> ShampooStackState:
    zeros = jnp.zeros((stack.num_tensors, *stack.shape), jnp.float32)
    shape = _merged_shape(stack, constants)
    identities: tuple[jax.Array, ...] = ()
    if shape is not None:
        block = block_shape(shape, block_size=constants.block_size)
        leading = (stack.num_tensors, num_blocks(shape, block))
        identities = tuple(jnp.broadcast_to(jnp.eye(b, dtype=jnp.float32), (*leading, b, b)) for b in block)
    return ShampooStackState(
        statistics=tuple(constants.matrix_epsilon * identity for identity in identities),
        roots=identities,
        graft_accumulator=zeros,
        momentum=zeros,
        graft_momentum=zeros,
    )


def _update_stack(
    stack: Stack,
    state: ShampooStackState,
    gradient: jax.Array,
    step: Scalar,
    grafting: Grafting,
    constants: ShampooConstants,
) -> tuple[jax.Array, ShampooStackState]:
    """Returns the Nesterov direction of k tensors, [k, *shape], and their state."""
    graft, graft_accumulator = _graft(grafting, gradient, state.graft_accumulator, stack, constants)
    direction, statistics, roots = graft, state.statistics, state.roots
    shape = _merged_shape(stack, constants)
    if shape is not None:
        direction, statistics, roots = _precondition(gradient, state, shape, constants)
    grafted = direction * (_norm(stack, graft) / (_norm(stack, direction) + TINY))
    momentum = constants.beta1 * state.momentum + grafted
    graft_momentum = constants.beta1 * state.graft_momentum + graft
    nesterov = jnp.where(
        step >= constants.start,
        grafted + constants.beta1 * momentum,
        graft + constants.beta1 * graft_momentum,
    )
    return nesterov, ShampooStackState(statistics, roots, graft_accumulator, momentum, graft_momentum)


def _precondition(
    gradient: jax.Array, state: ShampooStackState, shape: tuple[int, ...], constants: ShampooConstants
) -> tuple[jax.Array, tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Returns the preconditioned gradient of k tensors, and the new statistics and roots."""
    block = block_shape(shape, block_size=constants.block_size)
    merged = gradient.reshape(gradient.shape[0], *shape)
    blocks = jax.vmap(lambda g: split_blocks(g, block))(merged)
    grams = jax.vmap(gram_matrices)(blocks)
    statistics = tuple(
        update_ema(old, gram, constants.beta2) for old, gram in zip(state.statistics, grams, strict=True)
    )
    roots = []
    for matrix, old in zip(statistics, state.roots, strict=True):
        root = inverse_root(matrix, power=2 * len(block), epsilon=constants.matrix_epsilon)
        usable = jnp.all(jnp.isfinite(root), axis=(-2, -1), keepdims=True)
        roots.append(jnp.where(usable, root, old))
    multiplied = jax.vmap(multiply_axes)(blocks, tuple(roots))
    direction = jax.vmap(lambda b: join_blocks(b, shape))(multiplied).reshape(gradient.shape)
    return direction, statistics, tuple(roots)


def _graft(
    grafting: Grafting, gradient: jax.Array, accumulator: jax.Array, stack: Stack, constants: ShampooConstants
) -> tuple[jax.Array, jax.Array]:
    """Returns the grafted optimizer's update of k tensors, rate 1, and its accumulator."""
    if grafting == "sgd":
        return gradient, accumulator
    if grafting == "sqrt_n":
        return jnp.sign(gradient), accumulator  # its norm is √n
    if grafting.endswith("_normalized"):
        gradient = gradient / (_norm(stack, gradient) + TINY)
    squared = jnp.square(gradient)
    if grafting.startswith("adagrad"):
        accumulator = accumulator + squared
    else:
        accumulator = update_ema(accumulator, squared, constants.beta2)
    return gradient / (jnp.sqrt(accumulator) + constants.diagonal_epsilon), accumulator


def _norm(stack: Stack, tensors: jax.Array) -> jax.Array:
    """Returns each tensor's Euclidean norm: [k, *shape] → [k, 1, …]."""
    return jnp.sqrt(jnp.sum(jnp.square(tensors), axis=stack.tensor_axes, keepdims=True))
