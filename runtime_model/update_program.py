"""Times an optimizer's update by itself: gradients of the parameters' shapes in, new parameters out, in a loop.

Compiled together with the task, the update would need a second compilation of the whole program; by itself it
is a small one. The sum with the gradient step is what a step with that optimizer takes, but for what compiling
both together would fuse or spill. It is timed as the gradient step is (`timed_runs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.architectures import ARCHITECTURES
from lopt.registry import lookup
from lopt.stand_in import stand_in
from lopt.types import Params
from lopt.use.binding import bind
from runtime_model.timed_runs import Clock, Clocks, timed_runs

NO_UPDATE = "none"
HORIZON = 1000
"""What a learned optimizer is told its run is long; its cost does not depend on it."""


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


class UpdateProgram(NamedTuple):
    """A compiled loop of updates and what it is run on."""

    run: Callable[..., Params]
    """(parameters, optimizer state, gradients, num_steps) → parameters."""
    params: Params
    state: Any
    grads: Params
    num_tasks: int = 1

    def seconds(self, repeat: int, num_steps: int, clock: Clock) -> float:
        """Returns the seconds that `num_steps` updates take, dispatch included; every repeat is the same."""
        del repeat
        steps = jax.block_until_ready(jnp.int32(num_steps))
        started = clock()
        jax.block_until_ready(self.run(self.params, self.state, self.grads, steps))
        return clock() - started


def compile_update(params: Params, name: str) -> UpdateProgram:
    """Compiles the updates of the optimizer called `name`.

    Args:
      params: The parameters; only shapes and types matter.
      name: One of `UPDATES`.

    Raises:
      UnknownNameError: If there is no such optimizer.
    """
    optimizer = get_update(name)()
    state = jax.tree.map(stand_in, jax.eval_shape(optimizer.init, params))

    @jax.jit
    def run(params: Params, state: Any, grads: Params, num_steps: jax.Array) -> Params:
        def body(_: jax.Array, carry: tuple[Params, Any, jax.Array]) -> tuple[Params, Any, jax.Array]:
            values, state, scale = carry
            # Gradients that every step has in common would let XLA compute once, before the loop, whatever depends
            # on them alone.
            scaled = jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), grads)
            updates, state = optimizer.update(scaled, state, values, value=jnp.float32(1.0))
            return optax.apply_updates(values, updates), state, 1.5 - scale  # 1, ½, 1, …

        return jax.lax.fori_loop(0, num_steps, body, (params, state, jnp.float32(1.0)))[0]

    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
        program = run.lower(params, state, grads, jnp.int32(1)).compile()
    return UpdateProgram(program, params, state, grads)


def time_update(
    params: Params, name: str, clocks: Clocks, *, runs: int, target_seconds: float, probe: float
) -> float:
    """Returns the seconds of one update.

    Args:
      params: The parameters; only shapes and types matter.
      name: One of `UPDATES`.
      clocks: What to time with.
      runs: Timed runs; their median counts.
      target_seconds: What a run should take.
      probe: Seconds of the speed probe at the speed that the result is to be of: the gradient step's.

    Raises:
      UnknownNameError: If there is no such optimizer.
    """
    program = compile_update(params, name)
    program.seconds(0, 1, clocks.wall)  # the first run touches memory
    taken = timed_runs(program, clocks, repeats=1, runs=runs, target_seconds=target_seconds)
    return float(np.median(taken.relative)) * probe
