"""Times an optimizer's update by itself: gradients of the parameters' shapes in, new parameters out, in a loop.

Compiled together with the task, the update would need a second compilation of the whole program; by itself it
is a small one. The sum with the gradient step is what a step with that optimizer takes, but for what compiling
both together would fuse or spill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.architectures import ARCHITECTURES
from lopt.binding import bind
from lopt.registry import lookup
from lopt.stand_in import stand_in
from lopt.types import Params
from runtime_model.step_program import MAX_STEPS, Clock

NO_UPDATE = "none"
HORIZON = 1000
"""What a learned optimizer is told its run is long; its cost does not depend on it."""
RUNS = 3


def _adam() -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(optax.adam(1e-3))


def _learned(name: str) -> Callable[[], optax.GradientTransformationExtraArgs]:
    def make() -> optax.GradientTransformationExtraArgs:
        network = ARCHITECTURES[name].model_validate({}).build()
        return bind(network, network.init_theta(jax.random.key(0)), num_steps=HORIZON)

    return make


UPDATES: dict[str, Callable[[], optax.GradientTransformationExtraArgs]] = {
    "adam": _adam,
    **{name: _learned(name) for name in ARCHITECTURES},
}
"""The optimizers whose update can be timed, untrained."""


def get_update(name: str) -> Callable[[], optax.GradientTransformationExtraArgs]:
    """Returns what makes the optimizer called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(UPDATES, name, kind="optimizer to time")


def time_update(params: Params, name: str, target_seconds: float, clock: Clock) -> dict[str, Any]:
    """Returns `update_seconds` and `update_optimizer` of a timing's record.

    Args:
      params: The parameters; only shapes and types matter.
      name: One of `UPDATES`.
      target_seconds: What a run should take; the fastest of three counts.
      clock: Seconds, from any origin.

    Raises:
      UnknownNameError: If there is no such optimizer.
    """
    optimizer = get_update(name)()
    state = jax.tree.map(stand_in, jax.eval_shape(optimizer.init, params))

    @jax.jit
    def run(params: Params, state: Any, grads: Params, num_steps: jax.Array) -> Params:
        def body(_: jax.Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
            values, state = carry
            updates, state = optimizer.update(grads, state, values, value=jnp.float32(1.0))
            return optax.apply_updates(values, updates), state

        return jax.lax.fori_loop(0, num_steps, body, (params, state))[0]

    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
        program = run.lower(params, state, grads, jnp.int32(1)).compile()

    def seconds(steps: int) -> float:
        count = jax.block_until_ready(jnp.int32(steps))
        started = clock()
        jax.block_until_ready(program(params, state, grads, count))
        return (clock() - started) / steps

    seconds(1)
    steps = max(1, min(MAX_STEPS, round(target_seconds / max(seconds(8), 1e-9))))
    return {"update_seconds": min(seconds(steps) for _ in range(RUNS)), "update_optimizer": name}
