"""`component_lstm`: the same two-layer LSTM for every parameter, which sees nothing but that parameter's gradient.

The first learned optimizer of its kind, kept for the comparison of architectures (Metz et al. 2020, Fig. 2a), in
both forms that were compared:

- `component_lstm` as it was published ("L2LBGDGD"): the network's output, scaled, is added to the parameter,

      Δθ = 0.01 · o

- with `output="direction_and_magnitude"` ("LSTM"): one output is a direction and the other a log step length,

      Δθ = exp(λ o₁) · λ o₂,    λ = 0.001

The gradient enters as logarithm and sign. Hidden states start at zero. The sign, the layers and p = 10 are the
paper's; the scale 0.01 is that of its released code (which has p = 5). Metz et al. 2020 give no sizes of their own.
It keeps 80 numbers per parameter: that is the price which later architectures avoid, and `state_dtype` halves.

[1] Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent" (arXiv:1606.04474).
[2] Metz et al. 2020 (arXiv:2009.11243), 4.1.    [3] Metz et al. 2018 (arXiv:1810.10180), App. C: that output.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_params
from lopt.features import stacks as st
from lopt.features.chunks import over_parameters
from lopt.features.log_and_sign import log_and_sign
from lopt.rules.elementwise import StateDtype, loaded, stored
from lopt.types import PRNGKey, Scalar, Theta

CHUNK_SIZE = 8_192
"""Parameters per piece: the gates of one layer, 80 arrays of this length, fit a CPU core's cache."""

Unit = tuple[jax.Array, jax.Array]
"""Hidden state and cell of one unit, for every parameter of the tensors of one shape: [k, *shape]."""
LayerState = tuple[Unit, ...]


class ComponentLstmState(NamedTuple):
    """The state of one run."""

    num_updates: jax.Array  # scalar int32
    stacks: tuple[tuple[LayerState, ...], ...]  # for each shape, layer and unit, what the unit carries


class ComponentLstmConfig(ArchitectureConfig):
    """Sizes and constants of `component_lstm`; the defaults are the paper's."""

    architecture: Literal["component_lstm"] = "component_lstm"
    hidden_size: int = Field(20, ge=1, le=256)
    num_layers: int = Field(2, ge=1, le=8)
    log_range: float = Field(10.0, gt=0, le=60)
    """p of the gradient's preprocessing: gradients above e^−p are seen by their logarithm."""
    output: Literal["update", "direction_and_magnitude"] = "update"
    update_scale: float = Field(0.01, gt=0)
    """Factor of the output "update"."""
    temperature: float = Field(0.001, gt=0)
    """λ of the output "direction_and_magnitude", for the direction and for the exponent."""
    state_dtype: StateDtype = "float32"

    def build(self) -> ComponentLstm:
        """Returns the optimizer."""
        return ComponentLstm(self)


class ComponentLstm:
    """The learned optimizer that a `ComponentLstmConfig` describes. It does not read the loss or the horizon."""

    reads_loss = False

    def __init__(self, config: ComponentLstmConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta: 5 141 numbers at the default sizes."""
        c = self.config
        keys = jax.random.split(key, c.num_layers + 1)
        num_outputs = 1 if c.output == "update" else 2
        return {
            "layers": [
                nn.init_lstm(layer_key, c.hidden_size if i else 2, c.hidden_size)
                for i, layer_key in enumerate(keys[1:])
            ],
            "output": nn.init_linear(keys[0], c.hidden_size, num_outputs),
        }

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation; `num_steps` is checked and otherwise unused.

        Its `update` needs `params`, for their dtypes only. `value` and other keywords are ignored.
        """
        horizon(num_steps)

        def update(
            grads: optax.Updates, state: ComponentLstmState, params: Any = None, **extra_args: Any
        ) -> tuple[optax.Updates, ComponentLstmState]:
            del extra_args
            require_params("component_lstm", params)
            return _update(self.config, theta, grads, state, params)

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, params), update)


def _init(config: ComponentLstmConfig, params: Any) -> ComponentLstmState:
    def layer(stack: st.Stack) -> LayerState:
        zeros = lambda: jnp.zeros((stack.num_tensors, *stack.shape), config.state_dtype)
        return tuple((zeros(), zeros()) for _ in range(config.hidden_size))

    stacks = st.plan_stacks(jax.tree.leaves(params))
    return ComponentLstmState(
        num_updates=jnp.zeros((), jnp.int32),
        stacks=tuple(tuple(layer(stack) for _ in range(config.num_layers)) for stack in stacks),
    )


@partial(jax.jit, static_argnums=0)
def _update(
    config: ComponentLstmConfig, theta: Theta, grads: Any, state: ComponentLstmState, params: Any
) -> tuple[Any, ComponentLstmState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves)

    def step(nothing: tuple[()], piece: tuple[jax.Array, tuple[LayerState, ...]]) -> tuple[Any, tuple[()]]:
        grad, layers = piece
        change, new_layers = _parameter_step(config, theta, grad, loaded(layers))
        # Rounded here, piece by piece: the whole state is never in float32.
        return (change, stored(new_layers, config.state_dtype, state.num_updates)), nothing

    updates, states = [], []
    for stack, grad, layers in zip(
        stacks, st.stack_leaves(stacks, jax.tree.leaves(grads)), state.stacks, strict=True
    ):
        (change, new_layers), _ = over_parameters(stack, step, (), (grad, layers), chunk_size=CHUNK_SIZE)
        updates.append(change)
        states.append(new_layers)
    new_state = ComponentLstmState(state.num_updates + 1, tuple(states))
    return jax.tree.unflatten(treedef, st.unstack_leaves(stacks, updates, leaves)), new_state


def _parameter_step(
    config: ComponentLstmConfig, theta: Theta, grad: jax.Array, layers: tuple[LayerState, ...]
) -> tuple[jax.Array, tuple[LayerState, ...]]:
    """Returns the update [b, *dims] of parameters with gradients [b, *dims], and the next state."""
    x = jnp.stack(log_and_sign(grad, config.log_range))
    new_layers = []
    for weights, units in zip(theta["layers"], layers, strict=True):
        before = nn.LstmState(
            jnp.stack([hidden for hidden, _ in units]), jnp.stack([cell for _, cell in units])
        )
        after = nn.lstm_cell_features_first(weights, x, before)
        new_layers.append(tuple((after.hidden[i], after.cell[i]) for i in range(config.hidden_size)))
        x = after.hidden
    output = nn.linear_features_first(theta["output"], x)
    if config.output == "update":
        return config.update_scale * output[0], tuple(new_layers)
    # Hidden states are within ±1, so the exponent is bounded by theta: no overflow to guard against.
    return jnp.exp(config.temperature * output[0]) * (config.temperature * output[1]), tuple(new_layers)
