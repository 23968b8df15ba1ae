"""`hierarchical_gru`: a small recurrent network per parameter, steered by one per tensor and one per problem.

    h_param  ← GRU(x, h_param;  bias from h_tensor and h_global)       one per parameter,  10 units
    h_tensor ← GRU(mean over the tensor of [h_param, x], h_tensor;  bias from h_global)    20 units
    h_global ← GRU(mean over the tensors of h_tensor, h_global)                            20 units

The inputs x are averaged gradients on several time-scales, scaled by their size (m_s), how that size changes with
the time-scale (γ_s), and the log step length relative to the rest of the problem. Read out of h_param: two
directions, a change Δη of the log step length, and the decays β, β' of the averages (see
`lopt.features.gradient_scales`).

    η = η̄ + Δη,   η̄ ← γη̄ + (1 − γ)η                 log step length, γ learned
    Δθ = −exp(η) · d_θ / RMS(d_θ)                     the update
    Δφ = −exp(η + c) · d_φ / RMS(d_φ)                 the next gradient is taken at θ (before the update) + Δφ

So nothing depends on the scale of the loss. The next gradient's location is kept in the state: train with
`lopt.gradient_location.gradient_params` (one line). The initial step lengths are random, 1e-6 to 1e-2, because the
network must find out what they should be: they are drawn from the configuration's `seed`, folded with the tensor's
position among the leaves, so that a run is reproducible without a key.

Where the paper's text leaves a choice, its released code was followed: directions are divided by their root mean
square (Eq. 5 and 6 print ‖d‖/N); decays are 0 at the first step; initial step lengths are half per tensor, half
per parameter; all initial values; η is clipped to ±33, with the derivative of the identity. Where the two disagree,
the paper was: every λ_s has its own time-scale (one for all in the release); the global network sees all tensors
(the release passes it the last one); the relative step length uses η (η̄ there); m_s is not squashed by asinh; the
offset c belongs to the attended step. And γ_s has a floor of 1e-30 (1e-16 there): small gradients are not noise.

[1] Wichrowska et al. 2017, "Learned Optimizers that Scale and Generalize" (arXiv:1703.04813).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field, field_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_params
from lopt.features import gradient_scales as gs
from lopt.features import stacks as st
from lopt.features.chunks import over_parameters
from lopt.gradient_location import AttendedOffset
from lopt.registry import lookup
from lopt.rules.elementwise import StateDtype, loaded, stored
from lopt.rules.parameter_gru import ParameterOutput, ParameterState, TensorSums, num_inputs, parameter_step
from lopt.types import PRNGKey, Scalar, Theta

FEATURES: dict[str, str] = {
    "attention": "the gradient is taken at an attended location; without: at the parameters",
    "gradient_products": "inputs m_s·m_{s+1}; not in the paper's list, but in its released code",
    "gradient_shortcut": "directions also read m_s, starting downhill; released code, not the paper's list",
    "gradient_timescales": "gradients averaged on several time-scales; without: the latest gradient only",
    "input_decay": "decays of the averages chosen by the network; without: 0.89",
    "relative_magnitudes": "inputs γ_s (nothing where there is one time-scale)",
    "relative_step": "the input η − mean η",
    "scale_decay": "decays of the mean squares chosen by the network; without: 0.93",
    "trainable_initial_state": "the hidden states' start is part of theta; without: random, drawn from `seed`",
}
"""What a configuration's `features` may name, and what leaving it out means: the ablations of Fig. 6 (whose "log
obj" is a matter of the meta-loss)."""

MAX_GRADIENT = 1e15
"""Gradients are clipped here only so that their square stays finite in float32."""
CHUNK_SIZE = 16_384
"""Parameters per piece: about 40 intermediate arrays of this length fit a CPU core's cache."""


class HierarchicalGruState(NamedTuple):
    """The state of one run. The gradient's next location is in `attention`; None where there is no attention."""

    num_updates: jax.Array  # scalar float32
    stacks: tuple[ParameterState, ...]
    tensor_hidden: jax.Array  # [num_tensors, tensor_size]
    global_hidden: jax.Array  # [global_size]
    attention: AttendedOffset | None


class HierarchicalGruConfig(ArchitectureConfig):
    """Sizes, features and constants of `hierarchical_gru`; the defaults are the paper's."""

    architecture: Literal["hierarchical_gru"] = "hierarchical_gru"
    parameter_size: int = Field(10, ge=1, le=256)
    tensor_size: int = Field(20, ge=0, le=4096)
    """Units of the network per tensor; 0 removes it, and the means it would pass on."""
    global_size: int = Field(20, ge=0, le=4096)
    num_timescales: int = Field(4, ge=2, le=16)
    features: tuple[str, ...] = (
        "attention",
        "gradient_timescales",
        "input_decay",
        "relative_magnitudes",
        "relative_step",
        "scale_decay",
        "trainable_initial_state",
    )
    seed: int = Field(0, ge=0, lt=2**32)
    """Determines the initial step lengths (and initial states that are not trained): like an initialisation's."""
    initial_steps: tuple[float, float] = (1e-6, 1e-2)
    state_dtype: StateDtype = "float32"
    """Of hidden states and averages. Decays and log step lengths, of which the last digits matter, are float32."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            lookup(FEATURES, name, kind="feature of `hierarchical_gru`")
        return tuple(sorted(set(names)))

    @field_validator("initial_steps")
    @classmethod
    def _positive_range(cls, steps: tuple[float, float]) -> tuple[float, float]:
        if not 0 < steps[0] <= steps[1]:
            raise ValueError(f"`initial_steps` must be two positive lengths, the smaller first, got {steps}")
        return steps

    @property
    def num_scales(self) -> int:
        """Time-scales in use."""
        return self.num_timescales if "gradient_timescales" in self.features else 1

    @property
    def learned_decays(self) -> tuple[str, ...]:
        """The decays that the network chooses; those of averages only where there are averages."""
        names = ("input_decay", "scale_decay") if self.num_scales > 1 else ("scale_decay",)
        return tuple(name for name in names if name in self.features)

    @property
    def num_inputs(self) -> int:
        """Inputs of the parameter network."""
        return num_inputs(self.features, self.num_scales)

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions that are read out."""
        return ("direction", "attention") if "attention" in self.features else ("direction",)

    def build(self) -> HierarchicalGru:
        """Returns the optimizer."""
        return HierarchicalGru(self)


class HierarchicalGru:
    """The learned optimizer that a `HierarchicalGruConfig` describes. It does not read the loss or the horizon."""

    reads_loss = False

    def __init__(self, config: HierarchicalGruConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta, as the released code draws it: 7 965 numbers at the default sizes."""
        c = self.config
        keys = iter(jax.random.split(key, 16))
        size, above, top = c.parameter_size, c.tensor_size, c.global_size
        gru = lambda n, h: nn.init_gru(next(keys), n, h, scale=0.5, gate_bias=2.2)
        bias = lambda n, h: 0.5 * max(n, 1) ** -0.5 * jax.random.normal(next(keys), (n, 3 * h), jnp.float32)
        column = lambda: 0.5 * size**-0.5 * jax.random.normal(next(keys), (size,), jnp.float32)
        direction = column()
        theta: dict[str, Any] = {
            "parameter": gru(c.num_inputs, size),
            "tensor": gru(size + c.num_inputs, above),
            "global": gru(above, top),
            "tensor_to_parameter": bias(above, size),
            "global_to_parameter": bias(top, size),
            "global_to_tensor": bias(top, above),
            "directions": {name: jnp.array(direction) for name in c.directions},
            "decays": {
                name: {"w": column(), "b": jnp.float32({"input_decay": 2.2, "scale_decay": 3.2}[name])}
                for name in c.learned_decays
            },
            "log_step": {"w": jnp.zeros((size,), jnp.float32), "b": jnp.float32(0.0)},
            "log_step_momentum": jnp.float32(3.2),
        }
        if "attention" in c.features:
            theta["attended_log_step_offset"] = jnp.float32(1.0)
        if "gradient_shortcut" in c.features:
            mean = ((c.num_scales,), 1.0 / c.num_scales)
            theta["shortcuts"] = {name: jnp.full(*mean, jnp.float32) for name in c.directions}
        if "trainable_initial_state" in c.features:
            theta["initial_hidden"] = _random_hidden(c, next(keys))
        return theta

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation; `num_steps` is checked and otherwise unused.

        Its `update` needs `params`. The gradients belong at `gradient_params(state, params)`. `value` and other
        keywords are ignored.
        """
        horizon(num_steps)

        def update(
            grads: optax.Updates, state: HierarchicalGruState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, HierarchicalGruState]:
            del extra_args
            require_params("hierarchical_gru", params)
            return _update(self.config, theta, grads, state, params)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, theta, params), update)


def _random_hidden(config: HierarchicalGruConfig, key: PRNGKey) -> dict[str, jax.Array]:
    sizes = {"global": config.global_size, "parameter": config.parameter_size, "tensor": config.tensor_size}
    draws = jax.random.uniform(key, (sum(sizes.values()),), jnp.float32, -1.0, 1.0)
    bounds = [0, config.global_size, config.global_size + config.parameter_size]
    return {name: draws[low : low + sizes[name]] for name, low in zip(sizes, bounds, strict=True)}


def _init(config: HierarchicalGruConfig, theta: Theta, params: Any) -> HierarchicalGruState:
    stacks = st.plan_stacks(jax.tree.leaves(params))
    start = theta.get("initial_hidden") or _random_hidden(config, jax.random.key(config.seed))
    num_tensors = sum(stack.num_tensors for stack in stacks)
    return HierarchicalGruState(
        num_updates=jnp.zeros((), jnp.float32),
        stacks=tuple(_init_stack(config, stack, start["parameter"]) for stack in stacks),
        tensor_hidden=jnp.tile(start["tensor"][None], (num_tensors, 1)),
        global_hidden=jnp.array(start["global"], jnp.float32),  # a copy: states are donated, theta is not
        attention=AttendedOffset(_zeros_like(params)) if "attention" in config.features else None,
    )


def _init_stack(config: HierarchicalGruConfig, stack: st.Stack, hidden: jax.Array) -> ParameterState:
    shape = (stack.num_tensors, *stack.shape)
    log_step = gs.random_log_steps(stack, config.seed, config.initial_steps)
    state = ParameterState(
        hidden=tuple(jnp.broadcast_to(hidden[i], shape) for i in range(config.parameter_size)),
        scales=gs.init_scales(stack, config.num_scales),
        decays={name: jnp.zeros(shape, jnp.float32) for name in config.learned_decays},
        log_step=log_step,
        log_step_average=jnp.array(log_step),
    )
    return _stored(config, state, jnp.float32(0.0))


def _stored(config: HierarchicalGruConfig, state: ParameterState, salt: jax.Array) -> ParameterState:
    """Returns a float32 state as it is kept between steps."""
    hidden, scales = stored((state.hidden, state.scales), config.state_dtype, salt)
    return state._replace(hidden=hidden, scales=scales)


@partial(jax.jit, static_argnums=0)
def _update(
    config: HierarchicalGruConfig, theta: Theta, grads: Any, state: HierarchicalGruState, params: Any
) -> tuple[Any, HierarchicalGruState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves)
    if not stacks:
        return grads, state
    bias = state.tensor_hidden @ theta["tensor_to_parameter"]
    bias = bias + (state.global_hidden @ theta["global_to_parameter"])[None]
    grad_stacks = st.stack_leaves(stacks, jax.tree.leaves(grads))
    is_first, mean_log_step = state.num_updates == 0.0, _mean_log_step(state.stacks)

    def step(
        piece_bias: jax.Array, arrays: tuple[jax.Array, ParameterState]
    ) -> tuple[ParameterOutput, TensorSums]:
        piece_grad, kept = arrays
        output, total = parameter_step(
            theta, config.features, is_first, mean_log_step, piece_bias, piece_grad, loaded(kept)
        )
        # Rounded here, piece by piece: the whole state is never in float32.
        return output._replace(state=_stored(config, output.state, state.num_updates)), total

    outputs, sums = [], []
    for stack, grad, parameters in zip(stacks, grad_stacks, state.stacks, strict=True):
        arrays = (jnp.clip(grad, -MAX_GRADIENT, MAX_GRADIENT), parameters)
        output, total = over_parameters(stack, step, st.rows_of(stack, bias), arrays, chunk_size=CHUNK_SIZE)
        outputs.append(output)
        sums.append(total)
    tensor_hidden, global_hidden = _upper_networks(theta, stacks, state, [total.seen for total in sums])
    steps = [_steps(theta, *of) for of in zip(stacks, outputs, sums, strict=True)]
    updates = st.unstack_leaves(stacks, [step["direction"] for step in steps], leaves)
    return jax.tree.unflatten(treedef, updates), HierarchicalGruState(
        num_updates=state.num_updates + 1.0,
        stacks=tuple(output.state for output in outputs),
        tensor_hidden=tensor_hidden,
        global_hidden=global_hidden,
        attention=_next_location(stacks, steps, params) if "attention" in config.features else None,
    )


def _next_location(
    stacks: tuple[st.Stack, ...], steps: list[dict[str, jax.Array]], params: Any
) -> AttendedOffset:
    """Returns Δφ − Δθ: the offset of the attended location from where the update leaves the parameters."""
    leaves, treedef = jax.tree.flatten(_zeros_like(params))
    offsets = [step["attention"] - step["direction"] for step in steps]
    return AttendedOffset(jax.tree.unflatten(treedef, st.unstack_leaves(stacks, offsets, leaves)))


def _zeros_like(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)


def _mean_log_step(stacks: tuple[ParameterState, ...]) -> jax.Array:
    """Returns the mean η over all parameters of the problem: a scalar."""
    total = sum((jnp.sum(stack.log_step) for stack in stacks), jnp.float32(0.0))
    return total / sum(stack.log_step.size for stack in stacks)


def _steps(theta: Theta, stack: st.Stack, output: ParameterOutput, sums: TensorSums) -> dict[str, jax.Array]:
    """Returns Δθ ("direction") and, with attention, Δφ ("attention"): [k, *shape]."""
    offsets = {"direction": jnp.float32(0.0), "attention": theta.get("attended_log_step_offset")}
    steps = {}
    for name, direction in output.directions.items():
        scale = jax.lax.rsqrt(sums.squared_directions[name] / math.prod(stack.shape) + 1e-16)
        length = jnp.exp(output.state.log_step + offsets[name])
        steps[name] = -length * direction * st.per_tensor(stack, scale)
    return steps


def _upper_networks(
    theta: Theta, stacks: tuple[st.Stack, ...], state: HierarchicalGruState, seen: list[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Returns the next hidden states of the tensor networks and of the global one."""
    means = [total / math.prod(stack.shape) for stack, total in zip(stacks, seen, strict=True)]
    bias = (state.global_hidden @ theta["global_to_tensor"])[None]
    tensor_hidden = nn.gru_cell(theta["tensor"], st.in_leaf_order(stacks, means), state.tensor_hidden, bias)
    global_input = jnp.mean(tensor_hidden, axis=0)
    return tensor_hidden, nn.gru_cell(theta["global"], global_input, state.global_hidden)
