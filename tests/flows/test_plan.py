"""Which phase run is meant: what makes another run of it."""

from __future__ import annotations

import pytest
from rich.console import Console

from curriculum.phase import Phase
from curriculum.phases import CURRICULA
from curriculum.training_domain import domain_of
from flows.parameters import TrainParameters
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.training.plan import plan_phase
from lopt.config import derive
from storage.workspace import Workspace
from task_generator.evaluation_set import EVALUATION_SETS
from task_generator.known_distributions import DISTRIBUTIONS

FOUR = DISTRIBUTIONS["four_small"]


@pytest.fixture
def session(workspace: Workspace) -> Session:
    return Session(RuntimeSettings(home=workspace.root), Reporter(Console(quiet=True)))


def test_a_distribution_that_is_redefined_makes_another_run(
    session: Session, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks were drawn and kept for the first; the second's are of the distribution that it says it is of."""
    phase = derive(tiny[0], distribution="four_small", num_static_configs=4)
    monkeypatch.setitem(CURRICULA, "demo", (phase,))
    first, again = (plan_phase(TrainParameters(), session) for _ in range(2))
    assert first.run_name == again.run_name
    monkeypatch.setitem(DISTRIBUTIONS, "four_small", derive(FOUR, tasks=FOUR.tasks[:1]))
    second = plan_phase(TrainParameters(), session)
    assert second.run_name != first.run_name
    assert set(first.tasks) == set(FOUR.tasks)
    assert set(second.tasks) == set(FOUR.tasks[:1])
    assert second.trained_on == (domain_of(phase),) != first.trained_on


def test_so_does_a_held_out_set_that_has_other_tasks(
    session: Session, tiny: tuple[Phase, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = derive(tiny[0], held_out={"evaluation_sets": ("indistribution_demo",)})
    monkeypatch.setitem(CURRICULA, "demo", (phase,))
    first = plan_phase(TrainParameters(), session)
    monkeypatch.setitem(EVALUATION_SETS, "indistribution_demo", EVALUATION_SETS["heldout_demo"])
    assert plan_phase(TrainParameters(), session).run_name != first.run_name
