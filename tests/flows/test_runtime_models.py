"""Which run-time model is used: refitted when enough came in, warned about when stale, the shipped one at first."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import flows.fit_runtime_model
import flows.run_times.models
from flows.errors import StepIncompleteError
from flows.fit_runtime_model import run_fit
from flows.parameters import FitParameters, SampleParameters, TimeParameters
from flows.progress import Reporter
from flows.run_times.models import load_runtime_model, registered_name
from flows.run_times.stored import newest_machine, of_machine, read_timings
from flows.sample_tasks import draw
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.time_tasks import configs_to_time
from lopt.config import derive
from runtime_model.fitting import fit
from runtime_model.machine import Machine, this_machine
from runtime_model.timing import StepTiming
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def session(
    tmp_path: Path,
    said: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    few_reference_timings: tuple[StepTiming, ...],
) -> Session:
    monkeypatch.setattr(flows.run_times.models, "reference_timings", lambda: few_reference_timings)
    monkeypatch.setattr(flows.run_times.models, "fit", functools.partial(fit, num_folds=2))
    monkeypatch.setattr(flows.fit_runtime_model, "fit", functools.partial(fit, num_folds=2))
    console = Console(file=said, width=400)
    return Session(RuntimeSettings(home=tmp_path / "home"), Reporter(console))


def timing(config: TaskConfig, machine: Machine | None = None, factor: float = 1.0) -> dict[str, Any]:
    return StepTiming(
        config_fingerprint=config.fingerprint(),
        config_json=config.canonical_json(),
        family=config.family.family,
        seconds_per_step=factor * (2e-5 + config.approximate_cost()["flops_per_step"] / 1e10),
        compile_seconds=1.0,
        valid=True,
        num_steps=10,
        machine=machine or this_machine(),
    ).model_dump(mode="json")


def store(session: Session, count: int, machine: Machine | None = None) -> None:
    session.timings.append([timing(config, machine) for config in draw(SampleParameters(count=count))])


def test_without_timings_the_shipped_ones_serve_and_the_command_is_named(
    session: Session, said: io.StringIO
) -> None:
    fingerprint, model = load_runtime_model(session)
    assert "no timings of this machine" in said.getvalue()
    assert "`keirin time --family all --count 20`, then `keirin fit`" in said.getvalue()
    assert (model.predict(draw(SampleParameters(count=5))).seconds > 0).all()
    assert load_runtime_model(session)[0] == fingerprint
    assert said.getvalue().count("fitting a run-time model") == 1  # the second time it is read
    with pytest.raises(StepIncompleteError, match="Run `keirin time` first"):
        run_fit(FitParameters(), session)


def test_a_fit_is_kept_until_enough_timings_came_in(session: Session, said: io.StringIO) -> None:
    store(session, 20)
    first, report = run_fit(FitParameters(), session)
    assert report.num_timings == 20
    assert run_fit(FitParameters(), session)[0] == first
    assert "fitted before, to the same timings" in said.getvalue()
    store(session, 22)
    assert run_fit(FitParameters(min_growth=0.25), session)[0] == first
    assert "2 timings since the last fit are too few" in said.getvalue()
    store(session, 30)
    second, report = run_fit(FitParameters(min_growth=0.25), session)
    assert second != first
    assert report.num_timings == 30
    name = registered_name(this_machine())
    assert session.registry.aliases(name) == {"current": 2}
    assert load_runtime_model(session)[0] == second
    assert "stale" not in said.getvalue()


def test_timings_of_other_machines_are_left_out_and_a_stale_model_is_said_to_be(
    session: Session, said: io.StringIO
) -> None:
    older = derive(this_machine(), jax_version="0.9.0")
    store(session, 12, older)
    run_fit(FitParameters(), session)
    load_runtime_model(session)
    assert (
        f"the run-time model is stale: jax 0.9.0 there, {this_machine().jax_version} here" in said.getvalue()
    )
    store(session, 15)
    _, report = run_fit(FitParameters(), session)
    assert report.num_timings == 15
    assert "12 timings are of other hardware or versions and left out" in said.getvalue()


def test_the_first_timings_of_another_machine_are_enough_to_fit_again(session: Session) -> None:
    """However many the last fit had: those were of another machine."""
    store(session, 12, derive(this_machine(), jax_version="0.9.0"))
    run_fit(FitParameters(), session)
    store(session, 5)
    _, report = run_fit(FitParameters(min_growth=0.25), session)
    assert report.num_timings == 5


def test_the_model_of_the_workers_hardware_serves_whichever_was_fitted_last(
    session: Session, said: io.StringIO
) -> None:
    store(session, 12)
    here, _ = run_fit(FitParameters(), session)
    store(session, 14, derive(this_machine(), hardware="gpu:H100"))
    there, _ = run_fit(FitParameters(), session)
    assert here != there
    assert load_runtime_model(session)[0] == here
    assert "stale" not in said.getvalue()


def test_where_the_alias_points_in_mlflow_counts(session: Session) -> None:
    fits = []
    for count in (12, 16):
        store(session, count)
        fits.append(run_fit(FitParameters(), session)[0])
    assert load_runtime_model(session)[0] == fits[1]
    session.registry.set_alias(registered_name(this_machine()), "current", 1)
    assert load_runtime_model(session)[0] == fits[0]
    run_fit(FitParameters(), session)  # fitted before, to the same timings: it is the current one again
    assert load_runtime_model(session)[0] == fits[1]


def test_the_latest_timing_of_each_configuration_and_machine_counts(session: Session) -> None:
    config = draw(SampleParameters(count=1))[0]
    other = derive(this_machine(), hardware="gpu:H100")
    session.timings.append([timing(config), timing(config, factor=2.0), timing(config, other)])
    session.timings.append([{"config_fingerprint": "of an older format"}])
    stored = read_timings(session)
    assert len(stored) == 2
    assert newest_machine(stored) == other
    (here,) = of_machine(stored, this_machine())
    assert here.seconds_per_step == 2 * timing(config)["seconds_per_step"]


def test_families_are_drawn_in_turns_and_more_means_more(session: Session) -> None:
    both = configs_to_time(TimeParameters(family="all", count=2), session)
    assert [config.family.family for config in both] == 2 * list(FAMILIES)
    few, many = (configs_to_time(TimeParameters(family="mlp", count=n), session) for n in (3, 5))
    assert many[:3] == few
    assert {config.family.family for config in many} == {"mlp"}
