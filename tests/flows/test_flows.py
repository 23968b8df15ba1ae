"""Every flow under Prefect's test harness, one after the other on tiny sizes: what they store, show and skip."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import flows.fit_runtime_model
import flows.run_times.models
from curriculum.phase import Phase
from curriculum.phases import CURRICULA
from flows.parameters import (
    EvaluateParameters,
    FitParameters,
    PipelineParameters,
    PromoteParameters,
    ReportParameters,
    SampleParameters,
    TimeParameters,
    TrainParameters,
)
from flows.progress import Reporter
from flows.record import recall
from flows.sample_tasks import draw
from flows.session import Session, use_session
from flows.settings import RuntimeSettings
from lopt.config import derive
from runtime_model.fitting import fit
from runtime_model.rejection import ProblemSizeThresholds
from runtime_model.timing import StepTiming
from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

COUNT, SIZES = 12, {"horizon": 10, "num_seeds": 1, "normalizer_factor": 1}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@dataclass
class Story:
    """A workspace in which every step was run once, in order."""

    home: Path
    open: Callable[[], Session]
    results: dict[str, Any] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)


def evaluation_task(name: str, batch_size: int) -> EvaluationTask:
    family = FAMILIES["mlp"].model_validate(
        {
            "hidden_size": 4,
            "num_layers": 1,
            "image_size": 4,
            "batch_size": batch_size,
            "dataset": "digits",
            "activation": "relu",
            "initializer": "normal",
        }
    )
    return EvaluationTask(name=name, config=TaskConfig(family=family))


def prepare_timings(session: Session) -> None:
    """Stores made-up timings of all but the two cheapest configurations, so that those two are measured."""
    configs = sorted(
        draw(SampleParameters(count=COUNT)), key=lambda c: c.approximate_cost()["flops_per_step"]
    )
    for config in configs[2:]:
        record = {
            "config_fingerprint": config.fingerprint(),
            "config_json": config.canonical_json(),
            "family": config.family.family,
            "seconds_per_step": 2e-5 + config.approximate_cost()["flops_per_step"] / 1e10,
            "compile_seconds": 1.0,
            "valid": True,
            "num_steps": 100,
        }
        session.timings.append([record])


STEPS: dict[str, tuple[str, Any]] = {
    "sample": ("flows.sample_tasks.sample_tasks", SampleParameters(count=COUNT)),
    "time": ("flows.time_tasks.time_tasks", TimeParameters(count=COUNT, repeats=1, update="none")),
    "fit": ("flows.fit_runtime_model.fit_runtime_model", FitParameters()),
    "train first": ("flows.meta_train_phase.meta_train_phase", TrainParameters(outer_steps=2)),
    "train second": ("flows.meta_train_phase.meta_train_phase", TrainParameters(outer_steps=2)),
    "evaluate": ("flows.evaluate.evaluate", EvaluateParameters(**SIZES)),
    "promote": ("flows.promote.promote", PromoteParameters()),
    "report": ("flows.report.report", ReportParameters()),
}


def run_step(name: str, parameters: Any = None) -> Any:
    import importlib

    entrypoint, of_the_story = STEPS[name]
    module, function = entrypoint.rsplit(".", 1)
    return getattr(importlib.import_module(module), function)(parameters or of_the_story)


@pytest.fixture(scope="module")
def story(
    tmp_path_factory: pytest.TempPathFactory,
    prefect_server: None,
    tiny_curriculum: tuple[Phase, ...],
    counting_pool: type,
    few_reference_timings: tuple[StepTiming, ...],
) -> Iterator[Story]:
    home = tmp_path_factory.mktemp("home")
    reachable = ProblemSizeThresholds(seconds=(1e-2,), probabilities=(1.0,))
    phases = tuple(
        derive(phase, problem_size=reachable, min_valid_probability=0.0) for phase in tiny_curriculum
    )

    def open_session() -> Session:
        pool = counting_pool()
        reporter = Reporter(Console(quiet=True))
        return Session(RuntimeSettings(home=home), reporter, open_pool=lambda _: pool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CURRICULA, "demo", phases)
        patch.setitem(EVALUATION_SETS, "heldout_demo", (evaluation_task("wide", 8),))
        patch.setitem(EVALUATION_SETS, "indistribution_demo", (evaluation_task("like", 4),))
        quick = functools.partial(fit, num_folds=2)
        patch.setattr(flows.fit_runtime_model, "fit", quick)
        patch.setattr(flows.run_times.models, "reference_timings", lambda: few_reference_timings)
        story = Story(home, open_session)
        prepare_timings(open_session())
        for name in STEPS:
            with use_session(open_session()) as session:
                story.results[name] = run_step(name)
                story.units[name] = session.pool.num_units
        yield story


def test_the_sample_is_stored_and_returned(story: Story) -> None:
    expected = [config.fingerprint() for config in draw(SampleParameters(count=COUNT))]
    assert story.results["sample"] == expected
    assert story.units["sample"] == 0


def test_only_what_was_not_timed_is_timed(story: Story) -> None:
    assert story.results["time"]["timed"] == COUNT
    assert story.units["time"] == 2


def test_the_fit_says_its_error(story: Story) -> None:
    assert story.results["fit"]["median_relative_error"] > 0


def test_next_is_the_first_phase_that_is_not_complete(story: Story) -> None:
    assert [story.results[f"train {name}"]["phase"] for name in ("first", "second")] == ["first", "second"]
    assert story.results["train first"]["outer_steps"] == 2
    assert story.units["train first"] == 2 + 2  # outer steps, and validations at the start and the end


def test_each_phase_is_promoted_to_where_the_next_starts(story: Story) -> None:
    session = story.open()
    aliases = session.registry.aliases()
    assert (aliases["first"], aliases["second"], aliases["candidate"]) == (1, 2, 2)
    assert recall(session.workspace, "phases")["second"]["report"]["started_from"] == "first (version 1)"


def test_the_tracked_runs_have_metrics_and_versions(story: Story) -> None:
    from storage.mlflow_client import query

    database = story.open().workspace.mlflow_database
    assert query(database, "SELECT name, status FROM runs ORDER BY start_time") == [
        ("fit", "FINISHED"),
        ("first", "FINISHED"),
        ("second", "FINISHED"),
        (f"{'promoted' if story.results['promote'] else 'refused'} 2", "FINISHED"),
    ]
    keys = {key for (key,) in query(database, "SELECT DISTINCT key FROM metrics")}
    assert {"meta_loss", "validation_loss", "gradient_norm", "seconds"} <= keys


def test_the_evaluation_compares_on_both_sets(story: Story) -> None:
    assert set(story.results["evaluate"]) == {"held_out", "in_distribution"}
    # Two tasks, each with Adam, AdamW, the learned optimizer and its initialisation, and what a step of two costs.
    assert story.units["evaluate"] == 10
    report = recall(story.open().workspace, "evaluation")["report"]
    assert {task["name"] for task in report["tasks"]} == {"wide", "like"}
    assert recall(story.open().workspace, "evaluation")["measured"]["machine"]["accelerator"] is None


def test_the_gate_keeps_its_reasons(story: Story) -> None:
    session = story.open()
    decision = recall(session.workspace, "promotion")["report"]
    assert decision["promoted"] is story.results["promote"]
    assert decision["reasons"]
    assert ("champion" in session.registry.aliases()) is story.results["promote"]


def test_the_report_is_one_page_without_a_network(story: Story) -> None:
    page = Path(story.results["report"]).read_text("utf-8")
    assert page.rstrip().endswith("</html>")
    assert 'src="http' not in page
    assert "<link" not in page


@pytest.mark.parametrize("name", [name for name in STEPS if name != "train first"])
def test_a_second_run_computes_nothing_and_says_the_same(story: Story, name: str) -> None:
    with use_session(story.open()) as session:
        before = {info.path for info in session.checkpoints.list()}
        result = run_step(name)
        assert session.pool.num_units == 0
        assert {info.path for info in session.checkpoints.list()} == before
    if name != "report":
        assert repr(result) == repr(story.results[name])  # a NaN is not equal to itself
    assert story.open().registry.versions() == [1, 2]


@pytest.mark.slow
def test_the_pipeline_is_the_steps(story: Story) -> None:
    """What it has done, none of its steps does again. It times and evaluates otherwise than the story's steps."""
    from flows.pipeline import NORMALIZER_FACTOR, REFIT_GROWTH, pipeline

    parameters = PipelineParameters(
        count=COUNT, outer_steps=2, horizon=SIZES["horizon"], num_seeds=SIZES["num_seeds"]
    )
    with use_session(story.open()) as session:
        result = pipeline(parameters)
        # Timings with the defaults; by the model that they make, four units of each phase; the longer Adam, on two
        # tasks, and what a step costs there.
        assert session.pool.num_units == COUNT + 4 + 4 + 2 + 2
    assert set(result) == {"promoted", "report", "held_out", "in_distribution"}
    assert Path(result["report"]).is_file()
    steps = [
        ("time", TimeParameters(count=COUNT)),
        ("fit", FitParameters(min_growth=REFIT_GROWTH)),
        ("train first", TrainParameters(outer_steps=2, phase="first")),
        ("train second", TrainParameters(outer_steps=2, phase="second")),
        ("evaluate", EvaluateParameters(**SIZES | {"normalizer_factor": NORMALIZER_FACTOR})),
    ]
    with use_session(story.open()) as session:
        for name, with_defaults in steps:
            run_step(name, with_defaults)
        assert pipeline(parameters)["held_out"] == result["held_out"]
        assert session.pool.num_units == 0
    stages = recall(story.open().workspace, "stages")
    assert list(stages) == ["evaluate", "fit", "promote", "sample and time", "train first", "train second"]


def test_every_flow_leaves_its_artifacts(story: Story) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
        completed = {run.flow_id for run in client.read_flow_runs() if run.state and run.state.is_completed()}
        names = {flow.name for flow in client.read_flows() if flow.id in completed}
    kinds = {artifact.key: artifact.type for artifact in artifacts}
    expected = {
        "sampled-tasks": "table",
        "timing-progress": "progress",
        "timings": "table",
        "runtime-model": "markdown",
        "runtime-model-plot": "image",
        "phase-tasks": "table",
        "phase-progress": "progress",
        "meta-training-curve": "image",
        "validations": "table",
        "phase-summary": "markdown",
        "evaluation-progress": "progress",
        "evaluation": "table",
        "evaluation-result": "markdown",
        "learning-curves": "image",
        "speedup-cdf": "image",
        "head-to-head": "image",
        "gate": "table",
        "decision": "markdown",
        "result": "markdown",
        "meta-training": "image",
    }
    assert kinds.items() >= expected.items()
    assert {"sample", "time", "fit", "train", "evaluate", "promote", "report"} <= names


def test_a_flow_that_fails_is_failed_in_prefect(story: Story) -> None:
    from prefect.client.orchestration import get_client

    from flows.evaluate import evaluate
    from storage.errors import AliasNotFoundError

    with use_session(story.open()), pytest.raises(AliasNotFoundError, match="Did you mean 'candidate'"):
        evaluate(EvaluateParameters(optimizer="candidat"))
    with get_client(sync_client=True) as client:
        (run,) = [run for run in client.read_flow_runs() if run.name == "candidat"]
    assert run.state is not None
    assert run.state.is_failed()
    assert "Did you mean 'candidate'?" in (run.state.message or "")


def test_the_session_closes_the_workers_that_it_opened(story: Story) -> None:
    with use_session(story.open()) as session:
        pool = session.pool
    session.close()
    assert pool.num_closed == 1
