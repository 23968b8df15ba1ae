"""Optimizers that find their own learning rate: nothing to tune.

Their setting is the factor that their authors let a user put on the found rate, with the value to leave it at (1;
for MoMo-Adam, which caps Adam's rate, 1e-2). Prodigy, D-Adaptation and Mechanic find a peak and want a schedule
from it: half a cosine to zero over the run. DoG and COCOB take none; their authors advise to evaluate an average
of the iterates, which optax leaves to the user and so do we. MoMo reads the loss and takes zero for its minimum.

[1] Mishchenko & Defazio 2023, "Prodigy". [2] Defazio & Mishchenko 2023, "Learning-rate-free learning by
D-Adaptation". [3] Cutkosky et al. 2023, "Mechanic". [4] Ivgi et al. 2023, "DoG is SGD's best friend".
[5] Orabona & Tommasi 2017, "Training deep networks without learning rates through coin betting" (COCOB).
[6] Schaipp et al. 2023, "MoMo: momentum models for adaptive learning rates".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt.contract import require_loss
from lopt.features.progress import cosine_decay
from lopt.types import Params, Scalar


def prodigy(factor: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns Prodigy on AdamW's constants (decay 1e-4) with a cosine."""
    schedule = _cosine(factor, num_steps)
    return _hold_without_gradient(optax.contrib.prodigy(schedule, weight_decay=1e-4))


def dadapt_adamw(factor: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns AdamW (decay 1e-4) with its rate by D-Adaptation and a cosine."""
    schedule = _cosine(factor, num_steps)
    return _hold_without_gradient(optax.contrib.dadapt_adamw(schedule, weight_decay=1e-4))


def mechanic_adamw(factor: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns AdamW (decay 1e-4) with a cosine, its rate found by Mechanic."""
    return optax.contrib.mechanize(optax.adamw(_cosine(factor, num_steps), weight_decay=1e-4))


def dog(factor: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns SGD at the rate (distance moved)/√(Σ‖g‖²)."""
    del num_steps  # it has no horizon
    return optax.contrib.dog(factor)


def cocob(factor: Scalar, num_steps: Scalar) -> optax.GradientTransformation:
    """Returns coin betting, with gradients multiplied by `factor`."""
    del num_steps  # it has no horizon
    return optax.contrib.cocob(factor)


def momo(max_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns SGD with momentum at Polyak's rate for a loss with minimum 0, at most `max_rate`."""
    del num_steps  # it has no horizon
    return _with_loss("momo", optax.contrib.momo(max_rate))


def momo_adam(max_rate: Scalar, num_steps: Scalar) -> optax.GradientTransformationExtraArgs:
    """Returns Adam at Polyak's rate for a loss with minimum 0, at most `max_rate`."""
    del num_steps  # it has no horizon
    return _with_loss("momo_adam", optax.contrib.momo_adam(max_rate))


def _cosine(factor: Scalar, num_steps: Scalar) -> Callable[[Scalar], Scalar]:
    total = jnp.asarray(num_steps, jnp.float32)
    return lambda count: factor * cosine_decay(jnp.asarray(count, jnp.float32), total)


def _with_loss(
    name: str, inner: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    def update(
        grads: optax.Updates, state: Any, params: Params | None = None, *, value: Any = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        require_loss(name, value)
        return inner.update(grads, state, params, value=value, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _hold_without_gradient(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Returns `inner`, standing still where all gradients are exactly zero.

    The authors' own code does so; optax divides by the gradients' sum and keeps the NaN for good.
    """

    def update(
        grads: optax.Updates, state: Any, params: Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, Any]:
        moves = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads)]))
        updates, new_state = inner.update(grads, state, params, **extra)
        updates = jax.tree.map(lambda u: jnp.where(moves, u, jnp.zeros_like(u)), updates)
        return updates, jax.tree.map(lambda new, old: jnp.where(moves, new, old), new_state, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)
