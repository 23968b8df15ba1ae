"""Step 2: time the configurations on the workers. What fails is recorded as invalid, and kept.

Each timing is stored as it arrives and looked up by the configuration's fingerprint, so a run that was
stopped goes on with what is missing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import flow

from flows.errors import WorkUnitKilledError
from flows.parameters import TimeParameters
from flows.prefect_artifacts import ProgressArtifact, publish_table
from flows.sample_tasks import run_sample
from flows.session import Session, current_session
from flows.units import killed_timing, time_unit
from runtime_model.timing import StepTiming
from task_generator.task_config import TaskConfig


def stored_timings(session: Session, configs: list[TaskConfig]) -> dict[str, StepTiming]:
    """Returns the latest timing of each configuration that has one, by fingerprint."""
    wanted = {config.fingerprint() for config in configs}
    records = [r for r in session.timings.read() if r["config_fingerprint"] in wanted]
    return {record["config_fingerprint"]: StepTiming.model_validate(record) for record in records}


def run_timing(parameters: TimeParameters, configs: list[TaskConfig], session: Session) -> list[StepTiming]:
    """Times what has not been timed. Returns one timing per configuration, in order."""
    known = {} if parameters.again else stored_timings(session, configs)
    unique = {config.fingerprint(): config for config in configs}
    missing = [config for fingerprint, config in unique.items() if fingerprint not in known]
    if known:
        session.reporter.line(f"{len(known)} were timed before")
    with session.reporter.task("timing", len(unique), done=len(known)) as task:
        task.listen(ProgressArtifact("timing-progress", "Task configurations timed."))
        _time_missing(parameters, missing, session, on_timed=task.advance)
    timed = stored_timings(session, configs)
    return [timed[config.fingerprint()] for config in configs]


def _time_missing(
    parameters: TimeParameters, missing: list[TaskConfig], session: Session, on_timed: Any
) -> None:
    """Times every configuration once; one that kills its workers is recorded, and the others go on."""
    left = [config.canonical_json() for config in missing]
    while left:
        payloads = [(config, parameters.repeats, parameters.max_seconds_per_step) for config in left]
        finished: set[int] = set()
        try:
            for index, record in session.pool.imap_unordered(time_unit, payloads):
                session.timings.append([record])
                finished.add(index)
                on_timed()
        except WorkUnitKilledError as error:
            session.timings.append([killed_timing(left[error.index], f"the worker died: {error}")])
            finished.add(error.index)
            on_timed()
        left = [config for index, config in enumerate(left) if index not in finished]


def summary(timings: list[StepTiming]) -> list[str]:
    """Returns what there is to say about the timings, one line each."""
    valid = sorted(t.seconds_per_step for t in timings if t.valid and t.seconds_per_step is not None)
    lines = [f"{len(valid)} of {len(timings)} configurations run within the limits"]
    if valid:
        fastest, median, slowest = (1e3 * valid[i] for i in (0, len(valid) // 2, -1))
        lines.append(f"seconds per step: {fastest:.3g} to {slowest:.3g} ms, median {median:.3g} ms")
    reasons = Counter(t.reason.split(":")[0] for t in timings if not t.valid)
    lines += [f"invalid, {reason}: {count}" for reason, count in reasons.most_common()]
    return lines


def rows(timings: list[StepTiming]) -> list[dict[str, Any]]:
    """Returns one row per timing, for people."""
    return [
        {
            "task": TaskConfig.model_validate_json(timing.config_json).label,
            "ms per step": None
            if timing.seconds_per_step is None
            else round(1e3 * timing.seconds_per_step, 4),
            "compile s": None if timing.compile_seconds is None else round(timing.compile_seconds, 2),
            "valid": timing.valid,
            "reason": timing.reason,
        }
        for timing in timings
    ]


@flow(name="time", flow_run_name="{parameters.distribution}-{parameters.count}")
def time_tasks(parameters: TimeParameters = TimeParameters()) -> dict[str, int]:
    """Times task configurations on the workers: seconds per inner step, and whether they run at all."""
    with current_session() as session:
        session.reporter.heading("time")
        timings = run_timing(parameters, run_sample(parameters, session), session)
        for line in summary(timings):
            session.reporter.line(line)
        publish_table("timings", rows(timings)[:500], "Seconds per inner step, measured on the workers.")
        return {"timed": len(timings), "valid": sum(timing.valid for timing in timings)}
