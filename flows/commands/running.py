"""From the options of a command to a running flow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from flows.settings import RuntimeSettings


def settings_from(
    home: Path | None,
    scheduler: str | None = None,
    workers: int | None = None,
    memory_limit: str | None = None,
) -> RuntimeSettings:
    """Returns where to run, from what the options say."""
    from flows.settings import settings_for_this_machine

    return settings_for_this_machine(
        home=home, scheduler=scheduler, num_workers=workers, memory_limit=memory_limit
    )


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that were given: the models' defaults hold for the others."""
    return {name: value for name, value in values.items() if value is not None}


def run_step(
    entrypoint: str,
    model: str,
    values: dict[str, Any],
    settings: RuntimeSettings,
    debug: bool,
    needs_workers: bool = True,
) -> None:
    """Runs a flow with the options that were given.

    Args:
      entrypoint: Of the flow: module and function, with dots.
      model: Of its parameters, in `flows.parameters`.
      values: The options.
      settings: Where to run.
      debug: Whether to show whole tracebacks.
      needs_workers: Whether to start workers.
    """
    from rich.console import Console

    from flows.commands.launch import run_flow

    try:
        run_flow(
            entrypoint,
            lambda parameters: getattr(parameters, model)(**given(values)),
            settings,
            Console(),
            needs_workers=needs_workers,
            debug=debug,
        )
    except KeyboardInterrupt:  # the command-line library would say "Aborted!"
        from flows.interrupt import INTERRUPTED

        typer.echo("Stopped. The same command continues where this one was.", err=True)
        raise typer.Exit(INTERRUPTED) from None
