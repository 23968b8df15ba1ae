"""Step 2: time the configurations on the workers. What fails is recorded as invalid, and kept.

Each timing is stored as it arrives and looked up by the configuration's fingerprint, so a run that was
stopped goes on with what is missing, and a larger count means that many more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from dask.utils import parse_bytes
from prefect import flow

from flows.errors import WorkUnitKilledError
from flows.parameters import ALL_FAMILIES, TimeParameters
from flows.prefect_artifacts import ProgressArtifact, publish_table
from flows.run_times.stored import stored_timings
from flows.run_times.table import RunningTable, family_table, timing_rows
from flows.sample_tasks import draw_from, run_sample
from flows.session import Session, current_session
from flows.workers.units import killed_timing, time_unit
from runtime_model.timing import StepTiming, TimingSettings
from task_generator.families import FAMILIES
from task_generator.known_distributions import family_distribution
from task_generator.task_config import TaskConfig

DISTURBED = 0.8
"""Share of its core below which a timing is said to have been disturbed."""


def configs_to_time(parameters: TimeParameters, session: Session) -> list[TaskConfig]:
    """Returns what to time: a sample of the distribution, or of one family or all of them, in turns."""
    if parameters.family is None:
        return run_sample(parameters, session)
    names = list(FAMILIES) if parameters.family == ALL_FAMILIES else [str(parameters.family)]
    drawn = [draw_from(family_distribution(name), parameters) for name in names]
    session.reporter.line(f"{parameters.count} task configurations each of {', '.join(names)}")
    return [config for turn in zip(*drawn, strict=True) for config in turn]


def run_timing(
    parameters: TimeParameters, configs: Sequence[TaskConfig], session: Session
) -> list[StepTiming]:
    """Times what has not been timed. Returns one timing per configuration, in order."""
    known = {} if parameters.again else stored_timings(session, configs)
    unique = {config.fingerprint(): config for config in configs}
    missing = [config for fingerprint, config in unique.items() if fingerprint not in known]
    if known:
        session.reporter.line(f"{len(known)} were timed before")
    with session.reporter.task("timing", len(unique), done=len(known)) as task:
        task.listen(ProgressArtifact("timing-progress", "Task configurations timed."))
        table = RunningTable(session.reporter.show)

        def on_timed(record: dict[str, Any]) -> None:
            task.advance(note=_note(record))
            table.add(record)

        _time_missing(parameters, missing, session, on_timed)
    timed = stored_timings(session, configs)
    return [timed[config.fingerprint()] for config in configs]


def _time_missing(
    parameters: TimeParameters,
    missing: list[TaskConfig],
    session: Session,
    on_timed: Callable[[dict[str, Any]], None],
) -> None:
    """Times every configuration once; one that kills its workers is recorded, and the others go on."""
    settings = TimingSettings(
        repeats=parameters.repeats,
        max_seconds_per_step=parameters.max_seconds_per_step,
        update=str(parameters.update),
    ).model_dump(mode="json")
    limits = settings, parameters.max_seconds, parse_bytes(session.settings.memory_limit)
    left = [config.canonical_json() for config in missing]
    while left:
        finished: set[int] = set()
        try:
            for index, record in session.pool.imap_unordered(time_unit, [(c, *limits) for c in left]):
                session.timings.append([record])
                finished.add(index)
                on_timed(record)
        except WorkUnitKilledError as error:
            record = killed_timing(left[error.index], f"killed: the worker died: {error}")
            session.timings.append([record])
            finished.add(error.index)
            on_timed(record)
        left = [config for index, config in enumerate(left) if index not in finished]


def _note(record: dict[str, Any]) -> str:
    seconds = record["seconds_per_step"]
    if not record["valid"]:
        return f"{record['family']}: {record['reason'].split(':')[0]}"
    return f"{record['family']}: {1e3 * seconds:.3g} ms per step"


def summary(timings: Sequence[StepTiming]) -> list[str]:
    """Returns what there is to say about the timings, one line each."""
    valid = sorted(t.seconds_per_step for t in timings if t.valid and t.seconds_per_step is not None)
    lines = [f"{len(valid)} of {len(timings)} configurations run within the limits"]
    if valid:
        fastest, median, slowest = (1e3 * valid[i] for i in (0, len(valid) // 2, -1))
        lines.append(f"seconds per step: {fastest:.3g} to {slowest:.3g} ms, median {median:.3g} ms")
    reasons = Counter(t.reason.split(":")[0] for t in timings if not t.valid)
    lines += [f"invalid, {reason}: {count}" for reason, count in reasons.most_common()]
    disturbed = sum(t.cpu_share is not None and t.cpu_share < DISTURBED for t in timings)
    if disturbed:
        lines.append(
            f"{disturbed} had their core for less than {DISTURBED:.0%} of the time: something ran beside them. "
            "On one thread processor time is what counts, so they stand"
        )
    return lines


@flow(name="time", flow_run_name="{parameters.distribution}-{parameters.count}")
def time_tasks(parameters: TimeParameters = TimeParameters()) -> dict[str, int]:
    """Times task configurations on the workers: seconds per inner step, and whether they run at all."""
    with current_session() as session:
        session.reporter.heading("time")
        timings = run_timing(parameters, configs_to_time(parameters, session), session)
        for line in summary(timings):
            session.reporter.line(line)
        session.reporter.show(family_table(timings))
        publish_table(
            "timings", timing_rows(timings)[:500], "Seconds per inner step, measured on the workers."
        )
        return {"timed": len(timings), "valid": sum(timing.valid for timing in timings)}
