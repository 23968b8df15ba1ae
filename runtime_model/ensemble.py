"""One member of the run-time model, and fitting many of them in one compiled program.

A member is a kernel regression of log seconds plus a deep set that learns what the regression leaves: its
leave-one-out residuals, since its plain residuals would be too small. With some tens of timings the regression
carries the prediction, and the deep set is taken from its first steps. The validity logit is the deep set's
second output plus a learned multiple of the regression's log seconds, because "too slow" is the commonest way to
be invalid.

Every member sees its own training rows and watches its own validation rows; the parameters kept are those of
the step with the least validation loss.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lopt.types import PRNGKey, PyTree, Scalar
from runtime_model.features import ConfigFeatures
from runtime_model.kernel import kernel, solve
from runtime_model.network import NetworkConfig


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
    network: PyTree


class FitSettings(NamedTuple):
    """Static settings of a fit (hashable)."""

    num_steps: int
    learning_rate: float
    weight_decay: float


def init_member(network: NetworkConfig, num_support: int, key: PRNGKey) -> Member:
    """Returns a member that predicts one second and even odds for everything."""
    ids, numbers = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.float32)
    params = network.build().init(key, ConfigFeatures(ids, ids, numbers, numbers))
    scale = jnp.asarray([0.0, 1.0], jnp.float32)
    return Member(jnp.zeros(num_support, jnp.float32), scale, jnp.zeros(2, jnp.float32), params)


def base_log_seconds(member: Member, gram: jax.Array) -> jax.Array:
    """Returns the kernel regression's log seconds [N] from the kernel [N, S]."""
    return gram @ member.coefficients + member.scale[0]


def apply_member(
    member: Member, base: jax.Array, features: ConfigFeatures, network: NetworkConfig
) -> tuple[jax.Array, jax.Array]:
    """Returns (log seconds [N], validity logit [N]) given the regression's log seconds `base` [N]."""
    correction, logit = network.build().apply(member.network, features)
    standard = (base - member.scale[0]) / member.scale[1]
    return base + correction, logit + member.validity[0] * standard + member.validity[1]


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


def _loss(
    member: Member,
    base: jax.Array,
    features: ConfigFeatures,
    targets: Targets,
    weight: jax.Array,
    network: NetworkConfig,
) -> Scalar:
    """Returns squared error of log seconds over timed rows plus cross-entropy of validity, each a mean."""
    log_seconds, logit = apply_member(member, base, features, network)
    timed = weight * targets.is_timed
    squared = (timed * (log_seconds - targets.log_seconds) ** 2).sum() / jnp.maximum(timed.sum(), 1.0)
    entropy = optax.sigmoid_binary_cross_entropy(logit, targets.is_valid)
    return squared + (weight * entropy).sum() / jnp.maximum(weight.sum(), 1.0)


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
    """Fits M members.

    Args:
      keys: [M].
      train: [M, N] weights of the rows each member is fitted on.
      validation: [M, N] weights of the rows that choose each member's step.
      points: [N, D] coordinates of all configurations (`runtime_model.kernel.coordinates`).
      features: Of all N configurations.
      targets: Of all N configurations.
      network: Sizes. Static.
      settings: Static.

    Returns:
      The members, leading axis M, and the step each was taken from [M].
    """
    gram = kernel(points, points)
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.num_steps, alpha=0.05)
    optimizer = optax.adamw(schedule, weight_decay=settings.weight_decay)

    def fit_one(key: PRNGKey, train_rows: jax.Array, held_rows: jax.Array) -> tuple[Member, jax.Array]:
        fixed, base = _fit_base(init_member(network, gram.shape[0], key), gram, targets, train_rows)

        def loss(trained: tuple[PyTree, jax.Array], rows: jax.Array) -> Scalar:
            member = fixed._replace(network=trained[0], validity=trained[1])
            return _loss(member, base, features, targets, rows, network)

        def step(carry: PyTree, index: jax.Array) -> tuple[PyTree, None]:
            trained, state, best, best_loss, best_step = carry
            held = loss(trained, held_rows)
            better = held < best_loss
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), trained, best)
            best_loss = jnp.minimum(held, best_loss)
            best_step = jnp.where(better, index, best_step)
            grads = jax.grad(loss)(trained, train_rows)
            with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
                updates, state = optimizer.update(grads, state, trained)
            return (optax.apply_updates(trained, updates), state, best, best_loss, best_step), None

        start = (fixed.network, fixed.validity)
        infinity, zero = jnp.asarray(jnp.inf, jnp.float32), jnp.asarray(0, jnp.int32)
        carry = (start, optimizer.init(start), start, infinity, zero)
        (_, _, best, _, best_step), _ = jax.lax.scan(step, carry, jnp.arange(settings.num_steps))
        return fixed._replace(network=best[0], validity=best[1]), best_step

    return jax.vmap(fit_one)(keys, train, validation)
