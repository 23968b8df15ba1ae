"""`keirin evaluate`, `keirin baselines`, `keirin curves`: comparing optimizers, and the curves that it rests on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.commands.options import (
    Debug,
    EvaluationSets,
    Home,
    Horizon,
    MemoryLimit,
    NumSeeds,
    Scheduler,
    Workers,
)
from flows.commands.running import run_step, settings_from

curves_app = typer.Typer(
    name="curves",
    help="The stored learning curves, each computed once: take them elsewhere, or bring them from there.\n\n"
    "Example: keirin curves export curves.parquet",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="What to compare with: quick, lr15, shampoo, extended, modern, free, nadamw10, nadamw100, "
        "nadamw1000, optlist10, adam8p100, lhopt35, or a baseline's name; may be repeated \\[quick].",
    ),
]
Normalizer = Annotated[
    str | None,
    typer.Option(help="Whose time counts: adam (tuned), or extended: the best of four \\[adam]."),
]
NormalizerFactor = Annotated[
    int | None,
    typer.Option(help="The normaliser runs this many times longer: the largest speed-up to be seen \\[10]."),
]


def evaluate(
    optimizer: Annotated[
        str | None,
        typer.Argument(
            help="Alias, models:/NAME/VERSION, a checkpoint's folder, shipped:NAME, a weights file, or "
            "initial:ARCHITECTURE \\[candidate]."
        ),
    ] = None,
    evaluation_sets: EvaluationSets = None,
    baselines: Budgets = None,
    normalizer: Normalizer = None,
    normalizer_factor: NormalizerFactor = None,
    horizon: Horizon = None,
    num_seeds: NumSeeds = None,
    clock: Annotated[
        bool | None,
        typer.Option(
            "--clock/--no-clock", help="Time single steps too, for speed-ups by the clock \\[clock]."
        ),
    ] = None,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Compare a learned optimizer with baselines that are tuned per task, on tasks it was not trained on.

    Curves are stored, and no curve is computed twice: another checkpoint costs only its own.

    Example: keirin evaluate champion --set embedded24 --budget lr15 --budget free --horizon 2000
    """
    values = {
        "optimizer": optimizer,
        "evaluation_sets": evaluation_sets or None,
        "baselines": baselines or None,
        "normalizer": normalizer,
        "normalizer_factor": normalizer_factor,
        "horizon": horizon,
        "num_seeds": num_seeds,
        "clock": clock,
    }
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.evaluate.evaluate", "EvaluateParameters", values, settings, debug)


def baselines(
    evaluation_sets: EvaluationSets = None,
    budgets: Budgets = None,
    normalizer: Normalizer = None,
    normalizer_factor: NormalizerFactor = None,
    horizon: Horizon = None,
    num_seeds: NumSeeds = None,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Compute the baselines' curves once, for every later evaluation on these tasks.

    Many trials of one optimizer on one task train together, in one compiled program.

    Example: keirin baselines --set embedded24 --budget lr15 --budget nadamw100
    """
    values = {
        "evaluation_sets": evaluation_sets or None,
        "baselines": budgets or None,
        "normalizer": normalizer,
        "normalizer_factor": normalizer_factor,
        "horizon": horizon,
        "num_seeds": num_seeds,
    }
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.baselines.compute_baselines", "BaselinesParameters", values, settings, debug)


@curves_app.command("export")
def export(
    path: Annotated[Path, typer.Argument(help="File to write: .parquet.")],
    without: Annotated[
        list[str] | None,
        typer.Option(help="A split to leave out for a smaller file: no report reads outer_valid."),
    ] = None,
    keepbits: Annotated[
        int,
        typer.Option(
            help="Of the 23 bits of a loss's fraction; 16 round by 0.0008 % at most.", show_default="all"
        ),
    ] = 23,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Write every stored curve to one parquet file: a row per curve, for pandas, DuckDB or Polars.

    Example: keirin curves export curves.parquet --without outer_valid --keepbits 16
    """
    from flows.evaluation.parquet import export_curves

    del debug
    with _working("reading and writing curves"):
        message = export_curves(settings_from(home).home, path, without=without or (), keepbits=keepbits)
    typer.echo(message)


@curves_app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files that `keirin curves export` wrote.")],
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Add the curves of an export, so that evaluations here need not compute them; what is stored stays.

    An evaluation that rests on imported curves says so.

    Example: keirin curves import curves.parquet
    """
    from flows.evaluation.parquet import import_curves

    del debug
    for path in paths:
        with _working(f"reading and storing the curves of {path}"):
            message = import_curves(settings_from(home).home, path)
        typer.echo(message)


def _working(what: str) -> AbstractContextManager[object]:
    """Shows that something is being done: a thousand curves take some seconds."""
    return Console(stderr=True).status(what)
