"""The update rule of CIAO: an Adam family whose every hyper-parameter may change at every step.

    clip     G ← max(β_clip·G, ‖g‖),   g ← g·min(1, f·G/‖g‖)            ‖·‖ over all tensors
    mean     m ← β₁·m + (1 − β₁)·g,                                     m̂ corrected for its start
    scale    Adamax: u ← max(β₂·u, |g|);   Adam: u² ← β₂·u² + (1 − β₂)·g², corrected
    update   d = m̂/(u + ε) + λ·φ
    trust    N ← EMA of ‖d‖ at β_trust, corrected;   r = max(‖φ‖/N, r_min)ᵖ      per tensor
    step     φ ← φ − α·r·d

Hyper-parameters are scalars of a NamedTuple and may be traced: `update(…, hyperparameters=…)` sets all or some of
them for one step without recompiling. Special cases: Adam (f = 1, λ = 0, p = 0), AdamW (f = 1, p = 0), Adamax, and
LAMB (f = 1, β_trust = 0, r_min = 0, p = 1 for all tensors).

Where the paper's text is silent, the released code decides: the weight decay is part of the update whose norm the
trust ratio divides by; ε is added to Adamax's maximum, not kept in it; the ratio is 1 while either norm is below
10⁻⁸; vectors and scalars have no trust ratio (their p is 0 by default); averages are corrected by the weight that
they have really seen, so that decays may change.

Deviations: Adam and Adamax share one accumulator, the scale u, so that a run may switch between them. The released
code divides by ‖g‖ + 10⁻⁶ when it clips, which shrinks small gradients whatever f is; we divide by ‖g‖ unless told
otherwise (`clip_epsilon`). Its other mechanisms, which LHOPT leaves off, are left out.

[1] Almeida et al. 2021, "A Generalizable Approach to Learning Optimizers", App. C and I.
[2] openai/LHOPT (MIT): the released inner optimizer and an example configuration.
[3] Kingma & Ba 2015, "Adam" (Adamax).  [4] You et al. 2020, LAMB.  [5] Merity 2019, SHA-RNN (r_min).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lopt.contract import require_params
from lopt.registry import lookup
from lopt.rules.elementwise import (
    StateDtype,
    bounded_gradients,
    cast_like,
    loaded,
    move,
    moving_rate,
    next_weight,
    safe_ratio,
    safe_root,
    stored,
    zeros_like_all,
)
from lopt.types import Params, Scalar

NEGLIGIBLE_NORM = 1e-8
"""A tensor or an update that is shorter has no trust ratio: its step is the learning rate times the update."""


class CiaoHyperparameters(NamedTuple):
    """Everything that may be set at run time: float32 scalars, traced or not. `CiaoConfig` has the usual values."""

    learning_rate: Scalar
    one_minus_beta1: Scalar
    one_minus_beta2: Scalar
    epsilon: Scalar
    weight_decay: Scalar
    clip_fraction: Scalar
    one_minus_beta_clip: Scalar
    adamax: Scalar
    trust_power: Scalar
    vector_trust_power: Scalar
    minimum_trust: Scalar
    one_minus_beta_trust: Scalar


class CiaoWeights(NamedTuple):
    """Total weights of the averages so far: scalars in [0, 1]."""

    mean: jax.Array
    scale: jax.Array
    update_norm: jax.Array


class CiaoState(NamedTuple):
    """The state of one run; float32 unless noted."""

    progress: jax.Array  # scalar int32: updates so far
    hyperparameters: CiaoHyperparameters
    """What the last update used: stacked over a run, the record that a schedule is exported from."""
    max_norm: jax.Array  # scalar: G
    weights: CiaoWeights
    mean: Params  # m̂: a tree like the parameters, in the state's dtype
    scale: Params  # u: likewise
    update_norm: jax.Array  # N: [num_tensors], in the order of the leaves


def ciao(
    hyperparameters: CiaoHyperparameters | Callable[[Scalar], CiaoHyperparameters],
    *,
    clip_epsilon: float = 0.0,
    state_dtype: StateDtype = "float32",
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer with given hyper-parameters, or with a schedule of them.

    Its `update(grads, state, params, hyperparameters=None)` uses, for that one step, what `hyperparameters` gives:
    a `CiaoHyperparameters`, or a mapping with some of its names. They are data: values outside their ranges are not
    refused. Other keywords are ignored.

    Args:
      hyperparameters: Scalars, which may be traced; or a function from the number of updates so far (scalar
        float32).
      clip_epsilon: Added to the gradient's norm where it divides.
      state_dtype: Of m̂ and u between steps.

    Raises:
      ValueError: From `update`, without `params`.
      UnknownNameError, TypeError: From `update`, if `hyperparameters` has a name that is none, or is no mapping.

    Example:
      >>> optimizer = ciao(CiaoConfig(weight_decay=0.1).hyperparameters())
      >>> updates, state = optimizer.update(grads, state, params, hyperparameters={"learning_rate": rate})
    """

    def planned(progress: jax.Array) -> CiaoHyperparameters:
        given = hyperparameters
        values = given(progress.astype(jnp.float32)) if callable(given) else given
        return CiaoHyperparameters(*(jnp.array(value, jnp.float32) for value in values))

    def zero() -> jax.Array:  # buffers of their own, so that the state can be donated
        return jnp.zeros((), jnp.float32)

    def init(params: Any) -> CiaoState:
        progress = jnp.zeros((), jnp.int32)
        return CiaoState(
            progress=progress,
            hyperparameters=planned(progress),
            max_norm=zero(),
            weights=CiaoWeights(zero(), zero(), zero()),
            mean=zeros_like_all(params, state_dtype),
            scale=zeros_like_all(params, state_dtype),
            update_norm=jnp.zeros((len(jax.tree.leaves(params)),), jnp.float32),
        )

    def update(
        grads: Any, state: CiaoState, params: Any = None, *, hyperparameters: Any = None, **extra_args: Any
    ) -> tuple[Any, CiaoState]:
        del extra_args
        require_params("ciao", params)
        in_force = _in_force(planned(state.progress), hyperparameters)
        updates, new = _update(in_force, clip_epsilon, grads, state, params)
        return cast_like(updates, grads, params), new._replace(
            mean=stored(new.mean, state_dtype, state.progress),
            scale=stored(new.scale, state_dtype, state.progress),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _in_force(planned: CiaoHyperparameters, given: Any) -> CiaoHyperparameters:
    """Returns the planned hyper-parameters with what was given in their place."""
    if given is None:
        return planned
    if isinstance(given, CiaoHyperparameters):
        given = given._asdict()
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`hyperparameters` must be a CiaoHyperparameters or a mapping of some of its names, got {type(given)}"
        )
    known = dict.fromkeys(CiaoHyperparameters._fields)
    for name in given:
        lookup(known, name, kind="hyper-parameter of ciao")
    return planned._replace(**{name: jnp.asarray(value, jnp.float32) for name, value in given.items()})


def _update(
    h: CiaoHyperparameters, clip_epsilon: float, grads: Any, state: CiaoState, params: Any
) -> tuple[Any, CiaoState]:
    """Returns the updates and the next state, all of it float32."""
    clipped, max_norm = _clip(h, clip_epsilon, bounded_gradients(grads), state.max_norm)
    weights = CiaoWeights(
        mean=next_weight(state.weights.mean, h.one_minus_beta1),
        # A maximum has no start to correct for: after it, Adam's average is one of full weight.
        scale=jnp.where(h.adamax >= 0.5, 1.0, next_weight(state.weights.scale, h.one_minus_beta2)),
        update_norm=next_weight(state.weights.update_norm, h.one_minus_beta_trust),
    )
    mean_rate = moving_rate(weights.mean, h.one_minus_beta1)
    scale_rate = moving_rate(weights.scale, h.one_minus_beta2)
    norm_rate = moving_rate(weights.update_norm, h.one_minus_beta_trust)
    values = loaded(params)
    mean = jax.tree.map(lambda m, g: move(m, g, mean_rate), loaded(state.mean), clipped)
    scale = jax.tree.map(lambda u, g: _next_scale(h, u, g, scale_rate), loaded(state.scale), clipped)
    direction = jax.tree.map(
        lambda m, u, p: safe_ratio(m, u + h.epsilon) + h.weight_decay * p, mean, scale, values
    )
    update_norm = move(state.update_norm, _norms(direction), norm_rate)
    steps = jax.tree.unflatten(
        jax.tree.structure(values), h.learning_rate * _trust_ratios(h, values, update_norm)
    )
    updates = jax.tree.map(lambda step, d: -step * d, steps, direction)
    return updates, CiaoState(state.progress + 1, h, max_norm, weights, mean, scale, update_norm)


def _clip(h: CiaoHyperparameters, epsilon: float, grads: Any, max_norm: jax.Array) -> tuple[Any, jax.Array]:
    """Returns the gradients, no longer than the fraction f of the decaying maximum, and that maximum."""
    norm = safe_root(jnp.sum(jnp.square(_norms(grads))))
    max_norm = jnp.maximum((1.0 - h.one_minus_beta_clip) * max_norm, norm)
    shortening = jnp.minimum(safe_ratio(h.clip_fraction * max_norm, norm + epsilon), 1.0)
    # A norm whose square underflows counts as zero, and the gradients pass as they are.
    factor = jnp.where(norm > 0, shortening, 1.0)
    return jax.tree.map(lambda g: factor * g, grads), max_norm


def _norms(tree: Any) -> jax.Array:
    """Returns the Euclidean norm of every tensor, [num_tensors]; its derivative at zero is zero."""
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)]
    return safe_root(jnp.stack(squares)) if squares else jnp.zeros((0,), jnp.float32)


def _next_scale(h: CiaoHyperparameters, scale: jax.Array, grad: jax.Array, rate: jax.Array) -> jax.Array:
    """Returns u: of Adamax or, as the root of a corrected average of squares, of Adam."""
    maximum = jnp.maximum((1.0 - h.one_minus_beta2) * scale, jnp.abs(grad))
    root = safe_root(move(jnp.square(scale), jnp.square(grad), rate))
    return jnp.where(h.adamax >= 0.5, maximum, root)


def _trust_ratios(h: CiaoHyperparameters, params: Any, update_norm: jax.Array) -> jax.Array:
    """Returns max(‖φ‖/N, r_min)ᵖ, and 1 where either norm is negligible: [num_tensors]."""
    norm = _norms(params)
    usable = (norm >= NEGLIGIBLE_NORM) & (update_norm >= NEGLIGIBLE_NORM)
    ratio = jnp.maximum(norm / jnp.where(usable, update_norm, 1.0), h.minimum_trust)
    is_matrix = np.asarray([leaf.ndim >= 2 for leaf in jax.tree.leaves(params)], bool)
    power = jnp.where(is_matrix, h.trust_power, h.vector_trust_power)
    return jnp.where(usable, jnp.power(jnp.where(usable, ratio, 1.0), power), 1.0)
