"""Timing on real worker processes: a worker that dies is replaced, a configuration that kills them is recorded."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from rich.console import Console

import flows.time_tasks
from flows.parameters import TimeParameters
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.workers.environment import worker_environment
from runtime_model.machine import this_machine
from task_generator.task_config import TaskConfig, parse_task_config

pytestmark = pytest.mark.integration
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import a test module


def quadratic(num_dims: int) -> TaskConfig:
    return parse_task_config({"family": {"family": "quadratic", "dimension": num_dims}})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    settings = RuntimeSettings(home=tmp_path / "home", num_workers=2, memory_limit="2GiB")
    # As the command does: what the workers' machine is called is asked of this process.
    monkeypatch.setenv("NPROC", worker_environment(settings)["NPROC"])
    this_machine.cache_clear()
    session = Session(settings, Reporter(Console(quiet=True)))
    yield session
    session.close()
    this_machine.cache_clear()


@pytest.mark.slow
def test_workers_that_are_killed_while_they_time(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kills its worker the first time only, one every time: the collection goes on and both are on record."""
    configs = [quadratic(num_dims) for num_dims in (2, 3, 4, 5)]
    once, always = configs[1].canonical_json(), configs[2].canonical_json()
    marker = str(tmp_path / "died")

    def deadly_unit(config_json: str, settings: Any, max_seconds: float, max_bytes: int) -> Any:
        from flows.workers.units import time_unit  # in the worker

        if config_json == always or (config_json == once and not os.path.exists(marker)):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return time_unit(config_json, settings, max_seconds, max_bytes)

    monkeypatch.setattr(flows.time_tasks, "time_unit", deadly_unit)
    parameters = TimeParameters(repeats=1, update="none")
    timings = flows.time_tasks.run_timing(parameters, configs, session)
    assert [timing.valid for timing in timings] == [True, True, False, True]
    assert timings[2].reason.startswith("killed: the worker died: work unit ")
    again = flows.time_tasks.run_timing(parameters, configs, session)  # all of it was stored
    assert again == timings
