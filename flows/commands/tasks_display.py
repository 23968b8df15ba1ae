"""What `keirin tasks` prints."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.commands.show import megaflops
from task_generator.evaluation_set import EVALUATION_SETS, SET_NOTES, EvaluationTask, get_evaluation_set


def show_sets(*, as_json: bool) -> None:
    """Prints every evaluation set with its size and what is to be known of it."""
    rows = [
        {"set": name, "tasks": len(tasks), "note": SET_NOTES.get(name, "")}
        for name, tasks in EVALUATION_SETS.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("set", "tasks", "note")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


def show_set(name: str, *, as_json: bool) -> None:
    """Prints the tasks of one evaluation set; MFLOP is of one gradient step.

    Raises:
      UnknownNameError: If there is no such set.
    """
    tasks = get_evaluation_set(name)
    if as_json:
        print(json.dumps([_row(task) for task in tasks], indent=1))
        return
    console = Console()
    if note := SET_NOTES.get(name):
        console.print(note, highlight=False)
    table = Table()
    table.add_column("task")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MFLOP", justify="right", no_wrap=True)
    for task in tasks:
        cost = task.config.approximate_cost()
        table.add_row(
            f"[bold]{task.name}[/bold]\n{task.config.label}",
            f"{cost['num_params']:,.0f}",
            megaflops(cost["flops_per_step"]),
        )
    console.print(table)


def _row(task: EvaluationTask) -> dict[str, Any]:
    return {
        "name": task.name,
        "fingerprint": task.config.fingerprint(),
        "config": task.config.model_dump(mode="json"),
        **task.config.approximate_cost(),
    }
