"""The parameters of every flow: what the form of Prefect's pages shows, and what the command line fills in.

A flow takes one of these models. Each field says what it means, because the form is all that many people see.
Names are checked against the registries, so the form offers exactly what exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from curriculum.control import Command
from curriculum.evaluation.baseline_budgets import BUDGETS
from curriculum.evaluation.summary import POINTS_PER_HORIZON, NormalizerName, points_along
from curriculum.phase import Mode
from curriculum.phases import CURRICULA, PHASES
from curriculum.probes import PROBES
from flows.promotion.gate_files import GATE_HELP, read_gate
from flows.training.architecture_config import EXAMPLE, read_architecture
from lopt.architectures import ARCHITECTURES
from lopt.baselines import BASELINES
from lopt.contract import ArchitectureConfig
from lopt.registry import UnknownNameError, lookup
from runtime_model.update_program import NO_UPDATE, UPDATES
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.families import FAMILIES
from task_generator.known_distributions import DISTRIBUTIONS

NEXT_PHASE = "next"
ALL_FAMILIES = "all"
ALL_PROBES = "all"


def _check_name(registry: Mapping[str, Any], kind: str) -> BeforeValidator:
    def check(name: Any) -> Any:
        try:
            lookup(registry, str(name), kind=kind)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None  # pydantic collects ValueErrors, not KeyErrors
        return str(name)

    return BeforeValidator(check)


if TYPE_CHECKING:
    DistributionName: TypeAlias = str
    CurriculumName: TypeAlias = str
    ArchitectureName: TypeAlias = str
    EvaluationSetName: TypeAlias = str
    BudgetName: TypeAlias = str
    FamilyName: TypeAlias = str
    UpdateName: TypeAlias = str
    ProbeName: TypeAlias = str
else:

    def _choice(title: str, registry: Mapping[str, Any], kind: str) -> Any:
        # The form labels the field with the enum's name, whatever the field's own title.
        names = StrEnum(title, {name: name for name in registry})
        return Annotated[names, _check_name(registry, kind)]

    DistributionName = _choice("Distribution", DISTRIBUTIONS, "task distribution")
    CurriculumName = _choice("Curriculum", CURRICULA, "curriculum")
    ArchitectureName = _choice("Architecture", ARCHITECTURES, "architecture")
    EvaluationSetName = _choice("EvaluationSet", EVALUATION_SETS, "evaluation set")
    BudgetName = _choice("Budget", {**BUDGETS, **BASELINES}, "budget or baseline")
    FamilyName = _choice("Family", {ALL_FAMILIES: None, **FAMILIES}, "task family")
    UpdateName = _choice("Update", {NO_UPDATE: None, **UPDATES}, "optimizer to time")
    ProbeName = _choice("Probe", {ALL_PROBES: None, **PROBES}, "probe")


def _check_gate(gate: str | None) -> str | None:
    if gate is not None:
        try:
            read_gate(gate)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
    return gate


def _check_horizon(horizon: int) -> int:
    points_along(horizon, POINTS_PER_HORIZON)
    return horizon


Seed = Annotated[int, Field(ge=0, lt=2**31)]
Horizon = Annotated[int, Field(ge=10, le=1_000_000), AfterValidator(_check_horizon)]


class Parameters(BaseModel):
    """Base of the models below: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class SampleParameters(Parameters):
    """Which task configurations to draw."""

    distribution: DistributionName = Field("demo", description="What the configurations are drawn from.")
    count: int = Field(60, ge=1, le=100_000, description="How many configurations.")
    seed: Seed = Field(0, description="Same distribution, count and seed: the same configurations.")


class TimeParameters(SampleParameters):
    """Which configurations to time, and when one counts as invalid."""

    family: FamilyName | None = Field(
        None,
        description="Time this family's whole prior on embedded data instead of the distribution; all: every "
        "family's, `count` each.",
    )
    max_seconds_per_step: float = Field(
        0.05, gt=0, le=60, description="A configuration that needs longer per inner step counts as invalid."
    )
    repeats: int = Field(5, ge=1, le=100, description="Timed runs per configuration; the median counts.")
    max_seconds: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="A configuration that takes longer to compile and measure is invalid.",
    )
    update: UpdateName = Field(
        "adam", description="Optimizer whose update is timed beside the gradient step; none: no optimizer's."
    )
    again: bool = Field(False, description="Measure configurations again that have been timed before.")


class FitParameters(Parameters):
    """How to fit the run-time model to all timings of this machine."""

    fit_seed: Seed = Field(0, description="Decides folds and initial weights.")
    compare: bool = Field(
        False, description="Fit the paper's networks too and show how they compare; takes much longer."
    )
    min_growth: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Keep the last fit unless there are this many times more timings: 0.25 is a quarter more.",
    )


class ArchitectureParameters(Parameters):
    """Which learned optimizer, and how large."""

    architecture: ArchitectureName = Field("pacer", description="The learned optimizer to train.")
    architecture_config: str = Field(
        "{}",
        description=f"Sizes and constants that are not its defaults, as JSON: {EXAMPLE} makes velo small.",
    )

    @field_validator("architecture_config")
    @classmethod
    def _config_fits(cls, fields: str, info: ValidationInfo) -> str:
        if "architecture" in info.data:  # else that field says what is wrong
            read_architecture(info.data["architecture"], fields)
        return fields

    def optimizer(self) -> ArchitectureConfig:
        """Returns the whole configuration."""
        return read_architecture(self.architecture, self.architecture_config)


class TrainParameters(ArchitectureParameters):
    """Which phase of which curriculum to meta-train, from where, and for how long."""

    curriculum: CurriculumName = Field("demo", description="The sequence of phases.")
    phase: str = Field(
        NEXT_PHASE,
        min_length=1,
        description=f"next: the first phase that is not complete. Or its name: {', '.join(PHASES)}.",
    )
    seed: Seed = Field(
        0, description="Decides the tasks, the perturbations and the data of every outer step."
    )
    outer_steps: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Updates of the learned optimizer. None: as many as the phase says.",
    )
    learning_rate: float | None = Field(
        None, gt=0, le=1, description="Peak rate of the outer optimizer. None: what the phase says."
    )
    mode: Mode | None = Field(
        None,
        description="synchronous: reproducible. asynchronous: no worker waits. None: what the phase says.",
    )

    @field_validator("phase")
    @classmethod
    def _check_phase(cls, name: str, info: ValidationInfo) -> str:
        phases = {phase.name: phase for phase in CURRICULA.get(info.data.get("curriculum", ""), ())}
        if name != NEXT_PHASE and phases:
            try:
                lookup(phases, name, kind="phase")
            except UnknownNameError as error:
                raise ValueError(str(error)) from None
        return name


class ControlParameters(Parameters):
    """What to change in a phase while it runs. What is left empty stays as it is."""

    run: str = Field(
        "", description="The run, or the start of its name: short_horizon. Empty: the one that is running."
    )
    learning_rate: float | None = Field(None, gt=0, le=1, description="Peak rate of the outer optimizer.")
    batch_size: int | None = Field(
        None, ge=1, description="Meta-gradients per outer step; asynchronous only."
    )
    max_staleness: int | None = Field(
        None, ge=0, description="Outer steps after which a meta-gradient is dropped; asynchronous only."
    )
    command: Command = Field("run", description="run: go on. pause: wait. stop: end after a checkpoint.")


class BaselinesParameters(Parameters):
    """What to compare with, and on what."""

    evaluation_sets: tuple[EvaluationSetName, ...] = Field(
        ("heldout_demo", "indistribution_demo"),
        min_length=1,
        description="The tasks to compare on: sets of held-out tasks, and of tasks like those trained on.",
    )
    horizon: Horizon = Field(200, description="Inner steps that every optimizer is given.")
    num_seeds: int = Field(3, ge=1, le=100, description="Independent runs of each optimizer on each task.")
    baselines: tuple[BudgetName, ...] = Field(
        ("quick",),
        description="Budgets (lr15: fifteen optimizers with fifteen learning rates each, tuned per task) or "
        "single baselines to compare with.",
    )
    normalizer: NormalizerName = Field(
        "adam",
        description="Whose time counts: tuned Adam's, or (extended) the best of four tuned optimizers'.",
    )
    normalizer_factor: int = Field(
        10,
        ge=1,
        le=100,
        description="The normaliser runs this many times longer: the largest speed-up that can be seen.",
    )


class EvaluateParameters(BaselinesParameters):
    """Which learned optimizer to compare with tuned baselines, and on what."""

    optimizer: str = Field(
        "candidate",
        min_length=1,
        description="Alias (candidate, champion), models:/NAME/VERSION, a checkpoint's folder, shipped:NAME, a "
        "weights file (.npz), or initial:ARCHITECTURE, untrained.",
    )
    clock: bool = Field(
        True,
        description="Time one step of the optimizer and of Adam, each training alone, for speed-ups by the clock.",
    )


class PromoteParameters(Parameters):
    """Which evaluated optimizer asks to become the champion, and what it must show."""

    optimizer: str = Field("candidate", min_length=1, description="Alias or models:/NAME/VERSION.")
    gate: Annotated[str, AfterValidator(_check_gate)] = Field("default", description=GATE_HELP)


class RollbackParameters(Parameters):
    """Which earlier champion to go back to. As it is, the form takes the one before the present champion."""

    to: int | None = Field(
        None, ge=1, description="Version that was champion before. None: the one before the present champion."
    )
    reason: str = Field("", max_length=1_000, description="Why; kept in the record.")


class FollowParameters(BaselinesParameters):
    """Which training run to watch, and how its checkpoints are evaluated."""

    run: str = Field(
        "", description="The run, or the start of its name: short_horizon. Empty: the one that is running."
    )
    promote: Annotated[str | None, AfterValidator(_check_gate)] = Field(
        None, description=f"Promote what passes this gate. None: only watch. {GATE_HELP}"
    )
    workers: int = Field(
        1, ge=1, le=1024, description="Evaluation's own workers on this machine, at low priority."
    )
    once: bool = Field(False, description="Evaluate what is there now, and end.")
    poll_seconds: float = Field(5.0, gt=0, le=3600, description="Seconds between looks at the checkpoints.")


class ProbeParameters(Parameters):
    """Which behaviour of which learned optimizer to look at."""

    probe: ProbeName = Field("horizon_adaptation", description="What to look at; all: every probe that fits.")
    optimizer: str = Field(
        "shipped:pacer",
        min_length=1,
        description="Alias (candidate, champion), models:/NAME/VERSION, a checkpoint's folder, shipped:NAME, a "
        "weights file, or initial:ARCHITECTURE.",
    )
    others: tuple[str, ...] = Field(
        (), description="More optimizers, for probes of several. Empty: all that come with the package."
    )
    quick: bool = Field(False, description="Tiny sizes: a look in seconds that proves nothing.")
    seed: int = Field(0, ge=0, lt=2**20, description="Same seed, same numbers (times excepted).")


class ReportParameters(Parameters):
    """What to call the report."""

    title: str = Field("keirin run", min_length=1, max_length=100, description="Heading of the page.")


class PipelineParameters(ArchitectureParameters):
    """The whole story: sample, time, fit, every phase, evaluate, promote, report."""

    distribution: DistributionName = Field(
        "demo", description="What the timed configurations are drawn from."
    )
    count: int = Field(60, ge=10, le=100_000, description="How many configurations to time.")
    curriculum: CurriculumName = Field("demo", description="The sequence of phases.")
    seed: Seed = Field(0, description="Decides everything that is drawn.")
    outer_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Outer steps of every phase. None: as many as each phase says."
    )
    horizon: Horizon = Field(200, description="Inner steps of the evaluation.")
    num_seeds: int = Field(3, ge=1, le=100, description="Independent runs per optimizer and task.")
