"""The learner: theta, its optimizer, and what happens when a batch of meta-gradients is full. Pure.

Gradients are summed in the order of their work units, whatever order they arrived in, so the result does not
depend on how many workers computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from curriculum.phase import Phase
from curriculum.theta_optimizer import theta_optimizer
from lopt.types import PyTree, Theta


class LearnerState(NamedTuple):
    """Everything that a phase's future depends on; a checkpoint is this and nothing else."""

    theta: Theta
    theta_average: Theta
    """Running average of theta, corrected for its start."""
    best_theta: Theta
    """The averaged theta with the lowest validation loss so far."""
    best_validation: jax.Array  # scalar float32
    theta_optimizer_state: Any
    outer_step: jax.Array  # scalar int32
    estimator_states: tuple[PyTree, ...] = ()
    """Of an estimator that looks at windows: where every task's trajectory is, as NumPy. Synchronous training only:
    asynchronous workers keep theirs."""


def init_learner(phase: Phase, theta: Theta, estimator_states: Sequence[PyTree] = ()) -> LearnerState:
    """Returns the state before a phase's first outer step; `estimator_states` from `worker.init_states`."""
    theta = jax.tree.map(jnp.asarray, theta)
    return LearnerState(
        theta=theta,
        theta_average=theta,
        best_theta=theta,
        best_validation=jnp.float32(jnp.inf),
        theta_optimizer_state=theta_optimizer(phase.theta_optimizer, phase.outer_steps).init(theta),
        outer_step=jnp.zeros((), jnp.int32),
        estimator_states=tuple(estimator_states),
    )


def aggregate(gradients: Sequence[Theta]) -> Theta:
    """Returns the mean of the work units' gradients, summed in the given order in float64.

    Raises:
      ValueError: If there is none.
    """
    if not gradients:
        raise ValueError("`aggregate` needs at least one meta-gradient, got none")
    return jax.tree.map(
        lambda *leaves: np.mean(np.stack([np.asarray(x, np.float64) for x in leaves]), axis=0).astype(
            np.float32
        ),
        *gradients,
    )


def apply_meta_gradient(phase: Phase, state: LearnerState, gradient: Theta) -> LearnerState:
    """Returns the state after one outer step: theta moved, its average brought forward."""
    config = phase.theta_optimizer
    gradient = jax.tree.map(jnp.asarray, gradient)
    updates, optimizer_state = theta_optimizer(config, phase.outer_steps).update(
        gradient, state.theta_optimizer_state, state.theta
    )
    theta = optax.apply_updates(state.theta, updates)
    # The first average is theta itself; later ones forget it as fast as the decay says, never slower than 1/n.
    outer_step = state.outer_step + 1
    rate = jnp.maximum(1.0 - config.averaging, 1.0 / outer_step.astype(jnp.float32))
    average = jax.tree.map(lambda old, new: old + rate * (new - old), state.theta_average, theta)
    return state._replace(
        theta=theta, theta_average=average, theta_optimizer_state=optimizer_state, outer_step=outer_step
    )


def record_validation(state: LearnerState, validation_loss: float) -> LearnerState:
    """Returns the state with the averaged theta kept as the best, if its validation loss is the lowest."""
    if not validation_loss < float(state.best_validation):
        return state
    return state._replace(best_theta=state.theta_average, best_validation=jnp.float32(validation_loss))
