"""Step 2: time the configurations on the workers. What fails is recorded as invalid, and kept.

Each timing is stored as it arrives and looked up by the configuration's fingerprint, so a run that was
stopped goes on with what is missing, and a larger count means that many more. A stored timing counts if it is
of such a machine, of such versions and of what is asked for now; otherwise the configuration is timed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dask.utils import parse_bytes
from prefect import flow

from flows.errors import WorkUnitKilledError
from flows.parameters import ALL_FAMILIES, TimeParameters
from flows.prefect_artifacts import ProgressArtifact, publish_table
from flows.run_times.models import workers_machine
from flows.run_times.stored import Request, stored_timings
from flows.run_times.table import RunningTable, family_table, timing_rows
from flows.sample_tasks import draw_from, run_sample
from flows.session import Session, current_session
from flows.workers.units import killed_timing, time_unit
from runtime_model.machine import Machine
from runtime_model.timing import StepTiming, TimingSettings
from task_generator.families import FAMILIES
from task_generator.known_distributions import family_distribution
from task_generator.task_config import TaskConfig

DISTURBED = 0.8
"""Share of its core below which a timing is said to have been disturbed."""
STALL_SECONDS = 1800.0
"""May pass beyond `--max-seconds` without any timing: workers start, or die and come back."""


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
    """Times what has not been timed like this. Returns one timing per different configuration, in order."""
    unique = {config.fingerprint(): config for config in configs}
    if len(unique) < len(configs):
        equal = len(configs) - len(unique)
        session.reporter.line(f"{equal} of {len(configs)} configurations equal another one and count once")
    machine = workers_machine(session)
    timed = {} if parameters.again else _timed_before(parameters, unique.values(), machine, session)
    missing = [config for fingerprint, config in unique.items() if fingerprint not in timed]
    with session.reporter.task("timing", len(unique), done=len(timed)) as task:
        task.listen(ProgressArtifact("timing-progress", "Task configurations timed."))
        table = RunningTable(session.reporter.show)

        def on_timed(record: dict[str, Any]) -> None:
            session.timings.append([record])
            timing = StepTiming.model_validate(record)
            timed[timing.config_fingerprint] = timing
            task.advance(note=_note(record))
            table.add(record)

        _time_missing(parameters, missing, machine, session, on_timed)
    return [timed[fingerprint] for fingerprint in unique]


def _timed_before(
    parameters: TimeParameters, configs: Iterable[TaskConfig], machine: Machine, session: Session
) -> dict[str, StepTiming]:
    """Returns the stored timings that answer the request, by fingerprint; says which others do not, and why."""
    request = Request(machine, parameters.max_seconds_per_step, str(parameters.update))
    known, reasons = stored_timings(session, configs, request)
    if known:
        session.reporter.line(f"{len(known)} were timed before")
    if reasons:
        why = ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common())
        session.reporter.line(
            f"{reasons.total()} were timed before, but not like this, and are timed again: {why}"
        )
    return known


def _time_missing(
    parameters: TimeParameters,
    missing: list[TaskConfig],
    machine: Machine,
    session: Session,
    on_timed: Callable[[dict[str, Any]], None],
) -> None:
    """Times every configuration once; one that kills its workers is recorded, and the others go on."""
    max_bytes = parse_bytes(session.settings.memory_limit)
    settings = TimingSettings(
        repeats=parameters.repeats,
        max_seconds_per_step=parameters.max_seconds_per_step,
        max_bytes=max_bytes if _is_cpu(machine) else None,  # an accelerator's programs use its own memory
        update=str(parameters.update),
    ).model_dump(mode="json")
    limits = settings, parameters.max_seconds, max_bytes
    left = [config.canonical_json() for config in missing]
    while left:
        finished: set[int] = set()
        payloads, stall = [(config, *limits) for config in left], parameters.max_seconds + STALL_SECONDS
        try:
            for index, record in session.pool.imap_unordered(time_unit, payloads, timeout=stall):
                finished.add(index)
                on_timed(record)
        except WorkUnitKilledError as error:
            finished.add(error.index)
            reason = f"killed: the worker died: {error}"
            on_timed(killed_timing(left[error.index], settings, reason, machine))
        left = [config for index, config in enumerate(left) if index not in finished]


def _is_cpu(machine: Machine) -> bool:
    return machine.hardware.startswith("cpu:")


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
    updates = Counter(t.update_reason.split(":")[0] for t in timings if t.update_reason)
    lines += [f"update not timed, {reason}: {count}" for reason, count in updates.most_common()]
    return lines + _disturbed(timings)


def _disturbed(timings: Sequence[StepTiming]) -> list[str]:
    """Returns how many timings were disturbed, and whether they stand: on one thread processor time was counted."""
    disturbed = [t for t in timings if t.cpu_share is not None and t.cpu_share < DISTURBED]
    stand = sum(t.machine is not None and _is_cpu(t.machine) and t.machine.threads == 1 for t in disturbed)
    had = f"had their core for less than {DISTURBED:.0%} of the time"
    lines = []
    if stand:
        lines.append(
            f"{stand} {had}: something ran beside them. On one thread processor time is what counts, so they stand"
        )
    if stand < len(disturbed):
        lines.append(
            f"{len(disturbed) - stand} {had}, and their seconds are of the clock on the wall: if something ran "
            "beside them, time them with `--again` when the machine is quiet"
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
