"""A learned optimizer that trains one of its own kind, from the first weights.

[1] Metz et al. 2020, "Tasks, stability, architecture, and compute", 4.6, F.4, Fig. 7 and 8.
[2] Metz et al. 2022, "VeLO", App. H.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, spread_series
from curriculum.probes.tasks import mlp, quadratic
from curriculum.probes.training import Learner, Trainer, learner_of, run_keys, tuned
from lopt.contract import ArchitectureConfig
from lopt.inner_loop import InnerState, init_inner, inner_step
from lopt.types import Dynamic, PRNGKey, Scalar, Split, Task, TaskFamily, TaskState
from task_generator.augmentations.es_gradients import ESGradientsConfig
from task_generator.families.base import cap
from task_generator.task_config import TaskConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unrolls:
    """A batch: the seeds of the unrolls, and where their data come from."""

    keys: jax.Array
    split: Split = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class MetaTask:
    """The weights of `architecture` are the parameters; the loss is the mean normalised loss over unrolls."""

    inner: Task
    architecture: ArchitectureConfig
    num_steps: int
    num_unrolls: int

    def init(self, key: PRNGKey) -> TaskState:
        """Returns an optimizer's first weights."""
        return TaskState(self.architecture.build().init_theta(key))

    def batch(self, key: PRNGKey, split: Split = "train") -> Unrolls:
        """Returns the seeds of a batch of unrolls."""
        return Unrolls(jax.random.split(key, self.num_unrolls), split)

    def loss(self, state: TaskState, key: PRNGKey, batch: Unrolls) -> tuple[Scalar, TaskState]:
        """Returns the mean over unrolls and steps of the normalised loss before each step, capped."""
        del key
        optimizer = self.architecture.build().transform(state.params, num_steps=self.num_steps)

        def unroll(run_key: PRNGKey) -> Scalar:
            init_key, train_key = jax.random.split(run_key)

            def step(carry: InnerState, index: Scalar) -> tuple[InnerState, Scalar]:
                step_key = jax.random.fold_in(train_key, index)
                carry, loss = inner_step(self.inner, optimizer, carry, step_key, split=batch.split)
                return carry, self.inner.normalize(loss)

            steps = jnp.arange(self.num_steps, dtype=jnp.int32)
            return jnp.mean(jax.lax.scan(step, init_inner(self.inner, optimizer, init_key), steps)[1])

        return jnp.mean(jax.vmap(unroll)(batch.keys)), state

    def normalize(self, loss: Scalar) -> Scalar:
        """Returns the loss, which is a mean of normalised ones, capped."""
        return cap(loss)


@dataclasses.dataclass(frozen=True)
class MetaFamily:
    """Such tasks over an inner family, with gradients by evolution strategies."""

    inner: TaskFamily
    architecture: ArchitectureConfig
    num_steps: int
    num_unrolls: int
    gradient: ESGradientsConfig

    def sample_dynamic(self, key: PRNGKey) -> Dynamic:
        """Draws the inner task's dynamic configuration."""
        return self.inner.sample_dynamic(key)

    def dynamic_axes(self) -> Dynamic:
        """Returns the inner family's axes."""
        return self.inner.dynamic_axes()

    def task(self, dynamic: Dynamic) -> Task:
        """Returns the problem."""
        task = MetaTask(self.inner.task(dynamic), self.architecture, self.num_steps, self.num_unrolls)
        return self.gradient.wrap(task)


jax.tree_util.register_dataclass(
    MetaFamily, data_fields=["inner"], meta_fields=["architecture", "num_steps", "num_unrolls", "gradient"]
)


class SelfTraining(Probe):
    """Meta-trains the subject's own architecture: with the subject, and with Adam at several rates."""

    name: ClassVar[str] = "self_training"
    title: ClassVar[str] = "Self-training"
    question: ClassVar[str] = "Can the optimizer train another of its own kind?"
    source: ClassVar[str] = "Metz et al. 2020, 4.6, Figs. 7 and 8; Metz et al. 2022 (VeLO), App. H"
    how_to_read: ClassVar[str] = (
        "What is trained is an optimizer of the subject's own architecture, from its first weights; the outer "
        "loss is the loss of the runs that it makes, so lower is a better optimizer. The thick line is the "
        "subject doing the training, without tuning; the other lines are Adam at each learning rate. At or "
        "below the best of them: it trains its own kind as well as a tuned optimizer. A line that turns up has "
        "become unstable, as the papers report for long meta-trainings. A flat line has learned nothing."
    )
    deviations: ClassVar[str] = (
        "One small inner task and unrolls of tens of steps; gradients by a few antithetic pairs; all gradients "
        "clipped to ± 0.1 element by element as in F.4; the subject is told the number of outer steps, as "
        "always."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "task": quadratic(dimension=4),
        "num_steps": 4,
        "outer_steps": 6,
        "num_points": 3,
        "num_pairs": 1,
        "num_unrolls": 1,
        "learning_rates": (1e-3, 1e-2),
        "num_seeds": 2,
    }

    task: TaskConfig = mlp(hidden_size=16, num_layers=1, batch_size=32)
    """What the trained optimizer trains."""
    num_steps: int = Field(20, ge=1)
    """Of an unroll."""
    outer_steps: int = Field(120, ge=2)
    num_points: int = Field(13, ge=2)
    """Evaluations; one less divides the outer steps."""
    std: float = Field(0.03, gt=0)
    """Of the perturbations."""
    num_pairs: int = Field(4, ge=1)
    num_unrolls: int = Field(2, ge=1)
    clip: float = Field(0.1, gt=0)
    learning_rates: tuple[float, ...] = Field((3e-5, 1e-3, 1e-2), min_length=1)
    num_seeds: int = Field(3, ge=1, le=100)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns outer losses over outer steps."""
        del bench
        family = MetaFamily(
            self.task.build(),
            subject.config,
            self.num_steps,
            self.num_unrolls,
            ESGradientsConfig(std=self.std, num_pairs=self.num_pairs),
        )
        keys = run_keys(self.seed, self.num_seeds)
        series: list[Series] = []
        for learner in (learner_of(subject), tuned("adam", self.learning_rates)):
            trainer = Trainer(
                self._clipped(learner), num_points=self.num_points, splits=("train",), num_eval_batches=8
            )
            curves = trainer(family, keys, horizon=self.outer_steps)
            for index, runs in enumerate(curves.losses["train"]):
                rate = f", rate {learner.rates[index]:g}" if learner.rates else ", itself"
                role: Any = "baseline" if learner.rates else "subject"
                series.append(spread_series(f"{learner.name}{rate}", curves.step, runs, role=role))
        panel = Panel(
            title=f"Training {subject.config.architecture} on {self.task.family.label()}",
            x_label="outer step",
            y_label="outer loss: mean over unrolls",
            series=tuple(series),
        )
        start = series[0].y[0]
        findings = [f"{s.name}: outer loss {start:.3f} → {s.y[-1]:.3f}." for s in series]
        counted = "meta-trainings with different first weights and batches"
        return self.result(subject, [panel], n=self.num_seeds, counted=counted, findings=findings)

    def _clipped(self, learner: Learner) -> Learner:
        def transform(setting: Any, horizon: Scalar) -> optax.GradientTransformationExtraArgs:
            return optax.chain(optax.clip(self.clip), learner.transform(setting, horizon))

        return learner._replace(transform=transform)
