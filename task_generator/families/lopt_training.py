"""Training a learned optimizer as a task: its parameters are an optimizer's weights, its loss an unroll's.

    loss(θ) = mean over outer batch and t < num_steps of the inner task's normalised loss before update t

Every evaluation starts `outer_batch_size` inner problems afresh and trains each with the optimizer that θ defines
for `num_steps` steps: a truncated unroll, differentiated through, with the inner step recomputed on the way back.
What one optimizer may learn from it is to train others, and in the end itself.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.9. Deviations from the release, towards the text: the inner task's
dynamic configuration is this task's (the release draws another at every evaluation), and the loss is normalised
once (the release: twice). Integer ranges include their upper bounds.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from lopt.architectures.adafactor_mlp import AdafactorMlpConfig
from lopt.architectures.learnable_adam import LearnableAdamConfig
from lopt.architectures.learnable_sgd import LearnableSgdConfig
from lopt.architectures.learnable_sgdm import LearnableSgdmConfig
from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig
from lopt.config import FrozenConfig
from lopt.contract import ArchitectureConfig
from lopt.inner_loop import InnerState, init_inner, inner_step
from lopt.types import Dynamic, PRNGKey, Scalar, Split, TaskFamily, TaskState
from task_generator.distributions import Distribution, LogUniform, LogUniformInt
from task_generator.families.base import ConfigPrior, FamilyConfig, cap
from task_generator.families.conv import ConvConfig
from task_generator.families.mlp import MlpConfig

Kind = Literal["learnable_sgd", "learnable_sgdm", "learnable_adam", "per_parameter_mlp", "adafactor_mlp"]
KINDS: tuple[Kind, ...] = (
    "learnable_sgd",
    "learnable_sgdm",
    "learnable_adam",
    "per_parameter_mlp",
    "adafactor_mlp",
)
WITH_A_NETWORK: tuple[Kind, ...] = ("per_parameter_mlp", "adafactor_mlp")
HYPER_PARAMETERS: dict[str, tuple[Callable[[], ArchitectureConfig], int]] = {
    "learnable_sgd": (LearnableSgdConfig, 1),
    "learnable_sgdm": (LearnableSgdmConfig, 2),
    "learnable_adam": (LearnableAdamConfig, 4),
}
"""Kind → configuration, and how many numbers are learned."""


class TrainedOptimizer(FrozenConfig):
    """Which optimizer is trained. The four other fields are given for those with a network, and only for them."""

    kind: Kind = Field(description="Its architecture.")
    hidden_size: int | None = Field(None, ge=1, le=1024, description="Units per hidden layer.")
    hidden_layers: int | None = Field(None, ge=1, le=8, description="Hidden layers.")
    step_mult: float | None = Field(None, gt=0, description="Multiplies the update.")
    exp_mult: float | None = Field(None, gt=0, description="Multiplies the logarithm of its size.")

    @model_validator(mode="after")
    def _network_fields_belong_to_networks(self) -> Self:
        needs = self.kind in WITH_A_NETWORK
        wrong = [name for name, value in self.network_fields().items() if (value is None) == needs]
        if wrong:
            verb, advice = ("needs", "Give it") if needs else ("has no", "Leave it out")
            raise ValueError(
                f"kind={self.kind!r} {verb} {', '.join(f'`{name}`' for name in wrong)}. {advice}; those with a "
                f"network are {', '.join(WITH_A_NETWORK)}."
            )
        return self

    def network_fields(self) -> dict[str, Any]:
        """Returns the fields of an optimizer with a network."""
        return self.model_dump(exclude={"kind"})

    def architecture(self) -> ArchitectureConfig:
        """Returns the architecture's own configuration."""
        if self.kind == "per_parameter_mlp":  # the features of the release, with our bound on gradients
            return PerParameterMlpConfig.released(max_gradient=1e15, **self.network_fields())
        if self.kind == "adafactor_mlp":
            return AdafactorMlpConfig.model_validate(self.network_fields())
        return HYPER_PARAMETERS[self.kind][0]()


class OptimizerPrior(FrozenConfig):
    """C.3.9, items 1 to 4: the kind uniform, sizes and multipliers on a log scale."""

    hidden_size: LogUniformInt = LogUniformInt(low=2, high=512)
    hidden_layers: LogUniformInt = LogUniformInt(low=1, high=4)
    multiplier: LogUniform = LogUniform(low=1e-5, high=1.0)

    def sample(self, rng: np.random.Generator) -> TrainedOptimizer:
        """Returns one draw."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        if kind not in WITH_A_NETWORK:
            return TrainedOptimizer(kind=kind)
        return TrainedOptimizer(
            kind=kind,
            hidden_size=self.hidden_size.sample(rng),
            hidden_layers=self.hidden_layers.sample(rng),
            step_mult=self.multiplier.sample(rng),
            exp_mult=self.multiplier.sample(rng),
        )

    def contains(self, value: Any) -> bool:
        """Returns whether `sample` could return `value`."""
        if not isinstance(value, TrainedOptimizer):
            return False
        if value.kind not in WITH_A_NETWORK:
            return True
        return (
            self.hidden_size.contains(value.hidden_size)
            and self.hidden_layers.contains(value.hidden_layers)
            and self.multiplier.contains(value.step_mult)
            and self.multiplier.contains(value.exp_mult)
        )


class LoptTrainingConfig(FamilyConfig):
    """One learned optimizer, one inner task."""

    family: Literal["lopt_training"] = "lopt_training"
    optimizer: TrainedOptimizer = Field(description="What is trained.")
    inner_task: MlpConfig | ConvConfig = Field(
        discriminator="family", description="What it trains; sampled ones are `mlp`."
    )
    num_steps: int = Field(ge=1, le=10_000, description="Inner steps per evaluation: the truncation.")
    outer_batch_size: int = Field(ge=1, le=256, description="Inner problems per evaluation.")

    has_examples: ClassVar[bool] = False

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.9."""
        return {
            "optimizer": OptimizerPrior(),
            "inner_task": ConfigPrior(MlpConfig, tuple(MlpConfig.prior().items())),
            "num_steps": LogUniformInt(low=1, high=100),
            "outer_batch_size": LogUniformInt(low=1, high=8),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns Adam's four hyper-parameters, trained over ten steps of a small network on digits."""
        inner = MlpConfig(hidden_size=16, num_layers=1, image_size=8, batch_size=16, dataset="digits")
        adam = TrainedOptimizer(kind="learnable_adam")
        return cls(optimizer=adam, inner_task=inner, num_steps=10, outer_batch_size=2)

    def build(self) -> LoptTrainingFamily:
        """Returns the family."""
        return LoptTrainingFamily(self, self.inner_task.build())

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the inner task's dynamic priors could draw what it fixes."""
        return self.inner_task.overrides_could_be_sampled()

    def approximate_cost(self) -> dict[str, float]:
        """Returns `num_params`, those of the optimizer, and `flops_per_step` (three passes over the unroll)."""
        inner = self.inner_task.approximate_cost()
        num_params, per_inner_parameter = self._size()
        step = inner["flops_per_step"] + 2 * per_inner_parameter * inner["num_params"]
        hidden = 1 + 2 * (self.optimizer.hidden_layers or 1) * (self.optimizer.hidden_size or 8)
        steps = 3.0 * self.outer_batch_size * self.num_steps
        return {
            "num_params": float(num_params),
            "examples_per_step": steps * inner["examples_per_step"],
            "flops_per_step": steps * step,
            "inputs_per_step": steps * inner["inputs_per_step"],
            "values_per_step": steps * (inner["values_per_step"] + hidden * inner["num_params"]),
            "rows_per_step": steps * (inner["rows_per_step"] + inner["num_params"]),
            "reads_per_step": steps * inner["reads_per_step"],
            "depth": 3.0 * self.num_steps * (inner["depth"] + (self.optimizer.hidden_layers or 1)),
        }

    def _size(self) -> tuple[int, int]:
        """Returns the optimizer's number of weights, and its products per inner parameter."""
        config = self.optimizer.architecture()
        if not isinstance(config, PerParameterMlpConfig | AdafactorMlpConfig):
            return HYPER_PARAMETERS[self.optimizer.kind][1], 10
        sizes = (config.num_inputs, *[config.hidden_size] * config.hidden_layers, 2)
        weights = sum((a + 1) * b for a, b in itertools.pairwise(sizes))
        decays = 0
        if isinstance(config, AdafactorMlpConfig):
            decays = sum(
                map(len, (config.momentum_decays, config.second_moment_decays, config.factored_decays))
            )
        return weights + decays, weights

    def label(self) -> str:
        """Returns e.g. "lopt_training adafactor_mlp 2x32 · 10 steps x 2 · on mlp 1x16 · digits 8px · batch 16"."""
        trained = self.optimizer
        network = "" if trained.hidden_size is None else f" {trained.hidden_layers}x{trained.hidden_size}"
        unroll = f"{self.num_steps} steps x {self.outer_batch_size}"
        return f"lopt_training {trained.kind}{network} · {unroll} · on {self.inner_task.label()}"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UnrollBatch:
    """What an evaluation draws: a seed per inner problem, and the split that its data come from."""

    keys: jax.Array  # PRNG keys [outer_batch_size]
    split: Split = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class LoptTrainingFamily:
    """An optimizer to train on an inner family."""

    config: LoptTrainingConfig
    inner: TaskFamily

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Draws the inner task's dynamic configuration."""
        return self.inner.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns the inner family's axes."""
        return self.inner.dynamic_axes()

    def task(self, dynamic: Dynamic) -> LoptTrainingTask:
        """Returns the problem that `dynamic` selects."""
        return LoptTrainingTask(self, dynamic)


@dataclasses.dataclass(frozen=True)
class LoptTrainingTask:
    """The mean normalised loss over short unrolls of one inner task."""

    family: LoptTrainingFamily
    dynamic: Dynamic

    def init(self, key: PRNGKey) -> TaskState:
        """Returns a freshly initialised optimizer's weights."""
        return TaskState(self.family.config.optimizer.architecture().build().init_theta(key))

    def batch(self, key: PRNGKey, split: Split = "train") -> UnrollBatch:
        """Returns the seeds of `outer_batch_size` unrolls."""
        return UnrollBatch(jax.random.split(key, self.family.config.outer_batch_size), split)

    def loss(self, state: TaskState, key: PRNGKey, batch: UnrollBatch) -> tuple[Scalar, TaskState]:
        """Returns the mean loss of the unrolls, at least float32."""
        del key
        config, inner = self.family.config, self.family.inner.task(self.dynamic)
        # An optimizer computes in float32; weights that a low-precision augmentation keeps short are widened here.
        theta = jax.tree.map(lambda x: x.astype(jnp.float32), state.params)
        optimizer = config.optimizer.architecture().build().transform(theta, num_steps=config.num_steps)

        def unroll(run_key: PRNGKey) -> Scalar:
            init_key, train_key = jax.random.split(run_key)

            @jax.checkpoint  # keeps one state per step, and recomputes what led to it
            def step(carry: InnerState, index: Scalar) -> tuple[InnerState, Scalar]:
                step_key = jax.random.fold_in(train_key, index)
                carry, loss = inner_step(inner, optimizer, carry, step_key, split=batch.split)
                return carry, inner.normalize(loss)

            steps = jnp.arange(config.num_steps, dtype=jnp.int32)
            _, losses = jax.lax.scan(step, init_inner(inner, optimizer, init_key), steps)
            return jnp.mean(losses)

        return jnp.mean(jax.vmap(unroll)(batch.keys)), state

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss itself, which is one of normalised losses, capped."""
        return cap(loss)


jax.tree_util.register_dataclass(LoptTrainingFamily, data_fields=["inner"], meta_fields=["config"])
