"""`keirin tasks`: the fixed tasks that optimizers are compared on."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import Debug, Home

tasks_app = typer.Typer(
    name="tasks",
    help="Look at the fixed tasks that optimizers are compared on.\n\n"
    "Example: keirin tasks list --set embedded24",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SetName = Annotated[
    str | None,
    typer.Option("--set", help="Name of an evaluation set \\[all sets, a line each]."),
]


@tasks_app.command("list")
def list_tasks(
    set_name: SetName = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """List the evaluation sets, or the tasks of one with their configurations.

    The configurations in the JSON read back with `task_generator.parse_task_config`. Nothing is built: tasks on
    data that are not on this machine are listed too.

    Example: keirin tasks list --set velodrome83 --json
    """
    from flows.commands.tasks_display import show_set, show_sets

    del home, debug  # every command takes them; a list needs no workspace
    if set_name is None:
        show_sets(as_json=as_json)
    else:
        show_set(set_name, as_json=as_json)
