"""Following a training run: what is evaluated, what is computed, what is kept, and what may go wrong meanwhile."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from made_up_evaluations import made_up_curves, made_up_evaluation
from rich.console import Console

import flows.evaluation.curves
import flows.following.checkpoints
from flows.artifacts import ArtifactSpec
from flows.evaluate import run_evaluation
from flows.evaluation.records import find_evaluation, record_evaluation
from flows.follow import NICENESS, run_following
from flows.following.followed_run import find_run, held, is_complete
from flows.optimizer_reference import initial_theta, resolve_optimizer
from flows.parameters import EvaluateParameters, FollowParameters
from flows.progress import Reporter
from flows.promotion.history import read_history
from flows.report_data import collect
from flows.reporting import TrackReport, render_html
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.architectures import ARCHITECTURES
from lopt.registry import UnknownNameError
from storage.checkpoints import CheckpointInfo
from storage.mlflow_client import query, tracking_client
from storage.workspace import Workspace
from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

RUN = "first-0123abcd"
SIZES = {"evaluation_sets": ("heldout_demo",), "horizon": 10, "num_seeds": 1, "normalizer_factor": 1}
ONCE = FollowParameters(run=RUN, once=True, **SIZES)
BASELINES = 2
"""Units of the normaliser and of AdamW, on the one task."""
Keirin = Callable[..., Any]
made_up_units = pytest.mark.usefixtures("made_up")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture(autouse=True)
def one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 4, "num_layers": 1, "image_size": 4, "batch_size": 8, "dataset": "digits"}
    family = FAMILIES["mlp"].model_validate({**sizes, "activation": "relu", "initializer": "normal"})
    task = EvaluationTask(name="wide", config=TaskConfig(family=family))
    monkeypatch.setitem(EVALUATION_SETS, "heldout_demo", (task,))


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.evaluation.curves, "curve_unit", made_up_curves)


@pytest.fixture
def session(workspace: Workspace, pool: Any) -> Session:
    console = Console(record=True, width=200, file=io.StringIO())
    return Session(RuntimeSettings(home=workspace.root), Reporter(console), open_pool=lambda _: pool)


def save(session: Session, step: int, *, moved: float) -> CheckpointInfo:
    """Saves a checkpoint of the run, with a theta that is so far from the initialisation."""
    optimizer = ARCHITECTURES["pacer"]()
    theta = initial_theta(optimizer.canonical_json(), seed=0)
    trees = {"theta": jax.tree.map(lambda leaf: leaf + moved, theta), "step": {"n": np.full(2, step)}}
    metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0, "run_id": "its-run"}
    return session.checkpoints.save(RUN, step, trees, metadata)


def finish(session: Session) -> None:
    """Marks the run as complete, as its training does."""
    folder = session.artifacts.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"phase-{RUN.rpartition('-')[2]}01234567.json").write_text("{}")


def steps(report: TrackReport | None) -> list[int]:
    return [] if report is None else [point.outer_step for point in report.points]


def text(session: Session) -> str:
    return session.reporter.console.export_text()


@made_up_units
def test_the_whole_story(session: Session, pool: Any) -> None:
    for step, moved in ((10, 0.01), (20, 0.02), (30, 0.02)):  # validation found nothing better after step 20
        save(session, step, moved=moved)
    report = run_following(ONCE, session)
    assert steps(report) == [10, 20, 30]
    # The newest first: baselines, initialisation, candidate. Then one with the same weights, then another.
    assert pool.num_units == BASELINES + 2 + 0 + 1
    assert report is not None
    assert report.points[1].percentiles == report.points[2].percentiles
    assert (report.num_tasks, report.num_seeds, report.horizon) == (1, 1, 10)
    table = text(session)
    assert table.index("outer step") < table.index("30") < table.index("10 ", table.index("30"))

    again = run_following(ONCE, session)
    assert again is None or again == report  # nothing was waiting
    assert pool.num_units == BASELINES + 3
    database = session.workspace.mlflow_database
    (run,) = query(database, "SELECT run_uuid, status FROM runs WHERE name LIKE 'follow%'")
    assert run[1] == "FINISHED"
    client = tracking_client(session.workspace)
    history = client.get_metric_history(run[0], "speedup_p10")
    assert {m.step: m.value for m in history} == {
        p.outer_step: dict(p.percentiles)[10] for p in report.points
    }
    assert client.get_run(run[0]).data.tags["mlflow.parentRunId"] == "its-run"
    assert list(session.workspace.reports.glob("track-*.png"))
    data = collect(session.workspace)
    assert data.tracks == (report,)
    page = render_html(data)
    assert f"Evaluation during {RUN}" in page
    assert "1 task, 1 seed, 10 inner steps; 3 checkpoints" in page

    (path,) = (session.workspace.root / "tracks").glob("*.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "version": document["version"] - 1}))
    assert collect(session.workspace).tracks == ()  # other numbers under the same names


@made_up_units
def test_new_checkpoints_are_seen_until_the_run_is_complete(session: Session) -> None:
    save(session, 10, moved=0.01)
    session.checkpoints.root.joinpath(RUN, ".tmp-host-1-0123abcd").mkdir()  # one that is being written
    first = threading.Event()
    line = session.reporter.line

    def listen(message: str, *, whole: bool = False) -> None:
        line(message, whole=whole)
        if message.split()[0] == "10":
            first.set()

    session.reporter.line = listen

    def train() -> None:
        assert first.wait(120)
        save(session, 20, moved=0.02)
        finish(session)

    training = threading.Thread(target=train)
    training.start()
    report = run_following(FollowParameters(run="first", poll_seconds=0.05, **SIZES), session)
    training.join()
    assert steps(report) == [10, 20]
    assert "isn't running now" in text(session)


@made_up_units
def test_what_is_pruned_or_damaged_has_no_point(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    infos = [save(session, step, moved=0.01) for step in (10, 20, 30)]
    (infos[1].path / "float32" / "0").write_bytes(b"")
    session.checkpoints.discard(infos[2])
    monkeypatch.setattr(session.checkpoints, "list", lambda _: infos)  # as it was a moment ago
    assert steps(run_following(ONCE, session)) == [10]
    told = text(session)
    assert "outer step 30: pruned before it was evaluated" in told
    assert "step 20 is damaged" in told
    assert not list(infos[0].path.parent.glob("*.pin"))


@made_up_units
def test_training_does_not_prune_what_is_being_evaluated(session: Session, pool: Any) -> None:
    session.checkpoints.keep = 1
    save(session, 10, moved=0.01)
    run_unordered = pool.imap_unordered

    def prune(*arguments: Any, **options: Any) -> Iterator[Any]:
        if len(session.checkpoints.list(RUN)) < 2:
            save(session, 20, moved=0.01)
            assert [info.outer_step for info in session.checkpoints.list(RUN)] == [10, 20]
        return run_unordered(*arguments, **options)

    pool.imap_unordered = prune
    assert steps(run_following(ONCE, session)) == [10, 20]
    session.checkpoints.prune(RUN)
    assert [info.outer_step for info in session.checkpoints.list(RUN)] == [20]


def test_two_followers_of_a_run_hold_its_checkpoint_apart(session: Session) -> None:
    store = session.checkpoints
    store.keep = 1
    info = save(session, 10, moved=0.01)
    with held(info, store, "0123456789abcdef"):
        with held(info, store, "fedcba9876543210"):
            pass
        save(session, 20, moved=0.02)
        assert [each.outer_step for each in store.list(RUN)] == [10, 20]
    store.prune(RUN)
    assert [each.outer_step for each in store.list(RUN)] == [20]


@made_up_units
def test_an_interrupted_one_goes_on_and_computes_nothing_twice(session: Session, pool: Any) -> None:
    save(session, 10, moved=0.01)
    save(session, 20, moved=0.02)
    run_unordered, left = pool.imap_unordered, [BASELINES + 2 + 1]

    def interrupted(fn: Any, payloads: Sequence[Any], **options: Any) -> Iterator[Any]:
        for result in run_unordered(fn, payloads[: left[0]], **options):
            left[0] -= 1
            yield result
        if left[0] == 0:
            raise KeyboardInterrupt

    for allowed in (3, 1):
        left[0] = allowed
        pool.imap_unordered = interrupted
        with pytest.raises(KeyboardInterrupt):
            run_following(ONCE, session)
    pool.imap_unordered = run_unordered
    assert pool.num_units == BASELINES + 2
    assert steps(run_following(ONCE, session)) == [10, 20]
    assert pool.num_units == BASELINES + 3


@made_up_units
def test_what_passes_the_gate_is_promoted(session: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate.json"
    gate.write_text('{"name": "any", "conditions": [{"condition": "champion_ratio", "min_ratio": 1e-9}]}')
    for step, moved in ((10, 0.01), (20, 0.02), (30, 0.02)):
        save(session, step, moved=moved)
    report = run_following(ONCE.model_copy(update={"promote": str(gate)}), session)
    assert report is not None
    # 30 first; 20 has the champion's weights; then 10, which is compared with the champion.
    assert [(p.outer_step, p.decision) for p in report.points] == [(s, "promoted") for s in (10, 20, 30)]
    events = [numbered.event for numbered in read_history(session.workspace)]
    assert [(event.version, event.from_version) for event in events] == [(1, None), (2, 1)]
    assert events[1].champion_evaluation == events[0].evaluation
    champion = resolve_optimizer("champion", session)
    assert (
        champion.fingerprint
        == resolve_optimizer(str(session.checkpoints.info(RUN, 10).path), session).fingerprint
    )
    assert "n = 1 task × 1 seed" in events[1].checks[0].reason


@made_up_units
@pytest.mark.parametrize("known", [False, True], ids=["never evaluated", "evaluated on other tasks"])
def test_a_champion_that_comes_in_between_is_evaluated_and_the_gate_asked_again(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Another promotes after the champion was looked at, before this follower has the lock."""
    gate = tmp_path / "gate.json"
    gate.write_text('{"name": "any", "conditions": [{"condition": "champion_ratio", "min_ratio": 1e-9}]}')
    optimizer = ARCHITECTURES["pacer"]()
    theta = initial_theta(optimizer.canonical_json(), seed=1)
    metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 1}
    info = session.checkpoints.save("other", 1, {"theta": theta}, metadata)
    other = session.registry.register("keirin", info, session.tracker.start_run("other").run_id)
    fingerprint = resolve_optimizer("models:/keirin/1", session).fingerprint
    if known:
        summary = made_up_evaluation([[1.0]] * 2).model_dump(mode="json")
        record_evaluation(session.workspace, fingerprint, ArtifactSpec("evaluation", 1), summary)
    consider = flows.following.checkpoints.consider

    def late(*arguments: Any, **options: Any) -> Any:
        if "champion" not in session.registry.aliases():
            session.registry.promote("keirin", other)
        return consider(*arguments, **options)

    monkeypatch.setattr(flows.following.checkpoints, "consider", late)
    save(session, 10, moved=0.01)
    report = run_following(ONCE.model_copy(update={"promote": str(gate)}), session)
    assert report is not None
    assert [(point.outer_step, point.decision) for point in report.points] == [(10, "promoted")]
    (event,) = [numbered.event for numbered in read_history(session.workspace)]
    assert (event.from_version, event.version) == (other, 2)
    found = find_evaluation(session.workspace, fingerprint, settings=event.settings)
    assert found is not None
    assert event.champion_evaluation == found.fingerprint
    assert session.registry.versions() == [other, 2]  # registered once


@made_up_units
def test_what_does_not_is_not_even_registered(session: Session) -> None:
    save(session, 10, moved=0.01)
    report = run_following(ONCE.model_copy(update={"promote": "strict"}), session)
    assert report is not None
    assert [point.decision for point in report.points] == ["refused"]
    assert session.registry.versions() == []
    (tags,) = query(
        session.workspace.mlflow_database, "SELECT value FROM tags WHERE key = ?", "keirin.decision.10"
    )
    assert tags[0].startswith("refused: evaluated with n = 1 task × 1 seed")


def test_its_evaluation_is_that_of_evaluate(
    session: Session, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed in parts, the initialisation apart, and with the real units."""
    path = str(save(session, 10, moved=0.01).path)
    run_following(ONCE, session)
    followed = find_evaluation(session.workspace, resolve_optimizer(path, session).fingerprint)
    assert pool.num_units == BASELINES + 2
    monkeypatch.setattr("flows.evaluate.remember", lambda *_: None)  # as if another's were remembered last
    summary, data = run_evaluation(EvaluateParameters(optimizer=path, clock=False, **SIZES), session)
    assert data.evaluation is not None
    assert pool.num_units == BASELINES + 2
    assert followed is not None
    assert repr(summary) == repr(followed.summary)  # a NaN is not equal to itself


def test_the_run_is_found_by_the_start_of_its_name(session: Session) -> None:
    with pytest.raises(UnknownNameError, match="nothing to follow"):
        find_run("", session)
    save(session, 10, moved=0.01)
    assert find_run("fir", session) == find_run(RUN, session) == RUN
    with pytest.raises(UnknownNameError, match=r"no run is running: name the one to follow\. Known: 'first"):
        find_run("", session)
    with pytest.raises(UnknownNameError, match=r"unknown training run 'frist'; known: 'first-0123abcd'\."):
        find_run("frist", session)
    assert not is_complete(RUN, session)
    finish(session)
    assert is_complete(RUN, session)


@made_up_units
def test_the_command_has_workers_of_its_own(
    keirin: Keirin, session: Session, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.session

    opened: list[RuntimeSettings] = []
    monkeypatch.setattr(flows.session, "_open_dask_pool", lambda settings: opened.append(settings) or pool)
    monkeypatch.setenv("KEIRIN_SCHEDULER", "tcp://127.0.0.1:1")  # the training's
    save(session, 10, moved=0.01)
    options = ("--once", "--evaluation-set", "heldout_demo", "--horizon", "10", "--num-seeds", "1")
    answer = keirin("follow", "first", *options, "--workers", "3")
    assert answer.code == 0, answer.err
    assert "outer step" in answer.out
    (settings,) = opened
    assert (settings.scheduler, settings.num_workers, settings.niceness) == (None, 3, NICENESS)
    assert keirin("follow", "frist", "--once").error.startswith("unknown training run 'frist'")
