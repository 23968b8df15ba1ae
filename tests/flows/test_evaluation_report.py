"""What an evaluation says of its tasks."""

from __future__ import annotations

import pytest

from flows.evaluation_report import is_held_out
from task_generator.evaluation_set import EVALUATION_SETS, EvaluationTask


@pytest.mark.parametrize("task", EVALUATION_SETS["heldout_demo"], ids=lambda t: t.name)
def test_what_no_phase_draws_is_held_out(task: EvaluationTask) -> None:
    assert is_held_out(task)  # other distributions, which no phase uses, may well draw it


@pytest.mark.parametrize("task", EVALUATION_SETS["indistribution_demo"], ids=lambda t: t.name)
def test_what_a_phase_draws_is_not(task: EvaluationTask) -> None:
    assert not is_held_out(task)
