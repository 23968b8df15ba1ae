"""Models whose layers are scanned: each layer is optimized as if it were alone.

Large models keep the parameters of their equal layers in one array with the layers along a leading axis, and run
`scan` over them. Every optimizer state then has that axis, too, and the optimizer must treat layers independently:
a learned optimizer passes no message from one layer to another, and what layers share is the loss and the number of
steps. [1] trained a 300 M parameter language model that way.

All layers are updated by one `vmap`: one program whatever the depth, and arrays may be sharded along the layers,
which a `lax.map` would gather. Measured (`velo`, 12 layers of 0.66 M parameters, state donated, two CPU cores), a
`lax.map` took the same time and 20 instead of 30 bytes of temporary memory per parameter.

[1] Metz et al. 2022, "VeLO", G.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.types import LearnedOptimizer, PRNGKey, Scalar, Theta

Stacked = Any
"""A prefix of the parameters' tree whose leaves are booleans, or a function from the parameters to one.

Each True marks one stack of layers: every array below it has the same leading axis, the layers'.
"""


class LayerwiseState(NamedTuple):
    """The state of every stack of layers, and of the parameters outside of any."""

    stacks: tuple[Any, ...]
    """The optimizer's state of one layer with a leading axis [layers]; one entry per marked subtree."""
    rest: Any


def scan_over_layers(
    optimizer: optax.GradientTransformation, *, stacked: Stacked
) -> optax.GradientTransformationExtraArgs:
    """Returns `optimizer`, with a state of its own for each layer of the marked subtrees and one for the rest.

        scan_over_layers(optimizer, stacked={"embedding": False, "blocks": True, "head": False})

    Exactly what one copy of the optimizer per layer does. For a learned optimizer whose weights are to be in the
    state, use `LayerwiseOptimizer`: there would be a copy of the weights per layer otherwise.

    Args:
      optimizer: Any optax transformation. Keywords of `update` reach every copy as they are.
      stacked: Which subtrees hold layers along their leading axis; see `Stacked`.

    Raises:
      ValueError: From `init`, if arrays of a marked subtree differ in their leading axis or have none; from `init`
        and `update`, if `stacked` is no tree of booleans.
    """
    wrapped = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> LayerwiseState:
        stacks, rest = _split(stacked, params)
        for stack in stacks:
            _check_leading_axis(stack)
        return LayerwiseState(tuple(jax.vmap(wrapped.init)(stack) for stack in stacks), wrapped.init(rest))

    def update(
        grads: Any, state: LayerwiseState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, LayerwiseState]:
        def one(g: Any, s: Any, p: Any) -> tuple[Any, Any]:
            return wrapped.update(g, s, p, **extra_args)

        grad_stacks, grad_rest = _split(stacked, grads)
        param_stacks, param_rest = (
            ([None] * len(grad_stacks), None) if params is None else _split(stacked, params)
        )
        done = [jax.vmap(one)(*args) for args in zip(grad_stacks, state.stacks, param_stacks, strict=True)]
        rest_updates, rest_state = one(grad_rest, state.rest, param_rest)
        updates = _join(stacked, grads, [u for u, _ in done], rest_updates)
        return updates, LayerwiseState(tuple(s for _, s in done), rest_state)

    return optax.GradientTransformationExtraArgs(init, update)


class LayerwiseOptimizer:
    """A learned optimizer that treats the layers of stacked subtrees independently; see `scan_over_layers`."""

    def __init__(self, learned: LearnedOptimizer, *, stacked: Stacked):
        self.learned = learned
        self.stacked = stacked
        self.reads_loss = learned.reads_loss

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial meta-parameters: the architecture's own."""
        return self.learned.init_theta(key)

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for a run of `num_steps`; every layer shares `theta`."""
        return scan_over_layers(self.learned.transform(theta, num_steps=num_steps), stacked=self.stacked)


def mark_leaves(stacked: Stacked, tree: Any) -> Any:
    """Returns, for every leaf of `tree`, whether it is in a stack of layers: a tree of booleans like it."""
    marks = stacked(tree) if callable(stacked) else stacked
    return jax.tree.map(lambda mark, subtree: jax.tree.map(lambda _: bool(mark), subtree), marks, tree)


def _subtrees(stacked: Stacked, tree: Any) -> tuple[list[bool], list[Any], Callable[[list[Any]], Any]]:
    """Returns the marks, the subtree of each, and the function that puts such subtrees together again."""
    treedef: Any
    marks, treedef = jax.tree.flatten(stacked(tree) if callable(stacked) else stacked)
    if not all(isinstance(mark, bool) for mark in marks):
        raise ValueError(f"`stacked` must be a tree of booleans, a prefix of the parameters', got {marks}")
    return marks, treedef.flatten_up_to(tree), treedef.unflatten


def _split(stacked: Stacked, tree: Any) -> tuple[list[Any], list[Any]]:
    marks, subtrees, _ = _subtrees(stacked, tree)
    both = list(zip(marks, subtrees, strict=True))
    return [tree for mark, tree in both if mark], [tree for mark, tree in both if not mark]


def _join(stacked: Stacked, like: Any, stacks: list[Any], rest: list[Any]) -> Any:
    marks, _, unflatten = _subtrees(stacked, like)
    in_stacks, in_rest = iter(stacks), iter(rest)
    return unflatten([next(in_stacks) if mark else next(in_rest) for mark in marks])


def _check_leading_axis(stack: Any) -> None:
    lengths = {
        jax.tree_util.keystr(path): jnp.shape(leaf)[0] if jnp.ndim(leaf) else None
        for path, leaf in jax.tree_util.tree_leaves_with_path(stack)
    }
    if len(set(lengths.values())) != 1 or None in lengths.values() or 0 in lengths.values():
        described = ", ".join(
            f"{name}: {'none' if length is None else length}" for name, length in lengths.items()
        )
        raise ValueError(
            "every array of a subtree that `stacked` marks must have the layers as its leading axis, all of one "
            f"length; got leading axes {described or 'of no array'}"
        )
