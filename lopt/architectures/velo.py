"""`velo`: a tensor-level LSTM that writes, for every tensor, the per-parameter network that trains it.

Each tensor's summary goes through a mixing layer (which lets tensors see the largest response of any) into an
LSTM. Its output gives the tensor a step scalar and the coefficients of a bank of tiny per-parameter networks; their
linear combination is the network that turns 30 features of each parameter into a direction and a log magnitude.

    Δp = − direction · exp(0.001·magnitude) · 0.001 · step scalar · sqrt(mean p² + 1e-9)

The user gives the number of steps and nothing else.

[1] Metz et al. 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up", App. B.
[2] google/learned_optimization (Apache-2.0): the released network, which this reproduces; where [1] and [2]
    differ, [2] is followed.
Deviations: a loss that is not finite leaves the loss features as they were. `released()` adds the published
weights' first mixing layer, which has no effect on anything, so that theta travels both ways.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field, field_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_loss, require_params
from lopt.features import loss_accumulators as la
from lopt.features import published as pf
from lopt.features import stacks as st
from lopt.features.compiled_once import compiled_once
from lopt.features.progress import tanh_fraction
from lopt.features.tensor_summary import summarize_tensors, summary_sizes
from lopt.registry import known_names
from lopt.rules.per_parameter_network import DenseLayer, narrow_mlp, rms_scales
from lopt.types import PRNGKey, Scalar, Theta

MAX_GRADIENT = 1000.0
BANK_SCALE = 100.0
NORMALIZER_EPSILON = 1e-5


class VeloState(NamedTuple):
    """The state of one run. Rows of per-tensor arrays are in the order of the parameters' non-empty leaves."""

    progress: jax.Array  # scalar int32: updates so far, out of num_steps
    accumulators: tuple[pf.Accumulators, ...]  # one per shape, see lopt.features.stacks
    lstm: nn.LstmState  # [num_tensors, lstm_hidden_size]
    loss: la.LossAccumulators
    controls: jax.Array  # [num_tensors, mlp_bank_size]: the last step's mixing coefficients
    step_scalars: jax.Array  # [num_tensors]


class VeloConfig(ArchitectureConfig):
    """Sizes of `velo`; the defaults are the paper's."""

    architecture: Literal["velo"] = "velo"
    lstm_hidden_size: int = Field(512, ge=1, le=4096)
    mlp_bank_size: int = Field(256, ge=1, le=4096)
    mlp_hidden_size: int = Field(4, ge=1, le=16)
    features: tuple[str, ...] = tuple(pf.PUBLISHED_FEATURES)
    """Per-parameter feature groups; leaving one out is an ablation."""
    summaries: tuple[str, ...] = tuple(summary_sizes(3, 1))
    """Per-tensor summaries that the LSTM sees."""
    step_mult: float = Field(0.001, gt=0)
    exp_mult: float = Field(0.001, gt=0)
    dead_mixing_layer: bool = False
    """Whether theta carries the published weights' first mixing layer, which nothing reads."""
    carries_lstm_state: bool = True
    """False reproduces checkpoints from before April 2022, whose LSTM saw its initial state at every step."""
    loss_horizon: int | None = Field(None, ge=10)
    """10 reproduces older checkpoints, whose loss features ignored the number of steps; None uses it."""
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of momenta and second moments between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(pf.PUBLISHED_FEATURES, names, kind="per-parameter feature")

    @field_validator("summaries")
    @classmethod
    def _known_summaries(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(summary_sizes(3, 1), names, kind="tensor summary")

    @classmethod
    def released(cls, **sizes: int) -> VeloConfig:
        """Returns the configuration of the published weights; `sizes` for other than the paper's."""
        return cls.model_validate({"dead_mixing_layer": True, **sizes})

    @property
    def num_features(self) -> int:
        """Inputs of the per-parameter network: 30 with all features."""
        sizes = pf.feature_sizes(pf.Decays())
        return sum(sizes[name] for name in self.features)

    @property
    def num_summaries(self) -> int:
        """Inputs of the tensor-level network: 30 with all summaries."""
        sizes = summary_sizes(3, 1)
        return sum(sizes[name] for name in self.summaries)

    def build(self) -> Velo:
        """Returns the optimizer."""
        return Velo(self)


class Velo:
    """The learned optimizer that a `VeloConfig` describes."""

    reads_loss = True
    product_weights = (
        "['mix_all']['w']",
        "['mix_self']['w']",
        "['lstm']['w']",
        "['controls']['w']",
        *(f"['bank']['{kind}{layer}']" for kind in "wb" for layer in range(3)),
    )
    """Paths of the weights of theta that are only ever multiplied with: they need not be written out per twin."""

    def __init__(self, config: VeloConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta: 2.3 million numbers at the default sizes."""
        c = self.config
        keys = jax.random.split(key, 8)
        hidden = c.lstm_hidden_size
        sizes = (c.num_features, c.mlp_hidden_size, c.mlp_hidden_size, 3)
        theta = {
            "lstm_init": {"hidden": jnp.zeros((1, hidden)), "cell": jnp.zeros((1, hidden))},
            "mix_all": nn.init_linear(keys[0], c.num_summaries, hidden),
            "mix_self": nn.init_linear(keys[1], c.num_summaries, hidden),
            "lstm": nn.init_lstm(keys[2], hidden, hidden),
            "controls": nn.init_linear(keys[3], hidden, c.mlp_bank_size),
            "step_scalar": nn.init_linear(keys[4], hidden, 1),
            "bank": _init_bank(keys[5], c.mlp_bank_size, sizes),
        }
        if c.dead_mixing_layer:
            theta["dead_mixing_layer"] = nn.init_linear(keys[6], c.num_summaries, hidden)
        return theta

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation for a run of `num_steps` updates.

        Its `update` needs `params` and the keyword `value`, the loss at `params`. Extra keywords are ignored.
        """
        total = horizon(num_steps)

        def update(
            grads: optax.Updates,
            state: VeloState,
            params: Any = None,
            *,
            value: Any = None,
            **extra_args: Any,
        ) -> tuple[optax.Updates, VeloState]:
            del extra_args
            require_params("velo", params)
            require_loss("velo", value)
            return _update(self.config, theta, total, grads, state, params, value)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, theta, params), update)


def _init_bank(key: PRNGKey, bank_size: int, sizes: tuple[int, ...]) -> nn.Weights:
    bank: nn.Weights = {}
    for i, layer_key in enumerate(jax.random.split(key, len(sizes) - 1)):
        weight = jax.random.truncated_normal(
            layer_key, -2.0, 2.0, (bank_size, sizes[i], sizes[i + 1]), jnp.float32
        )
        bank[f"w{i}"] = weight / jnp.sqrt(jnp.float32(sizes[i]))
        bank[f"b{i}"] = jnp.zeros((bank_size, sizes[i + 1]), jnp.float32)
    return bank


def _init(config: VeloConfig, theta: Theta, params: Any) -> VeloState:
    stacks = st.plan_stacks(jax.tree.leaves(params), swap_narrow=True)
    num_tensors = sum(stack.num_tensors for stack in stacks)
    dtype = jnp.dtype(config.state_dtype)
    start = theta["lstm_init"]
    tile = lambda x: jnp.tile(x, (num_tensors, 1))
    return VeloState(
        progress=jnp.zeros((), jnp.int32),
        accumulators=tuple(pf.init_accumulators(stack, pf.Decays(), dtype) for stack in stacks),
        lstm=nn.LstmState(tile(start["hidden"]), tile(start["cell"])),
        loss=la.init_loss_accumulators(),
        controls=jnp.zeros((num_tensors, config.mlp_bank_size), jnp.float32),
        step_scalars=jnp.zeros((num_tensors,), jnp.float32),
    )


@partial(
    jax.jit, static_argnums=0
)  # called outside a compiled step, it still compiles once per set of shapes
def _update(
    config: VeloConfig,
    theta: Theta,
    num_steps: jax.Array,
    grads: Any,
    state: VeloState,
    params: Any,
    value: Any,
) -> tuple[Any, VeloState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves, swap_narrow=True)
    if not stacks:
        return grads, state
    p = st.stack_leaves(stacks, leaves)
    g = [jnp.clip(x, -MAX_GRADIENT, MAX_GRADIENT) for x in st.stack_leaves(stacks, jax.tree.leaves(grads))]
    mean_square = [st.tensor_mean(stack, jnp.square(x)) for stack, x in zip(stacks, p, strict=True)]
    decays = la.loss_decays(num_steps if config.loss_horizon is None else jnp.float32(config.loss_horizon))
    loss = la.update_loss_accumulators(state.loss, jnp.asarray(value, jnp.float32), decays)
    state = state._replace(loss=loss)
    summaries = _summaries(config, stacks, state, mean_square, num_steps, la.loss_features(loss, decays))
    controls, step_scalars, lstm = _tensor_network(theta, summaries, state.lstm)
    networks = _per_tensor_networks(theta["bank"], controls)
    by_stack = [st.rows_of(stack, networks) for stack in stacks]
    updates, accumulators = [], []
    for s, stack in enumerate(stacks):
        acc = pf.accumulate(state.accumulators[s], g[s], pf.Decays(), stack)
        step = st.per_tensor(stack, st.rows_of(stack, step_scalars)) * jnp.sqrt(mean_square[s] + 1e-9)
        compute = partial(_step, config, stack, by_stack[s], p[s], g[s], acc, step)
        updates.append(compiled_once(state.progress, compute))
        accumulators.append(pf.store_accumulators(acc, jnp.dtype(config.state_dtype), state.progress))
    new_state = VeloState(
        progress=state.progress + 1,
        accumulators=tuple(accumulators),
        lstm=lstm if config.carries_lstm_state else state.lstm,
        loss=loss,
        controls=controls,
        step_scalars=step_scalars,
    )
    return jax.tree.unflatten(treedef, st.unstack_leaves(stacks, updates, leaves)), new_state


def _summaries(
    config: VeloConfig,
    stacks: tuple[st.Stack, ...],
    state: VeloState,
    mean_square: list[jax.Array],
    num_steps: jax.Array,
    loss: jax.Array,
) -> jax.Array:
    """Returns what the LSTM sees of every tensor: [num_tensors, num_summaries]."""
    fraction = tanh_fraction(state.progress.astype(jnp.float32) / num_steps)
    per_stack = [
        summarize_tensors(stack, pf.to_float32(acc), square, fraction, loss, config.summaries)
        for stack, acc, square in zip(stacks, state.accumulators, mean_square, strict=True)
    ]
    return st.in_leaf_order(stacks, per_stack)


def _tensor_network(
    theta: Theta, summaries: jax.Array, state: nn.LstmState
) -> tuple[jax.Array, jax.Array, nn.LstmState]:
    """Returns the mixing coefficients [num_tensors, bank], step scalars [num_tensors] and the LSTM's state."""
    response = jnp.max(jax.nn.relu(nn.linear(theta["mix_all"], summaries)), axis=0, keepdims=True)
    next_state = nn.lstm_cell(theta["lstm"], nn.linear(theta["mix_self"], summaries) + response, state)
    out = next_state.hidden
    return nn.linear(theta["controls"], out), nn.linear(theta["step_scalar"], out)[:, 0], next_state


def _per_tensor_networks(bank: nn.Weights, controls: jax.Array) -> nn.Weights:
    """Returns each tensor's network, 100 · mean over the bank of coefficient · weights: [num_tensors, …]."""
    mix = controls * (BANK_SCALE / controls.shape[1])
    return {name: nn.product(mix, weights) for name, weights in bank.items()}


def _step(
    config: VeloConfig,
    stack: st.Stack,
    network: nn.Weights,
    param: jax.Array,
    grad: jax.Array,
    acc: pf.Accumulators,
    step: jax.Array,
) -> jax.Array:
    """Returns the update of one stack, [k, *shape]; `step` is each tensor's step scalar times its size."""
    inputs = pf.feature_inputs(stack, param, grad, acc, vector_momentum_epsilon=0.0)
    layers = [DenseLayer(network[f"w{i}"], network[f"b{i}"]) for i in range(3)]
    scales = rms_scales(stack, pf.compute_features(config.features, inputs), epsilon=NORMALIZER_EPSILON)
    # Computed a second time: shared with the normaliser, every feature would be written to memory in between.
    features = pf.compute_features(config.features, jax.lax.optimization_barrier(inputs))
    direction, magnitude, *_ = narrow_mlp(stack, layers, features, scales=scales)
    return -(direction * jnp.exp(config.exp_mult * magnitude)) * (config.step_mult * step)
