"""`rnn_mlp`: an LSTM per tensor and a small network per parameter that send each other messages.

The LSTM sees statistics of its tensor, the training and validation loss, and two messages: the mean answer of all
tensors' LSTMs at the last step, and the mean answer of its tensor's per-parameter networks. It sends a message to
the per-parameter network, which is the same everywhere and turns 23 features of a parameter and 31 numbers about
its tensor into a direction, a log magnitude and the message back:

    Δp = − 0.001 · direction · exp(0.001 · magnitude)

Gradients are clipped at a multiple of their running size; both the multiple and the memory are meta-learned. The
validation loss is given to `update` as `valid_value`, every ten steps. The rule does not read the number of
steps.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute: Training more effective learned optimizers, and
    using them to train themselves", App. C, which this follows.
[2] google/learned_optimization (Apache-2.0): the published network. `released()` follows it where it differs from
    [1]: it clips gradients with fixed constants, does not clip the normalised features (and has 1e-5 under their
    root), swaps the memories of the two losses, and counts a validation loss as a step.
Deviations from both: a loss that is not finite counts as none, and gradients are bounded by `max_gradient`, beyond
which float32 does not hold the sums of squares of their second moments (`released()` has no such bound). From [1]:
sinusoids of the step as in [2], see `lopt.features.sinusoids`.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field, field_validator

from lopt import nn
from lopt.contract import ArchitectureConfig, horizon, require_loss, require_params
from lopt.features import loss_statistics as ls
from lopt.features import published as pf
from lopt.features import rolling as ro
from lopt.features import rolling_clip as rc
from lopt.features import stacks as st
from lopt.features import tensor_statistics as ts
from lopt.registry import known_names
from lopt.rules.rnn_mlp import RuleSettings, steps_and_messages
from lopt.types import PRNGKey, Scalar, Theta
from lopt.validation_loss import ValidationRequest


class RnnMlpState(NamedTuple):
    """The state of one run. Rows of per-tensor arrays are in the order of the parameters' non-empty leaves."""

    progress: jax.Array  # scalar int32: updates so far
    accumulators: tuple[pf.Accumulators, ...]  # one per shape, see lopt.features.stacks
    lstm: nn.LstmState  # [num_tensors, lstm_hidden_size]
    from_lstm: jax.Array  # [lstm_to_lstm_size]: what all LSTMs say to each at the next step
    from_mlp: jax.Array  # [num_tensors, mlp_to_lstm_size]: what a tensor's parameters say to its LSTM
    train_loss: ls.LossStatistics
    valid_loss: ls.LossStatistics
    clip: rc.RollingClip
    validation: ValidationRequest


class RnnMlpConfig(ArchitectureConfig):
    """Sizes and constants of `rnn_mlp`; the defaults are the paper's."""

    architecture: Literal["rnn_mlp"] = "rnn_mlp"
    lstm_hidden_size: int = Field(64, ge=1, le=4096)
    mlp_hidden_sizes: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field((32, 32), min_length=1)
    lstm_to_lstm_size: int = Field(18, ge=1, le=1024)
    lstm_to_mlp_size: int = Field(17, ge=1, le=1024)
    mlp_to_lstm_size: int = Field(16, ge=1, le=1024)
    features: tuple[str, ...] = tuple(ro.ROLLING_FEATURES)
    """What the per-parameter network sees of a parameter; leaving a group out is an ablation."""
    context: tuple[str, ...] = tuple(ts.CONTEXT)
    """What it is told about the tensor."""
    summaries: tuple[str, ...] = tuple(ts.SUMMARIES)
    """What the LSTM sees."""
    decays: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(ro.ROLLING_DECAYS, min_length=1)
    train_loss_decay: float = Field(0.95, ge=0, lt=1)
    valid_loss_decay: float = Field(0.9, ge=0, lt=1)
    """Shorter than the training loss's: validation losses are rarer."""
    learned_clip: bool = True
    """Whether the rolling clip's decay and multiplier are in theta; else they are 0.99 and 10."""
    feature_bound: float | None = Field(1.0, gt=0)
    """Normalised features are halved and clipped to ± this; None does neither."""
    normalizer_epsilon: float = Field(1e-8, gt=0)
    max_gradient: float | None = Field(1e7, gt=0)
    """Bound on what the rolling clip lets through; None for none."""
    validation_interval: int = Field(10, ge=1)
    """Updates from one validation loss that it asks for to the next."""
    counts_validation: bool = False
    """Whether a validation loss advances the step that the network sees."""
    step_mult: float = Field(0.001, gt=0)
    exp_mult: float = Field(0.001, gt=0)
    state_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the accumulators between steps: bfloat16 halves the state (see `lopt.features.rounding`)."""

    @field_validator("features")
    @classmethod
    def _known_features(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(ro.ROLLING_FEATURES, names, kind="per-parameter feature")

    @field_validator("context")
    @classmethod
    def _known_context(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(ts.CONTEXT, names, kind="tensor context")

    @field_validator("summaries")
    @classmethod
    def _known_summaries(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return known_names(ts.SUMMARIES, names, kind="tensor summary")

    @classmethod
    def released(cls, **changes: Any) -> RnnMlpConfig:
        """Returns the configuration that follows the published network; `changes` for other fields."""
        quirks = {
            "train_loss_decay": 0.9,
            "valid_loss_decay": 0.95,
            "learned_clip": False,
            "feature_bound": None,
            "normalizer_epsilon": 1e-5,
            "max_gradient": None,
            "counts_validation": True,
        }
        return cls.model_validate({**quirks, **changes})

    @property
    def num_features(self) -> int:
        """Arrays that the per-parameter network sees of each tensor: 23 with all features."""
        sizes = ro.rolling_feature_sizes(len(self.decays))
        return sum(sizes[name] for name in self.features)

    @property
    def num_inputs(self) -> int:
        """Inputs of the per-parameter network: 54 with all features and context."""
        sizes = ts.context_sizes(self.lstm_to_mlp_size)
        return self.num_features + sum(sizes[name] for name in self.context)

    @property
    def num_summaries(self) -> int:
        """Inputs of the LSTM: 52 with all summaries."""
        sizes = ts.summary_sizes(self.lstm_to_lstm_size, self.mlp_to_lstm_size)
        return sum(sizes[name] for name in self.summaries)

    @property
    def rule_settings(self) -> RuleSettings:
        """Constants of the per-parameter rule."""
        return RuleSettings(
            self.features, self.normalizer_epsilon, self.feature_bound, self.step_mult, self.exp_mult
        )

    def build(self) -> RnnMlp:
        """Returns the optimizer."""
        return RnnMlp(self)


class RnnMlp:
    """The learned optimizer that an `RnnMlpConfig` describes."""

    reads_loss = True

    def __init__(self, config: RnnMlpConfig):
        self.config = config

    def init_theta(self, key: PRNGKey) -> Theta:
        """Returns initial theta: 35 801 numbers at the default sizes.

        What a run starts with is in it: `lstm_init` {hidden, cell} [1, lstm_hidden_size] and the first messages
        `from_lstm_init`, `from_mlp_init`. The rows of `lstm` are the summaries, then the hidden state;
        `lstm_to_lstm` and `lstm_to_mlp` read its output. The rows of `network`'s `w0` are the features, then the
        context; its outputs are direction, magnitude and the message to the LSTM. `clip` has log_one_minus_decay
        and log_multiplier, scalars; it is absent without `learned_clip`.
        """
        c = self.config
        keys = jax.random.split(key, 6)
        hidden = c.lstm_hidden_size
        network: nn.Weights = {}
        sizes = (c.num_inputs, *c.mlp_hidden_sizes, 2 + c.mlp_to_lstm_size)
        for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layer = nn.init_linear(jax.random.fold_in(keys[0], i), fan_in, fan_out)
            network |= {f"w{i}": layer["w"], f"b{i}": layer["b"]}
        theta = {
            "lstm_init": {
                "hidden": jnp.zeros((1, hidden), jnp.float32),
                "cell": jnp.zeros((1, hidden), jnp.float32),
            },
            "from_lstm_init": _init_message(keys[1], c.lstm_to_lstm_size),
            "from_mlp_init": _init_message(keys[2], c.mlp_to_lstm_size),
            "lstm": nn.init_lstm(keys[3], c.num_summaries, hidden),
            "lstm_to_lstm": nn.init_linear(keys[4], hidden, c.lstm_to_lstm_size),
            "lstm_to_mlp": nn.init_linear(keys[5], hidden, c.lstm_to_mlp_size),
            "network": network,
        }
        return {**theta, "clip": rc.init_clip_theta()} if c.learned_clip else theta

    def transform(self, theta: Theta, *, num_steps: int | Scalar) -> optax.GradientTransformationExtraArgs:
        """Returns the optax transformation that `theta` defines.

        Its `update` needs `params` and the keyword `value`, the loss at `params`. It takes a validation loss at
        `params` as `valid_value`: a scalar; None or not finite where there is none at this step. Its state says
        when it wants one (`lopt.validation_due`). Before the first one the LSTM is told a validation loss of zero.
        Extra keywords are ignored. The network does not read `num_steps`; it is checked all the same, so that
        optimizers can be exchanged.
        """
        horizon(num_steps)

        def update(
            grads: optax.Updates,
            state: RnnMlpState,
            params: Any = None,
            *,
            value: Any = None,
            valid_value: Any = None,
            **extra_args: Any,
        ) -> tuple[optax.Updates, RnnMlpState]:
            del extra_args
            require_params("rnn_mlp", params)
            require_loss("rnn_mlp", value)
            if valid_value is not None:
                state = _observe_validation(self.config, state, jnp.asarray(valid_value, jnp.float32))
            return _update(self.config, theta, grads, state, params, jnp.asarray(value, jnp.float32))

        return optax.GradientTransformationExtraArgs(lambda params: _init(self.config, theta, params), update)


def _init_message(key: PRNGKey, size: int) -> jax.Array:
    """Returns truncated normal draws whose standard deviation is 1/√size."""
    deviation_of_truncated = 0.87962566
    return nn.truncated_normal(key, (size,), size**-0.5 / deviation_of_truncated)


def _init(config: RnnMlpConfig, theta: Theta, params: Any) -> RnnMlpState:
    stacks = st.plan_stacks(jax.tree.leaves(params))
    num_tensors = sum(stack.num_tensors for stack in stacks)
    dtype = jnp.dtype(config.state_dtype)
    tile = lambda x: jnp.tile(x.reshape(1, -1), (num_tensors, 1))
    return RnnMlpState(
        progress=jnp.zeros((), jnp.int32),
        accumulators=tuple(
            pf.init_accumulators(stack, ro.rolling_decays(config.decays), dtype) for stack in stacks
        ),
        lstm=nn.LstmState(tile(theta["lstm_init"]["hidden"]), tile(theta["lstm_init"]["cell"])),
        from_lstm=jnp.asarray(theta["from_lstm_init"]),
        from_mlp=tile(theta["from_mlp_init"]),
        train_loss=ls.init_loss_statistics(),
        valid_loss=ls.init_loss_statistics(),
        clip=rc.init_rolling_clip(_clip_settings(config, theta)),
        validation=ValidationRequest.now(),
    )


def _clip_settings(config: RnnMlpConfig, theta: Theta) -> rc.ClipSettings:
    return rc.learned_clip(theta["clip"]) if config.learned_clip else rc.FIXED_CLIP


def _observe_validation(config: RnnMlpConfig, state: RnnMlpState, loss: jax.Array) -> RnnMlpState:
    steps = jnp.isfinite(loss).astype(jnp.int32) if config.counts_validation else jnp.int32(0)
    return state._replace(
        progress=state.progress + steps,
        valid_loss=ls.update_loss_statistics(state.valid_loss, loss, config.valid_loss_decay),
    )


@partial(jax.jit, static_argnums=0)
def _update(
    config: RnnMlpConfig, theta: Theta, grads: Any, state: RnnMlpState, params: Any, loss: jax.Array
) -> tuple[Any, RnnMlpState]:
    leaves, treedef = jax.tree.flatten(params)
    stacks = st.plan_stacks(leaves)
    if not stacks:
        return grads, state
    p = st.stack_leaves(stacks, leaves)
    g, clip = _clip(config, theta, stacks, st.stack_leaves(stacks, jax.tree.leaves(grads)), state.clip)
    train_loss = ls.update_loss_statistics(state.train_loss, loss, config.train_loss_decay)
    state = state._replace(clip=clip, train_loss=train_loss)
    acc = [
        pf.accumulate(old, x, ro.rolling_decays(config.decays), stack)
        for old, x, stack in zip(state.accumulators, g, stacks, strict=True)
    ]
    # Everything below reads these several times; without the barrier each reader would compute them again.
    g, acc = jax.lax.optimization_barrier((g, acc))
    norms = [ts.tensor_norm(stack, x) for stack, x in zip(stacks, p, strict=True)]
    valid = ls.mean_loss(state.valid_loss, config.valid_loss_decay)
    summaries = []
    for s, stack in enumerate(stacks):
        seen = ts.SummaryInputs(
            stack=stack,
            is_scalar=np.asarray([jnp.ndim(leaves[i]) == 0 for i in stack.members]),
            momentum=ts.tensor_moments(stack, acc[s].momenta),
            second_moment=ts.tensor_moments(stack, acc[s].second_moments),
            param=ts.tensor_moments(stack, [p[s]]),
            param_norm=norms[s],
            gradient_norm=ts.tensor_norm(stack, g[s]),
            from_lstm=state.from_lstm,
            from_mlp=st.rows_of(stack, state.from_mlp),
            train_loss=ls.standardized(train_loss, loss, config.train_loss_decay),
            valid_loss=ls.standardized(train_loss, valid, config.train_loss_decay),
        )
        summaries.append(jnp.concatenate([ts.SUMMARIES[name](seen) for name in config.summaries], axis=1))
    lstm = nn.lstm_cell(theta["lstm"], st.in_leaf_order(stacks, summaries), state.lstm)
    to_mlp = nn.linear(theta["lstm_to_mlp"], lstm.hidden)
    updates, messages = [], []
    for s, stack in enumerate(stacks):
        told = ts.ContextInputs(
            stack=stack,
            step=state.progress.astype(jnp.float32),
            num_tensors=lstm.hidden.shape[0],
            param_norm=norms[s],
            from_lstm=st.rows_of(stack, to_mlp),
        )
        context = jnp.concatenate([ts.CONTEXT[name](told) for name in config.context], axis=1)
        step, message = steps_and_messages(
            stack, config.rule_settings, theta["network"], context, p[s], g[s], acc[s], state.progress
        )
        updates.append(step)
        messages.append(message)
    dtype = jnp.dtype(config.state_dtype)
    new_state = state._replace(
        progress=state.progress + 1,
        accumulators=tuple(pf.store_accumulators(a, dtype, state.progress) for a in acc),
        lstm=lstm,
        from_lstm=jnp.mean(nn.linear(theta["lstm_to_lstm"], lstm.hidden), axis=0),
        from_mlp=st.in_leaf_order(stacks, messages),
        validation=state.validation.after_update(config.validation_interval),
    )
    return jax.tree.unflatten(treedef, st.unstack_leaves(stacks, updates, leaves)), new_state


def _clip(
    config: RnnMlpConfig,
    theta: Theta,
    stacks: tuple[st.Stack, ...],
    grads: list[jax.Array],
    clip: rc.RollingClip,
) -> tuple[list[jax.Array], rc.RollingClip]:
    """Returns the gradients within the present bound, and the next one's state."""
    settings = _clip_settings(config, theta)
    bound = rc.clip_bound(clip, settings)
    if config.max_gradient is not None:
        bound = jnp.minimum(bound, config.max_gradient)
    clipped = [jnp.clip(x, -bound, bound) for x in grads]
    squares = [
        jnp.mean(jnp.square(x), axis=stack.tensor_axes) for stack, x in zip(stacks, clipped, strict=True)
    ]
    return clipped, rc.update_rolling_clip(clip, jnp.mean(jnp.concatenate(squares)), settings)
