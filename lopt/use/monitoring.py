"""What an optimizer does, tensor by tensor: the sizes of its steps and the outputs of its controller.

    opt = lopt.step_size_monitor(lopt.load("champion", num_steps=2_000))
    updates, state = opt.update(grads, state, params, value=loss)
    readings = lopt.use.monitoring.readings(state, params)       # {"step_rms/dense/kernel": …, "controls/…": …}

For plots of the step sizes over a run, one line per tensor [1, 5.1.1 and G.3], and of controller outputs embedded
in two dimensions [1, G.6]. The state carries the last step's values as arrays, so a compiled loop can stack them.

[1] Metz et al. 2022, "VeLO", whose Fig. 29 shows mean absolute steps; the root mean square is there, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

CONTROLLER_FIELDS = ("controls", "step_scalars", "log_steps")
"""Fields of architectures' states that hold controller outputs, one row per non-empty tensor in leaf order."""


class Measurements(NamedTuple):
    """One step's values per non-empty tensor, in leaf order: float32 arrays [num_tensors] unless noted."""

    step_rms: jax.Array
    """Root mean square of the update."""
    relative_step: jax.Array
    """The same, divided by the root mean square of the tensor before the step; 0 where that is 0."""
    mean_absolute_step: jax.Array
    controller: dict[str, jax.Array]
    """Controller outputs by field, [num_tensors] or [num_tensors, outputs]; empty for those that have none."""


class MonitorState(NamedTuple):
    """The wrapped optimizer's state and the last step's measurements, zeros before the first."""

    inner: Any
    measured: Measurements


def step_size_monitor(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Returns `optimizer`, its updates unchanged, with the last step's `Measurements` in its state.

    Put it outside all other wrappers: it measures what reaches the parameters.

    Raises:
      ValueError: When updated without the parameters.
    """
    wrapped = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> MonitorState:
        inner = wrapped.init(params)
        return MonitorState(inner, _measure(jax.tree.map(jnp.zeros_like, params), params, inner))

    def update(
        grads: Any, state: MonitorState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, MonitorState]:
        if params is None:
            raise ValueError(
                "the monitor needs the parameters: call `update(grads, state, params, value=loss)`"
            )
        updates, inner = wrapped.update(grads, state.inner, params, **extra_args)
        return updates, MonitorState(inner, _measure(updates, params, inner))

    return optax.GradientTransformationExtraArgs(init, update)


def readings(state: Any, params: Any) -> dict[str, jax.Array]:
    """Returns a monitor's measurements by name: quantity and path of the tensor, `step_rms/dense/kernel`.

    Controller outputs of an optimizer that sees only some of the tensors (`optax.masked`, scanned layers) have
    other rows than the parameters have tensors; they are one entry, named by their field.

    Args:
      state: The state of an optimizer with a monitor in it, or its `Measurements`, a run's stacked along leading
        axes among them.
      params: A tree like the parameters; only its structure and shapes are read.

    Returns:
      Float32 scalars; of a controller with several outputs [outputs], and under a field's name alone what the state
      has. Leading axes of stacked measurements stay in front. Steps are in the parameters' units, relative ones are
      ratios.

    Raises:
      ValueError: If there is no monitor in `state`.
    """
    measured = _find(state)
    names = tensor_names(params)
    out: dict[str, jax.Array] = {}
    for quantity in ("step_rms", "relative_step", "mean_absolute_step"):
        values = getattr(measured, quantity)
        out |= {f"{quantity}/{name}": values[..., i] for i, name in enumerate(names)}
    lead = measured.step_rms.ndim - 1
    for field, values in measured.controller.items():
        if values.ndim > lead and values.shape[lead] == len(names):
            out |= {f"{field}/{name}": jnp.take(values, i, axis=lead) for i, name in enumerate(names)}
        else:
            out[field] = values
    return out


def tensor_names(params: Any) -> list[str]:
    """Returns the paths of the non-empty leaves, in leaf order: the rows of per-tensor arrays."""
    paths = [path for path, leaf in jax.tree_util.tree_leaves_with_path(params) if jnp.size(leaf)]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]


def _find(state: Any) -> Measurements:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Measurements))
    found = [node for node in nodes if isinstance(node, Measurements)]
    if not found:
        raise ValueError("`state` holds no measurements: wrap the optimizer in `lopt.step_size_monitor`")
    return found[0]


def _measure(updates: Any, params: Any, inner: Any) -> Measurements:
    leaves = [jnp.asarray(u).astype(jnp.float32) for u in jax.tree.leaves(updates) if jnp.size(u)]
    before = [jnp.asarray(p).astype(jnp.float32) for p in jax.tree.leaves(params) if jnp.size(p)]
    step, size = _per_tensor(_rms, leaves), _per_tensor(_rms, before)
    return Measurements(
        step_rms=step,
        relative_step=jnp.where(size > 0, step / jnp.where(size > 0, size, 1.0), 0.0),
        mean_absolute_step=_per_tensor(lambda x: jnp.mean(jnp.abs(x)), leaves),
        controller=_controller_outputs(inner),
    )


def _per_tensor(function: Any, tensors: list[jax.Array]) -> jax.Array:
    return jnp.stack([function(x) for x in tensors]) if tensors else jnp.zeros((0,), jnp.float32)


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _controller_outputs(inner: Any) -> dict[str, jax.Array]:
    """Returns the controller outputs in a state by field, numbered where several optimizers have one."""
    out: dict[str, jax.Array] = {}
    for field in CONTROLLER_FIELDS:
        found = [
            jnp.copy(value)  # a state is donated to compiled steps, and a buffer can be donated only once
            for path, value in jax.tree_util.tree_leaves_with_path(inner)
            if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == field
        ]
        out |= {field if len(found) == 1 else f"{field}.{i}": value for i, value in enumerate(found)}
    return out
