"""What is said of numbers on tasks that the weights were chosen on."""

from __future__ import annotations

from curriculum.selection import Selection, selection_remark

TASKS = ("a", "b", "c")


def test_tasks_that_decided_nothing_are_not_mentioned() -> None:
    assert selection_remark(TASKS, []) is None
    assert selection_remark(TASKS, [Selection(3, "default", True, ("d", "e"))]) is None


def test_tasks_that_decided_are_named_in_the_order_of_the_report() -> None:
    remark = selection_remark(TASKS, [Selection(3, "default", True, ("d", "c", "a"))])
    assert remark is not None
    assert remark.startswith("2 of 3 tasks decided the promotion of version 3 (gate 'default')")
    assert remark.endswith("a, c.")


def test_so_are_those_that_decided_on_where_the_training_started() -> None:
    own, start = Selection(3, "strict", True, ("b",)), Selection(1, "default", False, ("a",))
    remark = selection_remark(TASKS, [start, own])
    assert remark is not None
    assert "version 1 (gate 'default', where its training started) and of version 3 (gate 'strict')" in remark
    assert remark.endswith("a, b.")


def test_what_cannot_be_known_is_said() -> None:
    remark = selection_remark(TASKS, [Selection(2, "default", True, None)])
    assert remark is not None
    assert remark.startswith("Which tasks decided the promotion of version 2 (gate 'default') is not known")
