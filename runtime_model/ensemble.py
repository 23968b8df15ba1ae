"""One member of the run-time model, and fitting many of them in one compiled program.

A member is a kernel regression of log seconds plus a deep set that learns what the regression leaves: its
leave-one-out residuals, since its plain residuals would be too small. With some tens of timings the
regression carries the prediction, and the deep set is taken from its first steps. The validity logit is the
deep set's second output plus a learned multiple of the regression's log seconds, because "too slow" is the
commonest way to be invalid.

Every member sees its own training rows and watches its own validation rows; the parameters kept are those of
the step with the least validation loss.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.types import PRNGKey, PyTree
from runtime_model.features import ConfigFeatures
from runtime_model.kernel import kernel, solve
from runtime_model.network import NetworkConfig

VALIDITY_PENALTY = 0.02
MIN_GAIN = 0.05
"""A network replaces the best so far only if it lowers the validation loss by this fraction."""


class Targets(NamedTuple):
    """What is fitted, for N configurations."""

    log_seconds: jax.Array  # [N]; any finite number where not known
    is_timed: jax.Array  # [N] float: 1 where the seconds are known
    is_valid: jax.Array  # [N] float


class Member(NamedTuple):
    """The arrays of one member."""

    coefficients: jax.Array  # [S]: of the kernel with each of the S fitted configurations
    scale: jax.Array  # [2]: mean and standard deviation of the log seconds
    validity: jax.Array  # [2]: multiple of the regression's standardised log seconds, and offset
    time_network: PyTree
    validity_network: PyTree


class FitSettings(NamedTuple):
    """Static settings of a fit (hashable)."""

    num_steps: int
    learning_rate: float
    weight_decay: float


def init_member(network: NetworkConfig, num_support: int, key: PRNGKey) -> Member:
    """Returns a member that predicts one second and even odds for everything."""
    ids, numbers = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)
    params = network.build().init(key, ConfigFeatures(ids, ids, numbers, numbers))
    scale = jnp.asarray([0.0, 1.0], jnp.float32)
    return Member(jnp.zeros(num_support, jnp.float32), scale, jnp.zeros(2, jnp.float32), params, params)


def base_log_seconds(member: Member, gram: jax.Array) -> jax.Array:
    """Returns the kernel regression's log seconds [N] from the kernel [N, S]."""
    return gram @ member.coefficients + member.scale[0]


def apply_member(
    member: Member, base: jax.Array, features: ConfigFeatures, network: NetworkConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns (log seconds [N], validity logit [N]) given the regression's log seconds `base` [N]."""
    correction, _ = network.build().apply(member.time_network, features)
    _, logit = network.build().apply(member.validity_network, features)
    return base + correction, logit + _base_logit(member, base)


def _base_logit(member: Member, base: jax.Array) -> jax.Array:
    return member.validity[0] * (base - member.scale[0]) / member.scale[1] + member.validity[1]


def _fit_base(
    member: Member, gram: jax.Array, targets: Targets, weight: jax.Array
) -> tuple[Member, jax.Array]:
    """Fits the regression; returns also its log seconds [N], out of sample for the fitted rows too."""
    weight = weight * targets.is_timed
    total = jnp.maximum(weight.sum(), 1.0)
    mean = (weight * targets.log_seconds).sum() / total
    variance = (weight * (targets.log_seconds - mean) ** 2).sum() / total
    coefficients, left_out = solve(gram, targets.log_seconds - mean, weight)
    scale = jnp.stack([mean, jnp.sqrt(jnp.maximum(variance, 1e-4))])
    fitted = member._replace(coefficients=coefficients, scale=scale)
    predicted = base_log_seconds(fitted, gram)
    return fitted, jnp.where(weight > 0.0, targets.log_seconds - left_out, predicted)


def _fit_validity(member: Member, base: jax.Array, targets: Targets, weight: jax.Array) -> Member:
    """Fits the logistic regression of validity on the standardised log seconds, by Newton's method."""
    design = jnp.stack([(base - member.scale[0]) / member.scale[1], jnp.ones_like(base)], axis=1)
    penalty = VALIDITY_PENALTY * jnp.eye(2, dtype=jnp.float32)

    def newton(_: int, coefficients: jax.Array) -> jax.Array:
        probability = jax.nn.sigmoid(design @ coefficients)
        slope = design.T @ (weight * (probability - targets.is_valid)) + penalty @ coefficients
        curvature = weight * probability * (1.0 - probability)
        change = jnp.linalg.solve((design * curvature[:, None]).T @ design + penalty, slope)
        return coefficients - jnp.clip(change, -1.0, 1.0)

    return member._replace(validity=jax.lax.fori_loop(0, 30, newton, jnp.zeros(2, jnp.float32)))


def _losses(log_seconds: jax.Array, logit: jax.Array, targets: Targets, weight: jax.Array) -> jax.Array:
    """Returns [2]: mean squared error of log seconds over timed rows, and mean cross-entropy of validity."""
    timed = weight * targets.is_timed
    squared = (timed * (log_seconds - targets.log_seconds) ** 2).sum() / jnp.maximum(timed.sum(), 1.0)
    entropy = optax.sigmoid_binary_cross_entropy(logit, targets.is_valid)
    return jnp.stack([squared, (weight * entropy).sum() / jnp.maximum(weight.sum(), 1.0)])


@partial(jax.jit, static_argnames=("network", "settings"))
def fit_members(
    keys: PRNGKey,
    train: jax.Array,
    validation: jax.Array,
    points: jax.Array,
    features: ConfigFeatures,
    targets: Targets,
    *,
    network: NetworkConfig,
    settings: FitSettings,
) -> tuple[Member, jax.Array]:
    """Fits G groups of M members; the members of a group share their validation losses' mean, not their rows.

    Args:
      keys: [G, M].
      train: [G, M, N] weights of the rows each member is fitted on.
      validation: [G, M, N] weights of the rows that choose the group's steps.
      points: [N, D] coordinates of all configurations (`runtime_model.kernel.coordinates`).
      features: Of all N configurations.
      targets: Of all N configurations.
      network: Sizes. Static.
      settings: Static.

    Returns:
      The members, leading axes [G, M], and the steps their two networks were taken from [G, 2].
    """
    gram = kernel(points, points)
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.num_steps, alpha=0.05)
    optimizer = optax.adamw(schedule, weight_decay=settings.weight_decay)

    def start(key: PRNGKey, rows: jax.Array) -> tuple[Member, jax.Array]:
        member, base = _fit_base(init_member(network, gram.shape[0], key), gram, targets, rows)
        return _fit_validity(member, base, targets, rows), base

    def loss(
        trained: PyTree, fixed: Member, base: jax.Array, rows: jax.Array, held: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the training loss, and the validation losses [2] from the same pass."""
        correction, logit = network.build().apply(trained, features)
        outputs = base + correction, logit + _base_logit(fixed, base)
        return _losses(*outputs, targets, rows).sum(), _losses(*outputs, targets, held)

    def fit_group(keys: PRNGKey, train: jax.Array, held: jax.Array) -> tuple[Member, jax.Array]:
        fixed, base = jax.vmap(start)(keys, train)
        gradient = jax.vmap(jax.grad(loss, has_aux=True))

        def step(carry: PyTree, index: jax.Array) -> tuple[PyTree, None]:
            trained, state, best, best_loss, best_step = carry
            grads, held_losses = gradient(trained, fixed, base, train, held)
            now = held_losses.mean(axis=0)
            better = now < (1.0 - MIN_GAIN) * best_loss
            best = [
                jax.tree.map(lambda new, old, won=won: jnp.where(won, new, old), trained, kept)
                for won, kept in zip(better, best, strict=True)
            ]
            with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
                updates, state = optimizer.update(grads, state, trained)
            best_loss, best_step = jnp.where(better, now, best_loss), jnp.where(better, index, best_step)
            return (optax.apply_updates(trained, updates), state, best, best_loss, best_step), None

        silent = jax.tree.map(jnp.zeros_like, fixed.time_network)
        alone = jax.vmap(lambda m, b, h: _losses(b, _base_logit(m, b), targets, h))(fixed, base, held).mean(
            axis=0
        )
        trained = fixed.time_network
        carry = (trained, optimizer.init(trained), [silent, silent], alone, jnp.full(2, -1, jnp.int32))
        (_, _, best, _, best_step), _ = jax.lax.scan(step, carry, jnp.arange(settings.num_steps))
        return fixed._replace(time_network=best[0], validity_network=best[1]), best_step

    return jax.vmap(fit_group)(keys, train, validation)
