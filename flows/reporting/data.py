"""What a report is made of: plain data, nothing that would have to be looked up.

A flow fills `ReportData` from its stores; everything else in this package turns it into a page, a picture or
a table without touching a disk or a clock. It is JSON, NaN and infinities included (a diverged curve is a
result), so a report can be stored beside its run and drawn again later.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from curriculum.evaluation.head_to_head import HeadToHeadRow
from curriculum.evaluation.normalized_loss import LossRow
from flows.reporting.evaluation_rows import ComparisonTable, HorizonRow, TwiceRow
from flows.reporting.report_model import EndOfInterval, ReportModel, require_equal_lengths

Role = Literal["candidate", "initialisation", "baseline"]


class MachineReport(ReportModel):
    """What the numbers were measured on."""

    processor: str
    num_cores: int = Field(gt=0)
    memory_gib: float = Field(gt=0)
    system: str
    python: str
    accelerator: str | None = None
    versions: tuple[tuple[str, str], ...] = ()
    """Pairs (package, version), in the order they are shown."""
    when: datetime | None = None
    """When the evaluation measured on it; None where the page has none, or does not know."""


class StageReport(ReportModel):
    """How long one step of the pipeline took, in seconds."""

    name: str
    seconds: float = Field(ge=0)


class ValidationPoint(ReportModel):
    """The meta-loss on the phase's validation tasks, beside that of the initialisation on the same tasks."""

    outer_step: int = Field(ge=0)
    meta_loss: float
    initial_meta_loss: float
    num_tasks: int = Field(gt=0)


class PhaseReport(ReportModel):
    """One phase of meta-training."""

    name: str
    title: str = ""
    started_from: str
    horizon: tuple[int, int]
    num_tasks: int = Field(gt=0, description="Tasks per outer step, each with its own pairs.")
    num_pairs: int = Field(gt=0, description="Antithetic pairs per task.")
    outer_step: tuple[int, ...]
    meta_loss: tuple[float, ...]
    meta_loss_label: str = "meta-loss"
    validation: tuple[ValidationPoint, ...] = ()
    seconds: float = Field(ge=0)
    inner_steps: int = Field(ge=0)
    num_skipped: int = Field(default=0, ge=0, description="Updates skipped because they were not finite.")

    @model_validator(mode="after")
    def _columns_match(self) -> PhaseReport:
        require_equal_lengths(f"phase {self.name!r}", outer_step=self.outer_step, meta_loss=self.meta_loss)
        return self


class TimingPoint(ReportModel):
    """One configuration whose time was predicted by a model that had not seen it."""

    family: str
    measured_seconds: float = Field(gt=0)
    predicted_seconds: float = Field(gt=0)
    low_seconds: float = Field(gt=0)
    high_seconds: float = Field(gt=0)
    """Ends of the 80 % interval."""


class FamilyErrors(ReportModel):
    """How well one family is predicted."""

    family: str
    num_timings: int
    num_timed: int
    """Timings of configurations that run within the limits: what the errors are of."""
    median_relative_error: float | None
    p90_relative_error: float | None
    spearman: float | None
    interval_coverage: float | None
    validity_auc: float | None
    predicted_by: str
    by_estimator: tuple[tuple[str, float], ...]
    """Pairs (estimator, its median relative error)."""


class AcceptedTasks(ReportModel):
    """What rejection sampling accepts under one budget."""

    budget_seconds: float = Field(gt=0)
    acceptance_rate: float = Field(ge=0, le=1)
    families: tuple[str, ...]
    seconds: tuple[float, ...]
    """Predicted, one per accepted task, as the families."""


class RuntimeModelReport(ReportModel):
    """How well the run-time model predicts configurations it was not fitted on."""

    num_timings: int = Field(ge=0, description="Configurations timed, the invalid ones included.")
    num_valid: int = Field(ge=0)
    points: tuple[TimingPoint, ...] = ()
    median_relative_error: float | None = None
    p90_relative_error: float | None = None
    interval_coverage: float | None = None
    """Share of measurements within the 80 % intervals."""
    spearman: float | None = None
    validity_accuracy: float | None = None
    validity_auc: float | None = None
    validation: str = "5-fold cross-validation"
    invalid_reasons: tuple[tuple[str, int], ...] = ()
    """Pairs (reason, how many configurations)."""
    families: tuple[FamilyErrors, ...] = ()
    accepted: tuple[AcceptedTasks, ...] = ()

    @property
    def num_invalid(self) -> int:
        """Configurations that failed, ran out of memory or took too long."""
        return self.num_timings - self.num_valid


class OptimizerInfo(ReportModel):
    """An optimizer that was evaluated; curves and speed-ups refer to it by `name`."""

    name: str
    label: str
    role: Role


class TunedSetting(ReportModel):
    """The trial that won for one task, and how many it won against."""

    setting: str
    num_tried: int = Field(gt=0)
    is_at_edge: bool = False
    """Whether it is the smallest or largest of a grid, so that a better one may lie outside."""


class OptimizerCurve(ReportModel):
    """One optimizer on one task: mean over seeds, with the smallest and largest seed."""

    optimizer: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    final_losses: tuple[float, ...] = Field(
        description="At the horizon, one per seed; NaN where it diverged."
    )
    seconds_per_step: float | None = None
    tuned: TunedSetting | None = None

    @model_validator(mode="after")
    def _columns_match(self) -> OptimizerCurve:
        columns = {"steps": self.steps, "mean": self.mean, "low": self.low, "high": self.high}
        require_equal_lengths(f"the curve of {self.optimizer!r}", **columns)
        return self


class SpeedupReport(ReportModel):
    """How many times longer `baseline` needs to reach the final loss of `optimizer`.

    0 says that a seed diverged, or that the loss ended no lower than it started. Values at
    `EvaluationReport.max_speedup` mean "at least".
    """

    optimizer: str
    baseline: str
    of_mean: float
    """Of the mean of the losses over seeds: what is said of the task."""
    per_seed: tuple[float, ...] = Field(min_length=1)
    """Of each seed, over the baseline with that seed: how seeds differ."""
    redrawn: tuple[float, ...] = ()
    """Of the mean, with the seeds of both drawn anew; empty with one seed. How far the value could have come out
    otherwise: a single seed's curve is noisier than a mean, and its running minimum the lower for it."""
    num_diverged: int = Field(0, ge=0, description="Seeds that ended with a loss that is not finite.")


class TaskReport(ReportModel):
    """One evaluation task."""

    name: str
    label: str
    held_out: bool | None
    """Whether no phase of the candidate's training could have drawn it; None: not known."""
    family: str = ""
    familiar: bool | None = None
    """Whether a phase of the candidate's training drew tasks of its family; None: not known."""
    why: str = ""
    """Why no phase could sample it: "5 layers; the mixture has at most 4"."""
    curves: tuple[OptimizerCurve, ...]
    speedups: tuple[SpeedupReport, ...]

    def curve(self, optimizer: str) -> OptimizerCurve | None:
        """Returns the curve of `optimizer`, or None if it was not run on this task."""
        return next((curve for curve in self.curves if curve.optimizer == optimizer), None)

    def speedup(self, optimizer: str, baseline: str) -> SpeedupReport | None:
        """Returns the speed-up of `optimizer` over `baseline`, or None if it was not measured."""
        pairs = ((s, (s.optimizer, s.baseline)) for s in self.speedups)
        return next((s for s, names in pairs if names == (optimizer, baseline)), None)


class EvaluationReport(ReportModel):
    """The evaluation of one candidate against tuned baselines."""

    set_name: str
    horizon: int = Field(gt=0)
    num_seeds: int = Field(gt=0)
    max_speedup: float = Field(
        gt=0, description="The largest speed-up the baselines ran long enough to show."
    )
    optimizers: tuple[OptimizerInfo, ...]
    tasks: tuple[TaskReport, ...]
    loss_label: str = "training loss"
    tables: tuple[ComparisonTable, ...] = ()
    head_to_head: tuple[HeadToHeadRow, ...] = ()
    """How often the candidate ended lower than each of the others."""
    losses: tuple[LossRow, ...] = ()
    """Normalised final losses of every optimizer."""
    twice_as_fast: tuple[TwiceRow, ...] = ()
    """LHOPT's metric; empty where its baselines were not run."""
    horizons: tuple[HorizonRow, ...] = ()
    """The candidate on the same tasks at every horizon that was evaluated."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know before believing a number; shown in red."""

    @model_validator(mode="after")
    def _names_are_known(self) -> EvaluationReport:
        known = {info.name for info in self.optimizers}
        if [info.role for info in self.optimizers].count("candidate") != 1:
            raise ValueError(f"`optimizers` must have exactly one of role 'candidate', got {sorted(known)}.")
        for task in self.tasks:
            used = {c.optimizer for c in task.curves}
            used |= {n for s in task.speedups for n in (s.optimizer, s.baseline)}
            if used - known:
                raise ValueError(
                    f"task {task.name!r} names {sorted(used - known)}, absent from `optimizers`."
                )
        return self

    @property
    def candidate(self) -> OptimizerInfo:
        """The optimizer this evaluation is about."""
        return next(info for info in self.optimizers if info.role == "candidate")

    @property
    def baselines(self) -> tuple[OptimizerInfo, ...]:
        """The optimizers it is compared with, the one that normalises first."""
        return tuple(info for info in self.optimizers if info.role == "baseline")


class TrackPoint(ReportModel):
    """One checkpoint of a training run, evaluated."""

    outer_step: int = Field(ge=0)
    percentiles: tuple[tuple[int, float], ...]
    """Pairs (percentile over tasks, speed-up): the 10th is exceeded on nine of ten tasks."""
    interquartile_mean: float
    low: EndOfInterval
    high: EndOfInterval
    """Ends of its 95 % interval over seeds; None with one seed."""
    num_diverged: int = Field(ge=0, description="Tasks on which a seed diverged.")
    decision: str = ""
    """What a gate said of it: promoted, refused; empty where none was asked."""
    bounds: tuple[str, ...] = ()
    """Which numbers are at least that, by speed-ups at the cap: percentiles, "value" (the mean), "low", "high"."""

    def text(self, name: str, value: float) -> str:
        """Returns one of its numbers as text, "≥" before a bound."""
        return f"{'≥ ' if name in self.bounds else ''}{value:.2f}×"


class TrackReport(ReportModel):
    """How the evaluation of a training run's checkpoints moved over outer steps, always on the same tasks."""

    run: str
    set_name: str
    horizon: int = Field(gt=0)
    num_tasks: int = Field(gt=0)
    num_seeds: int = Field(gt=0)
    max_speedup: float = Field(gt=0)
    points: tuple[TrackPoint, ...] = ()


class PromotionReason(ReportModel):
    """One line of the gate. `passed` is None for a remark that decides nothing."""

    text: str
    passed: bool | None = None


class PromotionReport(ReportModel):
    """Whether the candidate became the champion, and why."""

    promoted: bool
    alias: str = "champion"
    version: str | None = None
    previous: str | None = None
    gate: str = ""
    reasons: tuple[PromotionReason, ...]


class Location(ReportModel):
    """Where a result is, and the command that shows it."""

    what: str
    where: str
    command: str


class ReportData(ReportModel):
    """Everything a report shows. Parts that have not been run yet are empty, and said to be missing."""

    title: str = "keirin run"
    command: str = ""
    created: datetime
    machine: MachineReport
    stages: tuple[StageReport, ...] = ()
    phases: tuple[PhaseReport, ...] = ()
    runtime_model: RuntimeModelReport | None = None
    evaluation: EvaluationReport | None = None
    tracks: tuple[TrackReport, ...] = ()
    promotion: PromotionReport | None = None
    locations: tuple[Location, ...] = ()
