"""`per_parameter_mlp`: one network of 32 hidden units, shared by all parameters, on gradients' running averages.

A parameter's features, each divided by its root mean square over the tensor, and the iteration on several
time-scales go through the network, which answers with a direction and a log magnitude:

    Δp = − 0.001 · direction · exp(0.001 · magnitude)

Nothing else is learned: decays are fixed, and there is no controller, so the number of steps and the loss are not
read. The default is the network of [1]: 31 inputs (gradient, parameter, four groups of averages on five
time-scales, the iteration on nine) and one hidden layer. Its ablations (Fig. 7) are configurations with features
left out: No RMS without `second_moment`, `inverse_root` and `scaled_momentum`; No Mom without `momentum` and
`scaled_momentum`; Only Grads without all four; No Time with no `iteration_timescales`.

[1] Metz et al. 2018, "Understanding and correcting pathologies in the training of learned optimizers", App. C.
[2] google/learned_optimization (Apache-2.0): the published network, which `released()` reproduces. It has no
    second moments, six momenta, eleven time-scales and two hidden layers.
Deviations: [1] does not say what it adds under which root, so its "RMS terms" are those of the same authors' later
networks: the second moment v, r = (v + 1e-6)^(−1/2), and r times the momentum. Gradients are clipped at 1e15,
beyond which their squares or the sums of these overflow and the published update is NaN (not in `released()`).
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, field_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_params
from lopt.features import published as pf
from lopt.features import stacks as st
from lopt.features.adam_terms import ADAM_DECAYS, ADAM_TERMS, adam_decays, adam_term_sizes, adam_terms
from lopt.features.chunks import over_parameters
from lopt.features.iteration import PAPER_TIMESCALES, PUBLISHED_TIMESCALES, tanh_iteration
from lopt.registry import known_names
from lopt.rules.per_parameter_network import DenseLayer, wide_mlp
from lopt.types import PRNGKey, Scalar, Theta

NORMALIZER_EPSILON = 1e-5
CHUNK_SIZE = 16_384
"""Parameters per piece: a hidden layer of 32 units then takes two megabytes, which two cores' caches hold."""


class PerParameterMlpState(NamedTuple):
    """The state of one run."""

    progress: jax.Array  # scalar int32: updates so far
    accumulators: tuple[pf.Accumulators, ...]  # one per shape, see lopt.features.stacks


class PerParameterMlpConfig(ArchitectureConfig):
    """Sizes and constants of `per_parameter_mlp`; the defaults are the paper's."""

    architecture: Literal["per_parameter_mlp"] = "per_parameter_mlp"
    features: tuple[str, ...] = tuple(ADAM_TERMS)
    """Per-parameter feature groups; leaving one out is an ablation. At least one."""
    iteration_timescales: tuple[Annotated[float, Field(gt=0)], ...] = PAPER_TIMESCALES
    """In updates; without any, the network does not see time."""
    decays: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(ADAM_DECAYS, min_length=1)
    """Of momenta and second moments; only those that a feature needs are kept."""
    hidden_size: int = Field(32, ge=1, le=1024)
    hidden_layers: int = Field(1, ge=1, le=8)
    step_mult: float = Field(0.001, gt=0)
    exp_mult: float = Field(0.001, gt=0)
    max_gradient: float | None = Field(1e15, gt=0)
    """Bound on every element of the gradient, for finiteness only; None for no bound."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the accumulators between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(ADAM_TERMS, names, kind="per-parameter feature")

    @classmethod
    def released(cls, **changes: Any) -> PerParameterMlpConfig:
        """Returns the configuration of the published network, 19 inputs; `changes` for other fields."""
        published = {
            "features": ("gradient", "param", "momentum"),
            "iteration_timescales": PUBLISHED_TIMESCALES,
            "decays": (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999),
            "hidden_layers": 2,
            "max_gradient": None,
        }
        return cls.model_validate({**published, **changes})

    @property
    def num_inputs(self) -> int:
        """Inputs of the network: 22 features and 9 time-scales with the defaults."""
        sizes = adam_term_sizes(len(self.decays))
        return sum(sizes[name] for name in self.features) + len(self.iteration_timescales)

    def build(self) -> PerParameterMlp:
        """Returns the optimizer."""
        return PerParameterMlp(self)


class PerParameterMlp:
    """The learned optimizer that a `PerParameterMlpConfig` describes."""

    reads_loss = False

    def __init__(self, config: PerParameterMlpConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta, the weights `w0, b0, w1, …`: 1 090 numbers at the default sizes.

        The rows of `w0` are the features, then the time-scales; the two outputs are direction and magnitude.
        """
        c = self.config
        sizes = (c.num_inputs, *[c.hidden_size] * c.hidden_layers, 2)
        theta: nn.Weights = {}
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layer = nn.init_linear(jax.random.fold_in(key, i), fan_in, fan_out)
            theta |= {f"w{i}": layer["w"], f"b{i}": layer["b"]}
        return theta

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation that `theta` defines.

        The network does not read `num_steps`; it is checked all the same, so that optimizers can be exchanged.
        The `update` needs `params`. Extra keywords are ignored, the loss among them.
        """
        horizon(num_steps)

        def update(
            grads: optax.Updates, state: PerParameterMlpState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, PerParameterMlpState]:
            del extra_args
            require_params("per_parameter_mlp", params)
            return _update(self.config, theta, grads, state, params)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, params), update)


def _init(config: PerParameterMlpConfig, params: Any) -> PerParameterMlpState:
    decays, dtype = adam_decays(config.features, config.decays), jnp.dtype(config.state_dtype)
    return PerParameterMlpState(
        progress=jnp.zeros((), jnp.int32),
        accumulators=tuple(
            pf.init_accumulators(stack, decays, dtype) for stack in st.plan_stacks(jax.tree.leaves(params))
        ),
    )


@partial(jax.jit, static_argnums=0)
def _update(
    config: PerParameterMlpConfig, theta: Theta, grads: Any, state: PerParameterMlpState, params: Any
) -> tuple[Any, PerParameterMlpState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves)
    layers = _layers(config, theta, state.progress)
    updates, accumulators = [], []
    gradients = st.stack_leaves(stacks, jax.tree.leaves(grads))
    for stack, param, grad, old in zip(
        stacks, st.stack_leaves(stacks, leaves), gradients, state.accumulators, strict=True
    ):
        update, new = _step(config, stack, layers, param, grad, old, state.progress)
        updates.append(update)
        accumulators.append(new)
    new_state = PerParameterMlpState(state.progress + 1, tuple(accumulators))
    return jax.tree.unflatten(treedef, st.unstack_leaves(stacks, updates, leaves)), new_state


def _layers(config: PerParameterMlpConfig, theta: Theta, progress: jax.Array) -> list[DenseLayer]:
    """Returns the network on the features alone: the iteration, the same for all parameters, becomes a bias."""
    time = tanh_iteration(progress, config.iteration_timescales)
    num_features = theta["w0"].shape[0] - time.shape[0]
    first = DenseLayer(theta["w0"][:num_features], theta["b0"] + time @ theta["w0"][num_features:])
    return [first] + [DenseLayer(theta[f"w{i}"], theta[f"b{i}"]) for i in range(1, config.hidden_layers + 1)]


def _step(
    config: PerParameterMlpConfig,
    stack: st.Stack,
    layers: list[DenseLayer],
    param: jax.Array,
    grad: jax.Array,
    old: pf.Accumulators,
    progress: jax.Array,
) -> tuple[jax.Array, pf.Accumulators]:
    """Returns the update of one stack, [k, *shape], and its new accumulators.

    Two passes that write no feature to memory: the first measures the features, the second applies the network.
    Both bring the accumulators forward themselves, which costs less than reading them again.
    """
    decays, dtype = adam_decays(config.features, config.decays), jnp.dtype(config.state_dtype)

    def features(arrays: Any) -> tuple[list[jax.Array], pf.Accumulators]:
        p, g, acc = arrays
        if config.max_gradient is not None:
            g = jnp.clip(g, -config.max_gradient, config.max_gradient)
        acc = pf.accumulate(acc, g, decays, stack)
        return adam_terms(config.features, p, g, acc), acc

    def squares(_: Any, arrays: Any) -> tuple[Any, jax.Array]:
        every, _ = features(arrays)
        return (), jnp.stack([jnp.sum(jnp.square(f), axis=tuple(range(1, f.ndim))) for f in every], axis=1)

    def network(scales: jax.Array, arrays: Any) -> tuple[Any, Any]:
        every, acc = features(arrays)
        direction, magnitude = apply(every, scales)
        update = -(direction * jnp.exp(config.exp_mult * magnitude)) * config.step_mult
        return (update, pf.store_accumulators(acc, dtype, progress)), ()

    apply, arrays = wide_mlp(layers), (param, grad, old)
    _, sums = over_parameters(stack, squares, (), arrays, chunk_size=CHUNK_SIZE)
    scales = jax.lax.rsqrt(NORMALIZER_EPSILON + sums / np.float32(math.prod(stack.shape)))
    return over_parameters(stack, network, scales, arrays, chunk_size=CHUNK_SIZE)[0]
