"""`keirin follow`, `promote`, `rollback` and `history`. Imports happen when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.evaluation import Budgets, Normalizer, NormalizerFactor
from flows.commands.options import Debug, EvaluationSets, Home, Horizon, MemoryLimit, NumSeeds
from flows.commands.running import run_step, settings_from


def follow(
    run: Annotated[
        str | None,
        typer.Argument(help="The training run, or the start of its name \\[the only one that is running]."),
    ] = None,
    evaluation_sets: EvaluationSets = None,
    baselines: Budgets = None,
    normalizer: Normalizer = None,
    normalizer_factor: NormalizerFactor = None,
    horizon: Horizon = None,
    num_seeds: NumSeeds = None,
    promote: Annotated[
        str | None, typer.Option(help="Promote what passes this gate: default, strict, or a JSON file.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Evaluate what is there now, and end.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Workers of its own on this machine, at low priority [1].")
    ] = None,
    memory_limit: MemoryLimit = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Evaluate a training run's checkpoints as they appear, beside it, and show how percentiles over tasks move.

    Ends when the run is complete. Stopped in any way, the same command goes on and computes nothing twice.

    Example: keirin follow short_horizon --set embedded24 --promote strict
    """
    values = {
        "run": run,
        "evaluation_sets": evaluation_sets or None,
        "baselines": baselines or None,
        "normalizer": normalizer,
        "normalizer_factor": normalizer_factor,
        "horizon": horizon,
        "num_seeds": num_seeds,
        "promote": promote,
        "once": once or None,
        "workers": workers,
    }
    settings = settings_from(home, memory_limit=memory_limit)
    run_step("flows.follow.follow", "FollowParameters", values, settings, debug, False)


def promote(
    optimizer: Annotated[
        str | None, typer.Argument(help="Alias or models:/NAME/VERSION \\[candidate].")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help="What it must show: default, strict, or a JSON file of conditions \\[default]."),
    ] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Make an evaluated optimizer the champion if it passes the gate; the reasons are stored either way.

    Example: keirin promote candidate --gate strict
    """
    values = {"optimizer": optimizer, "gate": gate}
    settings = settings_from(home)
    run_step("flows.promote.promote", "PromoteParameters", values, settings, debug, False)


def rollback(
    to: Annotated[
        int | None,
        typer.Option(help="Version that was champion before \\[the one before the present champion]."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept in the record.")] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Make an earlier champion the champion again, once its bytes have been verified; recorded like a promotion.

    Example: keirin rollback --reason "diverges on our language models"
    """
    values = {"to": to, "reason": reason}
    settings = settings_from(home)
    run_step("flows.rollback.rollback", "RollbackParameters", values, settings, debug, False)


def history(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """List every promotion, refusal and rollback, with the reasons and the evaluation that each rests on."""
    from flows.commands.show import show_history

    del debug
    show_history(settings_from(home), as_json=as_json)
