"""What is asked of the workers when configurations are timed: what no stored timing answers, once each, and how."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curriculum.worker import InProcessWorkerPool
from flows.errors import WorkUnitKilledError
from flows.parameters import SampleParameters, TimeParameters
from flows.progress import Reporter
from flows.sample_tasks import draw
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.time_tasks import run_timing, summary
from lopt.config import derive
from runtime_model.machine import Machine
from runtime_model.timing import StepTiming, unmeasured
from task_generator.task_config import TaskConfig

HERE = Machine(
    hardware="cpu:far away:1 thread", jax_version="0.10.2", jaxlib_version="0.10.2", keirin_version="1.0"
)
PARAMETERS = TimeParameters(update="none")


class Workers(InProcessWorkerPool):
    """Workers on a machine of their own that make timings up, and note what they were asked."""

    def __init__(self, machine: Machine = HERE) -> None:
        self.machine = machine
        self.num_asked_who = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.timeouts: list[float | None] = []
        self.deadly = ""
        """The configuration that kills them."""

    def run_all(self, fn: Callable[..., Any], payloads: Sequence[Any], **_: Any) -> list[Any]:
        self.num_asked_who += 1
        return [self.machine.model_dump(mode="json") for _ in payloads]

    def imap_unordered(
        self,
        fn: Callable[..., Any],
        payloads: Sequence[Any],
        *,
        affinity: Any = None,
        timeout: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        self.timeouts.append(timeout)
        for index, (config_json, settings, *_) in enumerate(payloads):
            self.asked.append((config_json, settings))
            if config_json == self.deadly:
                raise WorkUnitKilledError("it ended them one after another", index=index)
            yield index, self.timed(config_json, settings)

    def timed(self, config_json: str, settings: dict[str, Any]) -> dict[str, Any]:
        return made_up(
            TaskConfig.model_validate_json(config_json),
            self.machine,
            max_seconds_per_step=settings["max_seconds_per_step"],
            update_optimizer="" if settings["update"] == "none" else settings["update"],
        )

    def close(self) -> None:
        pass


def made_up(config: TaskConfig, machine: Machine | None, **fields: Any) -> dict[str, Any]:
    given = {"seconds_per_step": 1e-4, "valid": True, "num_steps": 10, "machine": machine, **fields}
    return derive(unmeasured(config), **given).model_dump(mode="json")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def session(tmp_path: Path, said: io.StringIO, workers: Workers) -> Session:
    settings = RuntimeSettings(home=tmp_path / "home", scheduler="tcp://far.away:8786", memory_limit="3GiB")
    return Session(settings, Reporter(Console(file=said, width=400)), open_pool=lambda _: workers)


@pytest.fixture(scope="module")
def configs() -> list[TaskConfig]:
    drawn = draw(SampleParameters(count=8))
    return list({config.fingerprint(): config for config in drawn}.values())[:3]


def test_what_is_stored_answers_the_same_request(
    session: Session, workers: Workers, configs: list[TaskConfig]
) -> None:
    first = run_timing(PARAMETERS, configs, session)
    assert len(workers.asked) == len(configs)
    assert run_timing(PARAMETERS, configs, session) == first
    assert len(workers.asked) == len(configs)
    assert len(run_timing(PARAMETERS.model_copy(update={"again": True}), configs, session)) == len(configs)
    assert len(workers.asked) == 2 * len(configs)


@pytest.mark.parametrize("field", ["hardware", "jax_version", "keirin_version"])
def test_what_was_timed_on_another_machine_or_version_is_timed_again(
    session: Session, workers: Workers, said: io.StringIO, configs: list[TaskConfig], field: str
) -> None:
    session.timings.append([made_up(config, derive(HERE, **{field: "0.9"})) for config in configs])
    timings = run_timing(PARAMETERS, configs, session)
    assert len(workers.asked) == len(configs)
    assert {timing.machine for timing in timings} == {HERE}
    assert f"3 (jax 0.9 there, {HERE.jax_version} here)" in said.getvalue() or field != "jax_version"
    run_timing(PARAMETERS, configs, session)
    assert len(workers.asked) == len(configs)  # now they answer


def test_an_old_record_that_does_not_say_counts_as_equal(
    session: Session, workers: Workers, configs: list[TaskConfig]
) -> None:
    session.timings.append([made_up(config, None) for config in configs])
    run_timing(PARAMETERS, configs, session)
    assert workers.asked == []


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"update": "adam"}, "--update none there, adam here"),
        ({"max_seconds_per_step": 0.2}, "--max-seconds-per-step 0.05 there, 0.2 here"),
    ],
)
def test_what_another_request_gave_is_timed_again(
    session: Session,
    workers: Workers,
    said: io.StringIO,
    configs: list[TaskConfig],
    other: dict[str, Any],
    why: str,
) -> None:
    asks_other = PARAMETERS.model_copy(update=other)
    run_timing(PARAMETERS, configs, session)
    timings = run_timing(asks_other, configs, session)
    assert len(workers.asked) == 2 * len(configs)
    assert {timing.update_optimizer for timing in timings} == {other.get("update", "")}
    assert f"3 were timed before, but not like this, and are timed again: 3 ({why})" in said.getvalue()
    run_timing(PARAMETERS, configs, session)
    run_timing(asks_other, configs, session)
    assert len(workers.asked) == 2 * len(configs)  # both are stored


def test_without_an_update_any_timing_does_and_with_one_any_that_is_invalid(
    session: Session, workers: Workers, configs: list[TaskConfig]
) -> None:
    session.timings.append([made_up(configs[0], HERE, update_optimizer="adam")])
    session.timings.append([made_up(configs[1], HERE, valid=False, reason="too slow")])
    assert len(run_timing(PARAMETERS, configs[:2], session)) == 2
    assert len(run_timing(PARAMETERS.model_copy(update={"update": "adam"}), configs[:2], session)) == 2
    assert workers.asked == []


def test_what_kills_its_workers_is_recorded_as_theirs(
    session: Session, workers: Workers, configs: list[TaskConfig]
) -> None:
    workers.deadly = configs[1].canonical_json()
    timings = run_timing(PARAMETERS, configs, session)
    assert [timing.valid for timing in timings] == [True, False, True]
    assert timings[1].machine == HERE
    assert timings[1].load is None  # of this machine it would say nothing about theirs
    assert timings[1].max_seconds_per_step == PARAMETERS.max_seconds_per_step
    assert workers.num_asked_who == 1
    assert run_timing(PARAMETERS, configs, session) == timings


def test_a_configuration_may_take_as_long_as_it_was_given(
    session: Session, workers: Workers, configs: list[TaskConfig]
) -> None:
    run_timing(PARAMETERS.model_copy(update={"max_seconds": 7200.0}), configs, session)
    assert workers.timeouts[0] is not None
    assert workers.timeouts[0] > 7200.0


def test_equal_configurations_are_timed_and_counted_once(
    session: Session, workers: Workers, said: io.StringIO, configs: list[TaskConfig]
) -> None:
    timings = run_timing(PARAMETERS, [*configs, configs[1]], session)
    assert [timing.config_fingerprint for timing in timings] == [config.fingerprint() for config in configs]
    assert "1 of 4 configurations equal another one" in said.getvalue()


@pytest.mark.parametrize(("hardware", "max_bytes"), [(HERE.hardware, 3 * 2**30), ("gpu:H200", None)])
def test_a_program_may_need_what_a_worker_on_processors_has(
    session: Session, workers: Workers, configs: list[TaskConfig], hardware: str, max_bytes: int | None
) -> None:
    workers.machine = derive(HERE, hardware=hardware)
    run_timing(PARAMETERS, configs[:1], session)
    assert workers.asked[0][1]["max_bytes"] == max_bytes


@pytest.mark.parametrize(
    ("hardware", "stand"), [("cpu:x:1 thread", True), ("cpu:x:4 threads", False), ("gpu:H200", False)]
)
def test_only_on_one_thread_of_a_processor_a_disturbed_timing_stands(
    configs: list[TaskConfig], hardware: str, stand: bool
) -> None:
    machine = derive(HERE, hardware=hardware)
    timing = StepTiming.model_validate(made_up(configs[0], machine, cpu_share=0.5))
    (line,) = [line for line in summary([timing, timing]) if line.startswith("2 had their core")]
    assert line.endswith("so they stand") == stand
    assert ("`--again`" in line) != stand


def test_updates_that_failed_are_said(configs: list[TaskConfig]) -> None:
    timing = StepTiming.model_validate(
        made_up(configs[0], HERE, update_reason="time limit: not done after 60 s")
    )
    assert "update not timed, time limit: 1" in summary([timing])
