"""Optimizer states on a mesh of devices: per-parameter accumulators are sharded as their parameters are.

    optimizer = lopt.use.sharding.keep_sharded(lopt.load("champion", num_steps=2_000), params)   # params on a mesh
    state = optimizer.init(params)
    step = jax.jit(train_step, donate_argnums=(0, 1))   # the numbers are those of an unsharded run

Theta, counters, loss averages and what an architecture keeps per tensor are replicated. Accumulators are kept
stacked by shape ([k, *shape], see `lopt.features.stacks`): a stack is sharded along its tensors' axes, never along
k; factored moments along the axis that they keep. Where tensors of one shape are sharded differently, the stack
takes the sharding that most of those sharded at all have: never more memory than by the parameters' own, and
gradients of the others travel. A large tensor that an architecture keeps as one vector is cut into as many pieces
as the tensor is; concatenations of small tensors, and small tensors kept with their axes swapped, are replicated.

A layout is only a layout: a wrong guess about what an array holds costs traffic, never a different result.

[1] Metz et al. 2022, "VeLO", B.7.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from lopt.features.grouping import SMALL_TENSOR
from lopt.use.binding import BoundState
from lopt.use.layerwise import LayerwiseState

Axes = tuple[Any, ...]
"""One entry per array axis: None, or the mesh axes that it is cut along."""


class _Tensor(NamedTuple):
    """One parameter's shape, scalars as vectors of one element, and how it is cut."""

    shape: tuple[int, ...]
    axes: Axes


def state_sharding(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Returns the sharding of every array of the state that `optimizer.init(params)` makes.

    Use it as `out_shardings` where a compiled step must not leave the choice to propagation.

    Args:
      optimizer: Any optax transformation, wrapped or not.
      params: Arrays on a mesh, or `jax.ShapeDtypeStruct`s with a `sharding`. Those without a `NamedSharding`
        count as replicated.

    Raises:
      ValueError: If no parameter has a `NamedSharding`, or they are on several meshes.
    """
    leaves = jax.tree.leaves(params)
    mesh = _common_mesh(leaves)
    tensors = [_Tensor(leaf.shape or (1,), _axes_of(leaf)) for leaf in leaves]
    treedef: Any = jax.tree.structure(params)

    def mirrors_params(node: Any) -> bool:
        if jax.tree.structure(node) != treedef:
            return False
        return [x.shape for x in jax.tree.leaves(node)] == [leaf.shape for leaf in leaves]

    def visit(node: Any) -> Any:
        if isinstance(node, BoundState):
            everywhere = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), node)
            return everywhere._replace(inner=walk(node.inner))
        if isinstance(node, LayerwiseState):
            layers = jax.tree.map(lambda x: sharding(_layered_axes(x.shape, tensors)), node.stacks)
            return LayerwiseState(layers, walk(node.rest))
        if mirrors_params(node):
            return jax.tree.unflatten(
                treedef, [sharding(t.axes[: x.ndim]) for t, x in zip(tensors, leaves, strict=True)]
            )
        return sharding(_stacked_axes(node.shape, tensors))

    def sharding(axes: Axes) -> NamedSharding:
        while axes and axes[-1] is None:  # the form that compiled programs return
            axes = axes[:-1]
        return NamedSharding(mesh, PartitionSpec(*axes))

    def walk(node: Any) -> Any:
        is_leaf = lambda x: isinstance(x, BoundState | LayerwiseState) or mirrors_params(x)
        return jax.tree.map(visit, node, is_leaf=is_leaf)

    return walk(jax.eval_shape(optimizer.init, params))


def init_sharded(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Returns `optimizer.init(params)`, every array of it made where `state_sharding` puts it."""
    return jax.jit(optimizer.init, out_shardings=state_sharding(optimizer, params))(params)


def keep_sharded(
    optimizer: optax.GradientTransformation, params: Any
) -> optax.GradientTransformationExtraArgs:
    """Returns `optimizer`, holding its state to `state_sharding` and its updates to the parameters' shardings.

    Propagation mostly finds that by itself, but is free to choose otherwise; an array that came back in another
    layout compiles the training step once more, and may hold more memory.
    """
    wrapped = optax.with_extra_args_support(optimizer)
    of_params = jax.tree.map(lambda leaf: leaf.sharding, params)
    of_state = state_sharding(optimizer, params)

    def update(grads: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        updates, state = wrapped.update(grads, state, params, **extra_args)
        constrain = jax.lax.with_sharding_constraint
        return constrain(updates, of_params), constrain(state, of_state)

    init = jax.jit(wrapped.init, out_shardings=of_state)  # no array is ever whole on one device
    return optax.GradientTransformationExtraArgs(init, update)


def _common_mesh(leaves: list[Any]) -> Mesh | AbstractMesh:
    shardings = [getattr(leaf, "sharding", None) for leaf in leaves]
    meshes = {s.mesh for s in shardings if isinstance(s, NamedSharding)}
    if len(meshes) != 1:
        raise ValueError(
            f"`params` must live on one mesh, so that the state can follow them; found {len(meshes)}. Place them "
            "with `jax.device_put(params, NamedSharding(mesh, …))`"
        )
    return meshes.pop()


def _axes_of(leaf: Any) -> Axes:
    spec = tuple(leaf.sharding.spec) if isinstance(getattr(leaf, "sharding", None), NamedSharding) else ()
    return spec + (None,) * (max(leaf.ndim, 1) - len(spec))


def _stacked_axes(shape: tuple[int, ...], tensors: list[_Tensor]) -> Axes:
    """Returns how an array [..., k, *tensor shape], with averaged axes of length 1, is cut; else not at all."""
    by_shape: dict[tuple[int, ...], list[Axes]] = {}
    for tensor in tensors:
        by_shape.setdefault(tensor.shape, []).append(tensor.axes)
    fits = {tensor: _fit(shape, tensor, len(members)) for tensor, members in by_shape.items()}
    best = max(fits, key=lambda tensor: (fits[tensor], len(tensor)))
    if fits[best] > 0:
        axes = _shared_axes(by_shape[best])
        tail = tuple(None if n == 1 else a for n, a in zip(shape[-len(best) :], axes, strict=True))
        return (None,) * (len(shape) - len(best)) + tail
    for size, axes in ((math.prod(s), _shared_axes(a)) for s, a in by_shape.items()):
        if shape[-1:] == (size,) and size > SMALL_TENSOR:
            return (None,) * (len(shape) - 1) + (_flatten_axes(axes),)
    return (None,) * len(shape)


def _fit(shape: tuple[int, ...], tensor: tuple[int, ...], num_tensors: int) -> int:
    """Returns how likely an array of `shape` holds tensors of one shape, or factors of them: 0 for not at all.

    All of them stacked is likeliest, then as many at most, since a wrapper may show an optimizer only some of the
    parameters; for vectors exactly as many, since rows of per-tensor values are vectors, too.
    """
    lead, tail = shape[: -len(tensor)], shape[-len(tensor) :]
    if len(tail) < len(tensor) or any(n not in (1, m) for n, m in zip(tail, tensor, strict=True)):
        return 0
    if len(tensor) == 1 and (tail != tensor or lead[-1:] != (num_tensors,)):
        return 0
    if lead and lead[-1] > num_tensors:
        return 0
    return 1 + (tail == tensor) + 2 * (lead == (num_tensors,))


def _layered_axes(shape: tuple[int, ...], tensors: list[_Tensor]) -> Axes:
    """Returns the same for the state of scanned layers, whose arrays and parameters have a leading axis more."""
    layers = [t for t in tensors if shape and t.shape[0] == shape[0]]
    if not layers:
        return (None,) * len(shape)
    first = _shared_axes([t.axes[:1] for t in layers])
    return first + _stacked_axes(
        shape[1:], [_Tensor(t.shape[1:] or (1,), t.axes[1:] or (None,)) for t in layers]
    )


def _shared_axes(members: list[Axes]) -> Axes:
    """Returns how most members that are cut at all are cut; the first of them where there is a tie."""
    cut = [axes for axes in members if any(axis is not None for axis in axes)]
    return Counter(cut or members).most_common(1)[0][0]


def _flatten_axes(axes: Axes) -> Any:
    names = [
        name for axis in axes if axis is not None for name in (axis if isinstance(axis, tuple) else (axis,))
    ]
    return tuple(names) or None
