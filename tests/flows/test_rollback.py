"""Rollback: to whom one can go back, what is recorded of it, and what starts from the champion afterwards."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from promotions import MODEL, champion, events, promote, record, steady, three_versions, uri

from curriculum.phase import Phase
from curriculum.phases import CURRICULA
from flows.artifacts import ArtifactSpec
from flows.evaluation.records import find_evaluation, record_evaluation
from flows.optimizer_reference import resolve_optimizer
from flows.parameters import RollbackParameters, TrainParameters
from flows.promotion.decision import rolled_back_reason
from flows.record import recall
from flows.rollback import run_rollback
from flows.session import Session
from flows.training.plan import plan_phase
from lopt.config import derive
from storage.mlflow_client import tracking_client
from storage.workspace import Workspace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Prefect's client, when a flow fails
]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return three_versions(workspace)


def test_rollback_goes_back_one_by_one(session: Session) -> None:
    for version in (1, 3, 2):
        promote(session, version)
    event = run_rollback(RollbackParameters(reason="diverges on our models"), session)
    assert (event.from_version, event.to_version, champion(session)) == (2, 3, 3)
    assert run_rollback(RollbackParameters(), session).to_version == 1
    with pytest.raises(LookupError, match="version 1 is the first champion"):
        run_rollback(RollbackParameters(), session)
    assert run_rollback(RollbackParameters(to=2), session).from_version == 1
    with pytest.raises(LookupError, match="champion already"):
        run_rollback(RollbackParameters(to=2), session)
    assert [event.kind for event in events(session)] == ["promoted"] * 3 + ["rolled back"] * 3
    assert events(session)[3].reason == "diverges on our models"
    run = tracking_client(session.workspace).get_run(events(session)[3].run_id)
    assert run.data.tags["keirin.champion"] == "2 -> 3"


def test_who_was_rolled_back_needs_a_new_evaluation(session: Session) -> None:
    promote(session, 1)
    promote(session, 2)
    run_rollback(RollbackParameters(reason="diverges"), session)
    assert not promote(session, 2)
    assert "rolled back (diverges)" in events(session)[-1].checks[0].reason
    assert recall(session.workspace, "promotion")["report"]["promoted"] is False
    for ref in (uri(2), "champion"):
        record(session, ref, steady(2.0 if ref != "champion" else 1.0), tasks="others")
    assert promote(session, 2)
    run_rollback(RollbackParameters(), session)
    run_rollback(RollbackParameters(to=2), session)  # gone back to it: forgiven
    run_rollback(RollbackParameters(to=1), session)
    assert not promote(session, 2)


def test_what_was_rolled_back_twice_is_barred_on_both_evaluations(session: Session) -> None:
    """Promoted on other tasks meanwhile, and rolled back from there, too: the first ones show nothing new."""
    for version in (1, 2):
        promote(session, version)
    first = find_evaluation(session.workspace, resolve_optimizer(uri(2), session).fingerprint)
    assert first is not None
    run_rollback(RollbackParameters(reason="diverges"), session)
    for ref in (uri(2), "champion"):
        record(session, ref, steady(2.0 if ref != "champion" else 1.0), tasks="others")
    assert promote(session, 2)
    assert rolled_back_reason(events(session), first) is not None  # on the first ones it is barred still
    run_rollback(RollbackParameters(reason="again"), session)
    barred = rolled_back_reason(events(session), first)
    assert barred is not None
    assert "rolled back (again)" in barred
    run_rollback(RollbackParameters(to=2), session)
    assert rolled_back_reason(events(session), first) is None


def test_the_clock_makes_no_new_evaluation_of_it(session: Session) -> None:
    """`evaluate --no-clock`, or `evaluate` after `follow`: another fingerprint, the same tasks and settings."""
    for version in (1, 2):
        promote(session, version)
    run_rollback(RollbackParameters(reason="diverges"), session)
    fingerprint = resolve_optimizer(uri(2), session).fingerprint
    before = find_evaluation(session.workspace, fingerprint)
    spec = ArtifactSpec("evaluation", 1, {"tasks": "tasks", "clock": False}, (fingerprint,))
    again = record_evaluation(session.workspace, fingerprint, spec, steady(2.0).model_dump(mode="json"))
    assert before is not None
    assert again.settings == before.settings
    assert again.fingerprint != before.fingerprint
    assert not promote(session, 2)
    assert (
        "promoted on these tasks and settings, and has been rolled back (diverges)"
        in events(session)[-1].checks[0].reason
    )


def test_an_entry_without_settings_bars_by_its_evaluation(session: Session) -> None:
    """As earlier versions wrote them."""
    promote(session, 1)
    promote(session, 2)
    run_rollback(RollbackParameters(), session)
    evaluation = find_evaluation(session.workspace, resolve_optimizer(uri(2), session).fingerprint)
    assert evaluation is not None
    written = [event.model_copy(update={"settings": ""}) for event in events(session)]
    assert rolled_back_reason(written, evaluation) is not None
    assert rolled_back_reason(written, replace(evaluation, fingerprint="another")) is None


def test_rollback_to_what_is_damaged_leaves_the_champion(session: Session) -> None:
    for version in (1, 3, 2):
        promote(session, version)
    (session.registry.resolve(uri(3)) / "float32" / "0").write_bytes(b"")
    with pytest.raises(ValueError, match=r"version 3 is damaged.*stays version 2. Undamaged: 1; choose one"):
        run_rollback(RollbackParameters(), session)
    assert champion(session) == 2
    assert len(events(session)) == 3
    assert run_rollback(RollbackParameters(to=1), session).to_version == 1


def test_only_a_former_champion_can_be_gone_back_to(session: Session) -> None:
    with pytest.raises(LookupError, match="no champion"):
        run_rollback(RollbackParameters(), session)
    promote(session, 1)
    promote(session, 3)
    with pytest.raises(
        LookupError, match=r"version 2 was never champion; those that were: 1\..*keirin promote"
    ):
        run_rollback(RollbackParameters(to=2), session)


def test_a_champion_from_before_the_record_has_the_alias_to_go_back_to(session: Session) -> None:
    session.registry.promote(MODEL, 1)
    session.registry.promote(MODEL, 3)
    assert run_rollback(RollbackParameters(), session).to_version == 1


def test_a_phase_can_start_from_the_champion(
    session: Session, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CURRICULA, "demo", (derive(tiny[0], name="next_one", start_from="champion"),))
    for version in (1, 2):
        promote(session, version)
        plan = plan_phase(TrainParameters(seed=3), session)
        assert plan.started_from == f"champion (version {version})"
        assert plan.seed == 3
        assert plan.initial_seed == 0  # of the first phase's theta, whatever draws this one's tasks
        jax.tree.map(
            np.testing.assert_array_equal, plan.theta, resolve_optimizer(uri(version), session).theta
        )
    run_rollback(RollbackParameters(), session)
    assert plan_phase(TrainParameters(), session).started_from == "champion (version 1)"
