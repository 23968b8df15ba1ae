"""`adafactor_mlp`: one tiny network, shared by all parameters, on momenta and factored second moments.

Four hidden units see 28 features of a parameter, each divided by its root mean square over the tensor, and the
iteration on 11 time-scales, and answer with a direction and a log magnitude:

    Δp = − 0.001 · direction · exp(0.001 · magnitude)

The decays of all accumulators are meta-learned with the network: 1 − β = (1 − β₀)·exp(10·theta). There is no
controller, so the number of steps and the loss are not read.

[1] Metz et al. 2022, "Practical tradeoffs between memory, compute, and performance in learned optimizers".
[2] google/learned_optimization (Apache-2.0): the published network, which `released()` reproduces.
Deviations, both undone by `released()`: gradients are clipped at 1e15, beyond which their squares or the sums of
these overflow and the published update is NaN; and a momentum's decay stays at 0 or above, as those of the other
accumulators do in [2] (below −1 the published momentum grows without bound).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from pydantic import Field, field_validator, model_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_params
from lopt.features import published as pf
from lopt.features import stacks as st
from lopt.features.compiled_once import compiled_once
from lopt.features.iteration import PUBLISHED_TIMESCALES, tanh_iteration
from lopt.registry import known_names
from lopt.rules.per_parameter_network import MAX_NARROW, DenseLayer, narrow_mlp, rms_scales, wide_mlp
from lopt.types import PRNGKey, Scalar, Theta

FEATURES = tuple(
    name for name in pf.PUBLISHED_FEATURES if name not in ("clipped_gradient", "normalized_gradient")
)
"""Feature groups of the published network, in its order; VeLO added the two others."""
NORMALIZER_EPSILON = 1e-5
VECTOR_MOMENTUM_EPSILON = 1e-6

InitialDecay = Annotated[float, Field(gt=0, lt=1)]


class AdafactorMlpState(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far
    accumulators: tuple[pf.Accumulators, ...]  # one per shape, see lopt.features.stacks


class AdafactorMlpConfig(ArchitectureConfig):
    """Sizes and constants of `adafactor_mlp`; the defaults are the paper's."""

    architecture: Literal["adafactor_mlp"] = "adafactor_mlp"
    features: tuple[str, ...] = FEATURES
    """Per-parameter feature groups; leaving one out is an ablation. At least one."""
    iteration_timescales: tuple[Annotated[float, Field(gt=0)], ...] = PUBLISHED_TIMESCALES
    """In updates; without any, the network does not see time."""
    hidden_size: int = Field(4, ge=1, le=1024)
    hidden_layers: int = Field(2, ge=1, le=8)
    momentum_decays: tuple[InitialDecay, ...] = (0.9, 0.99, 0.999)
    """Initial decays, like the next two: theta moves them. As many as `factored_decays`."""
    second_moment_decays: tuple[InitialDecay, ...] = (0.999,)
    factored_decays: tuple[InitialDecay, ...] = (0.9, 0.99, 0.999)
    step_mult: float = Field(0.001, gt=0)
    exp_mult: float = Field(0.001, gt=0)
    max_gradient: float | None = Field(1e15, gt=0)
    """Bound on every element of the gradient, for finiteness only; None for no bound."""
    min_momentum_decay: float | None = Field(0.0, lt=1)
    """Bound on what theta makes of a momentum's decay; None for no bound."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of momenta and second moments between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(pf.PUBLISHED_FEATURES, names, kind="per-parameter feature")

    @model_validator(mode="after")
    def _paired_decays(self) -> Self:
        pf.require_paired_decays(self.features, len(self.momentum_decays), len(self.factored_decays))
        return self

    @classmethod
    def released(cls, **sizes: Any) -> AdafactorMlpConfig:
        """Returns the configuration that follows the published network everywhere; `sizes` for other fields."""
        return cls.model_validate({"max_gradient": None, "min_momentum_decay": None, **sizes})

    @property
    def num_inputs(self) -> int:
        """Inputs of the network: 28 features and 11 time-scales with the defaults."""
        initial = pf.Decays(self.momentum_decays, self.second_moment_decays, self.factored_decays)
        sizes = pf.feature_sizes(initial)
        return sum(sizes[name] for name in self.features) + len(self.iteration_timescales)

    def build(self) -> AdafactorMlp:
        """Returns the optimizer."""
        return AdafactorMlp(self)


class AdafactorMlp:
    """The learned optimizer that an `AdafactorMlpConfig` describes."""

    reads_loss = False

    def __init__(self, config: AdafactorMlpConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta: 197 numbers at the default sizes.

        `network` has the weights `w0, b0, w1, …`, the first one's rows being the features, then the time-scales;
        the three others, one number per decay, are zero where the decays are the configuration's.
        """
        c = self.config
        sizes = (c.num_inputs, *[c.hidden_size] * c.hidden_layers, 2)
        network: nn.Weights = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layer = nn.init_linear(jax.random.fold_in(key, i), fan_in, fan_out)
            network |= {f"w{i}": layer["w"], f"b{i}": layer["b"]}
        return {
            "network": network,
            "momentum_decays": jnp.zeros((len(c.momentum_decays),), jnp.float32),
            "second_moment_decays": jnp.zeros((len(c.second_moment_decays),), jnp.float32),
            "factored_decays": jnp.zeros((len(c.factored_decays),), jnp.float32),
        }

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation that `theta` defines.

        The network does not read `num_steps`; it is checked all the same, so that optimizers can be exchanged.
        The `update` needs `params`. Extra keywords are ignored, the loss among them.
        """
        horizon(num_steps)

        def update(
            grads: optax.Updates, state: AdafactorMlpState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, AdafactorMlpState]:
            del extra_args
            require_params("adafactor_mlp", params)
            return _update(self.config, theta, grads, state, params)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, params), update)


def _init(config: AdafactorMlpConfig, params: Any) -> AdafactorMlpState:
    decays = pf.Decays(config.momentum_decays, config.second_moment_decays, config.factored_decays)
    dtype = jnp.dtype(config.state_dtype)
    stacks = st.plan_stacks(jax.tree.leaves(params), swap_narrow=True)
    return AdafactorMlpState(
        progress=jnp.zeros((), jnp.int32),
        accumulators=tuple(pf.init_accumulators(stack, decays, dtype) for stack in stacks),
    )


@partial(jax.jit, static_argnums=0)
def _update(
    config: AdafactorMlpConfig, theta: Theta, grads: Any, state: AdafactorMlpState, params: Any
) -> tuple[Any, AdafactorMlpState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves, swap_narrow=True)
    decays = _decays(config, theta)
    layers = _layers(config, theta["network"], state.progress)
    updates, accumulators = [], []
    # Bounded leaf by leaf, where it is part of stacking them; afterwards it would be another array.
    gradients = st.stack_leaves(stacks, [_bounded(config, leaf) for leaf in jax.tree.leaves(grads)])
    for stack, param, grad, old in zip(
        stacks, st.stack_leaves(stacks, leaves), gradients, state.accumulators, strict=True
    ):
        acc = pf.accumulate(old, grad, decays, stack)
        compute = partial(_step, config, stack, layers, param, grad, acc)
        updates.append(compiled_once(state.progress, compute))
        accumulators.append(pf.store_accumulators(acc, jnp.dtype(config.state_dtype), state.progress))
    new_state = AdafactorMlpState(state.progress + 1, tuple(accumulators))
    return jax.tree.unflatten(treedef, st.unstack_leaves(stacks, updates, leaves)), new_state


def _bounded(config: AdafactorMlpConfig, grad: jax.Array) -> jax.Array:
    grad = jnp.asarray(grad).astype(jnp.float32)
    return grad if config.max_gradient is None else jnp.clip(grad, -config.max_gradient, config.max_gradient)


def _decays(config: AdafactorMlpConfig, theta: Theta) -> pf.Decays:
    """Returns the decays that theta makes of the initial ones, as scalars."""
    return pf.Decays(
        momentum=_moved(config.momentum_decays, theta["momentum_decays"], config.min_momentum_decay),
        second_moment=_moved(config.second_moment_decays, theta["second_moment_decays"], 0.0),
        factored=_moved(config.factored_decays, theta["factored_decays"], 0.0),
    )


def _moved(initial: tuple[float, ...], theta: jax.Array, lowest: float | None) -> tuple[jax.Array, ...]:
    """Returns 1 − (1 − initial)·exp(10·theta), at least `lowest`.

    Sums before it takes the exponential, as [2] does: near 1 the two orders differ by more than rounding allows.
    """
    decays = 1.0 - jnp.exp(10.0 * (jnp.log(1.0 - jnp.asarray(initial, jnp.float32)) / 10.0 + theta))
    return tuple(decays if lowest is None else jnp.maximum(decays, lowest))


def _layers(config: AdafactorMlpConfig, network: nn.Weights, progress: jax.Array) -> list[DenseLayer]:
    """Returns the network on the features alone: the iteration, the same for all parameters, becomes a bias."""
    time = tanh_iteration(progress, config.iteration_timescales)
    num_features = network["w0"].shape[0] - time.shape[0]
    first = DenseLayer(network["w0"][:num_features], network["b0"] + time @ network["w0"][num_features:])
    return [first] + [
        DenseLayer(network[f"w{i}"], network[f"b{i}"]) for i in range(1, config.hidden_layers + 1)
    ]


def _step(
    config: AdafactorMlpConfig,
    stack: st.Stack,
    layers: list[DenseLayer],
    param: jax.Array,
    grad: jax.Array,
    acc: pf.Accumulators,
) -> jax.Array:
    inputs = pf.feature_inputs(stack, param, grad, acc, vector_momentum_epsilon=VECTOR_MOMENTUM_EPSILON)
    scales = rms_scales(stack, pf.compute_features(config.features, inputs), epsilon=NORMALIZER_EPSILON)
    # Computed a second time: shared with the normaliser, every feature would be written to memory in between.
    features = pf.compute_features(config.features, jax.lax.optimization_barrier(inputs))
    if config.hidden_size <= MAX_NARROW:
        direction, magnitude = narrow_mlp(stack, layers, features, scales=scales)
    else:
        whole = [jnp.broadcast_to(feature, param.shape) for feature in features]
        direction, magnitude = wide_mlp(layers)(whole, scales)
    return -(direction * jnp.exp(config.exp_mult * magnitude)) * config.step_mult
