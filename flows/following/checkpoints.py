"""Evaluating a training run's checkpoints as they appear, on workers of one's own.

    look at the run's checkpoints  →  the newest without a point  →  curves  →  a point of the track  →  look again
                                                                        └→  the gate, if one was named

Nothing passes between this and the training but checkpoints, which are whole as soon as they can be seen: training
waits for nothing. What is being evaluated is pinned, so that it is still there if it is to be promoted. Curves of
baselines and of the initialisation are those of the store: computed for the first checkpoint, or by anybody before.
Interrupted in any way, points that are there stay, and curves that are there are not computed again.

[1] Metz et al. 2022, "VeLO: Training Versatile Learned Optimizers by Scaling Up", App. E.2 and Fig. 22. There every
    checkpoint is put on a queue. Deviation: the newest goes first, because with one worker beside a fast phase
    a queue would fall behind; checkpoints that were pruned before their turn have no point.
"""

from __future__ import annotations

import contextlib
import functools

from curriculum.evaluation.summary import EvaluationConfig
from curriculum.evaluation.tracks import TrackValues, track_values
from curriculum.gates import Gate
from flows.artifacts import fingerprint_of
from flows.evaluation.curves import compute_curves, plan_jobs
from flows.evaluation.records import (
    EvaluationRecord,
    find_evaluation,
    record_evaluation,
    settings_fingerprint,
)
from flows.evaluation.report import build_summary
from flows.evaluation.settings import evaluation_spec
from flows.following.followed_run import held
from flows.following.tracks import TrackFile
from flows.optimizer_reference import OptimizerReference, resolve_optimizer
from flows.promotion.decision import consider
from flows.promotion.history import PromotionEvent
from flows.reporting import TrackPoint, TrackReport, track_png
from flows.session import Session
from storage.checkpoints import CheckpointInfo, load_checkpoint
from storage.errors import AliasMovedError, CorruptCheckpointError, StorageError, explain_os_errors
from storage.model_registry import ABSENT, CHAMPION, Expected
from storage.registry_reading import DEFAULT_MODEL
from storage.tracking import Run
from task_generator.evaluation_set import EvaluationTask


class Follower:
    """Follows one run.

    Args:
      run: Its name.
      tasks: What its checkpoints are evaluated on.
      config: How.
      set_name: What the tasks are called together.
      gate: What a checkpoint must show to be promoted; None: nothing is promoted.
      session: With the workers to use.
    """

    def __init__(
        self,
        run: str,
        tasks: list[EvaluationTask],
        config: EvaluationConfig,
        *,
        set_name: str,
        gate: Gate | None,
        session: Session,
    ) -> None:
        self.run, self._tasks, self._config, self._gate = run, tasks, config, gate
        self._set_name, self._session = set_name, session
        self._digest = fingerprint_of(
            [[task.config.fingerprint() for task in tasks], config.model_dump(mode="json")]
        )
        self._left_out: set[int] = set()
        self._track: TrackFile | None = None
        self._tracked: Run | None = None
        self._told_header = False

    @property
    def report(self) -> TrackReport | None:
        """The track so far; None before the first checkpoint."""
        return None if self._track is None else self._track.report

    def waiting(self) -> list[CheckpointInfo]:
        """Returns the checkpoints that have no point yet, oldest first."""
        done = self._left_out if self._track is None else self._left_out | self._track.steps()
        return [info for info in self._session.checkpoints.list(self.run) if info.outer_step not in done]

    def evaluate_next(self) -> bool:
        """Evaluates the newest checkpoint that has no point. Returns whether there was one."""
        waiting = self.waiting()
        if not waiting:
            return False
        info = waiting[-1]
        with held(info, self._session.checkpoints, self._digest):
            optimizer = self._resolve(info)
            if optimizer is None:
                self._left_out.add(info.outer_step)
                return True
            track = self._open_track(optimizer, info)
            if info.outer_step in track.steps():  # known from an earlier follower of this run
                return True
            evaluation = self._evaluate(optimizer)
            event = None if self._gate is None else self._consider(optimizer, evaluation, info, self._gate)
        self._add(track, info, track_values(evaluation.summary), event)
        return True

    def close(self, *, complete: bool) -> None:
        """Ends MLflow's record of the track."""
        if self._tracked is not None:
            self._tracked.end("FINISHED" if complete else "KILLED")

    def _resolve(self, info: CheckpointInfo) -> OptimizerReference | None:
        """Returns the checkpoint's optimizer; None, saying why, if it is gone or damaged."""
        try:
            return resolve_optimizer(str(info.path), self._session)
        except StorageError as error:
            if not info.path.is_dir():
                self._session.reporter.line(f"outer step {info.outer_step}: pruned before it was evaluated")
                return None
            if not isinstance(error, CorruptCheckpointError):
                raise
            self._session.reporter.line(f"[yellow]{error}[/yellow]")
            return None

    def _open_track(self, optimizer: OptimizerReference, info: CheckpointInfo) -> TrackFile:
        """Returns the run's track; opens MLflow's record of it the first time."""
        if self._track is None:
            settings = settings_fingerprint(
                evaluation_spec(optimizer, self._tasks, self._config, clock=False)
            )
            empty = TrackReport(
                run=self.run,
                set_name=self._set_name,
                horizon=self._config.horizon,
                num_tasks=len(self._tasks),
                num_seeds=self._config.num_seeds,
                max_speedup=self._config.normalizer_factor,
            )
            self._track = TrackFile(self._session.workspace, empty, settings)
            self._tracked = self._open_run(self._track.run_id, info)
        return self._track

    def _open_run(self, run_id: str | None, info: CheckpointInfo) -> Run:
        tracker = self._session.tracker
        if run_id is not None:
            try:
                return tracker.resume_run(run_id)
            except StorageError:  # the tracking database is a newer one: start another record
                pass
        parent = load_checkpoint(info).metadata.get("run_id")
        params = {"set": self._set_name, **self._config.model_dump(mode="json")}
        tags = {"keirin.step": "follow", "keirin.run": self.run}
        name = f"follow {self.run}"
        return tracker.start_run(
            name, tags=tags, params=params, parent=None if parent is None else str(parent)
        )

    def _evaluate(self, optimizer: OptimizerReference) -> EvaluationRecord:
        """Returns the optimizer's evaluation; what is not stored is computed on the follower's workers."""
        spec = evaluation_spec(optimizer, self._tasks, self._config, clock=False)
        workspace = self._session.workspace
        found = find_evaluation(workspace, optimizer.fingerprint, settings=settings_fingerprint(spec))
        if found is not None:
            return found
        jobs = plan_jobs(self._tasks, optimizer, self._config)
        is_first = self.report is None or not self.report.points
        # The first one takes long: that of the others is a line of the table.
        with contextlib.nullcontext() if is_first else self._session.quietly():
            batches = compute_curves(jobs, self._session, lambda _: None).batches
        summary = build_summary(self._tasks, batches, self._config, optimizer.trained_on)
        return record_evaluation(
            workspace, optimizer.fingerprint, spec, summary.model_dump(mode="json"), asked_for=False
        )

    def _consider(
        self,
        optimizer: OptimizerReference,
        evaluation: EvaluationRecord,
        info: CheckpointInfo,
        gate: Gate,
    ) -> PromotionEvent:
        """Asks the gate, with the champion evaluated on the same tasks first; again, if it is another by then."""
        session, tracked = self._session, self._tracked
        assert tracked is not None  # the track is open
        tags = {"run_name": self.run, "step": "follow"}
        register = functools.cache(  # once, however often the gate is asked
            lambda: session.registry.register(DEFAULT_MODEL, info, tracked.run_id, tags)
        )
        while True:
            champion = self._evaluated_champion()
            try:
                with session.quietly():
                    return consider(
                        optimizer, evaluation, gate, session, register=register, champion=champion
                    )
            except AliasMovedError:
                session.reporter.line(
                    f"outer step {info.outer_step}: another champion meanwhile; asked again"
                )

    def _evaluated_champion(self) -> Expected:
        """Returns who is champion, evaluated as the checkpoints are."""
        version = self._session.registry.aliases(DEFAULT_MODEL).get(CHAMPION)
        if version is None:
            return ABSENT
        self._evaluate(resolve_optimizer(f"models:/{DEFAULT_MODEL}/{version}", self._session))
        return version

    def _add(
        self, track: TrackFile, info: CheckpointInfo, values: TrackValues, event: PromotionEvent | None
    ) -> None:
        """Records a point everywhere, and says it."""
        assert self._tracked is not None  # the track is open
        mean = values.interquartile_mean
        decision = "" if event is None else event.kind
        metrics = {f"speedup_p{p}": value for p, value in values.percentiles.items()}
        metrics |= {"speedup_iqm": mean.value, "speedup_iqm_low": mean.low, "speedup_iqm_high": mean.high}
        self._tracked.log_metrics({**metrics, "diverged_tasks": values.num_diverged}, info.outer_step)
        if event is not None:
            why = "; ".join(check.reason for check in event.checks)
            self._tracked.set_tags({f"keirin.decision.{info.outer_step}": f"{decision}: {why}"})
        point = TrackPoint(
            outer_step=info.outer_step,
            percentiles=tuple(values.percentiles.items()),
            interquartile_mean=mean.value,
            low=mean.low,
            high=mean.high,
            num_diverged=values.num_diverged,
            decision=decision,
            bounds=values.bounds,
        )
        report = track.add(point, run_id=self._tracked.run_id)
        picture = self._session.workspace.reports / f"track-{track.name}.png"
        with explain_os_errors(picture, "draw the percentile tracks"):
            picture.write_bytes(track_png(report))
        self._say(point)

    def _say(self, point: TrackPoint) -> None:
        if not self._told_header:
            self._told_header = True
            names = "".join(f"{f'{percentile} %':>10}" for percentile, _ in point.percentiles)
            self._session.reporter.line(f"{'outer step':>10}{names}{'IQM':>10}  diverged", whole=True)
        values = "".join(
            f"{point.text(str(percentile), value):>10}" for percentile, value in point.percentiles
        )
        mean = point.text("value", point.interquartile_mean)
        row = f"{point.outer_step:>10}{values}{mean:>10}{point.num_diverged:>10}"
        self._session.reporter.line(f"{row}  {point.decision}".rstrip(), whole=True)
