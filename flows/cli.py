"""The command `keirin`. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands.data import data_app
from flows.commands.evaluation import baselines, curves_app, evaluate
from flows.commands.export import export
from flows.commands.options import (
    Architecture,
    ArchitectureConfig,
    Count,
    Curriculum,
    Debug,
    Distribution,
    Home,
    Horizon,
    MemoryLimit,
    NumSeeds,
    OuterSteps,
    Scheduler,
    Seed,
    Workers,
)
from flows.commands.probe import probe
from flows.commands.promotion import follow, history, promote, rollback
from flows.commands.running import given, run_step, settings_from
from flows.commands.tasks import tasks_app

STEPS, WHOLE, LOOK = "Single steps, in their order", "The whole pipeline", "Look"

app = typer.Typer(
    name="keirin",
    help="Meta-train learned optimizers: sample tasks, time them, train in phases, evaluate, promote.\n\n"
    "Start with [bold]keirin demo[/bold]: everything, on embedded data, in minutes. Every command continues "
    "where an earlier, interrupted one stopped, and skips what is complete.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, rich_help_panel=LOOK)
app.add_typer(tasks_app, rich_help_panel=LOOK)
app.add_typer(curves_app, rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK)(probe)


@app.command(rich_help_panel=WHOLE)
def demo(
    seed: Seed = None,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Run everything on embedded real data, in six to fourteen minutes on two cores.

    Samples 60 small tasks, times them, fits the run-time model, meta-trains two phases, compares the result with
    Adam and AdamW tuned per task, promotes it if it is better, and writes a report. Kill it at any moment: the
    same command continues.
    """
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.pipeline.pipeline", "PipelineParameters", {"seed": seed}, settings, debug)


@app.command(rich_help_panel=WHOLE)
def run(
    distribution: Distribution = None,
    count: Count = None,
    curriculum: Curriculum = None,
    architecture: Architecture = None,
    architecture_config: ArchitectureConfig = None,
    seed: Seed = None,
    outer_steps: OuterSteps = None,
    horizon: Horizon = None,
    num_seeds: NumSeeds = None,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Run the whole pipeline with your own numbers.

    Example: keirin run --count 200 --outer-steps 500 --scheduler tcp://10.0.0.1:8786
    """
    values = {
        "distribution": distribution,
        "count": count,
        "curriculum": curriculum,
        "architecture": architecture,
        "architecture_config": architecture_config,
        "seed": seed,
        "outer_steps": outer_steps,
        "horizon": horizon,
        "num_seeds": num_seeds,
    }
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.pipeline.pipeline", "PipelineParameters", values, settings, debug)


@app.command(rich_help_panel=LOOK)
def up(
    prefect_port: Annotated[int, typer.Option(min=1, max=65535, help="Prefect: flows, runs, forms.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="MLflow: metrics and models.")] = 5000,
    dask_port: Annotated[int, typer.Option(min=1, max=65535, help="Dask: what the workers do.")] = 8787,
    home: Home = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Start the servers and pages of this workspace; Ctrl-C stops them all.

    Prefect with every flow ready to run from a form, MLflow, and Dask workers with their dashboard, all on
    127.0.0.1 and all with their files in the workspace. Other commands use them while they run.
    """
    from rich.console import Console

    from flows.servers.services import Ports
    from flows.servers.up import run_up

    ports = Ports(prefect=prefect_port, mlflow=mlflow_port, dask=dask_port)
    run_up(settings_from(home, None, workers, memory_limit), ports, Console())


@app.command(rich_help_panel=STEPS)
def sample(
    distribution: Distribution = None,
    count: Count = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Draw task configurations and show them.

    Example: keirin sample --distribution demo --count 5 --seed 1 --json
    """
    from flows.commands.show import show_sample

    values = {"distribution": distribution, "count": count, "seed": seed}
    show_sample(given(values), settings_from(home, None, None, None), as_json=as_json)


@app.command(rich_help_panel=STEPS)
def time(
    distribution: Distribution = None,
    count: Count = None,
    seed: Seed = None,
    family: Annotated[
        str | None,
        typer.Option(help="A task family's whole prior instead of a distribution; all: every family's."),
    ] = None,
    max_seconds_per_step: Annotated[
        float | None, typer.Option(help="Slower configurations count as invalid [0.05].")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="What one configuration may take, compilation included [60].")
    ] = None,
    update: Annotated[
        str | None,
        typer.Option(help="Optimizer whose update is timed too: adam, an architecture, none \\[adam]."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was timed before.")] = False,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Time sampled configurations on the workers; what fails is recorded as invalid, with the reason.

    Example: keirin time --family all --count 20 tells keirin what this machine does: the run-time model that it
    comes with is then corrected by `keirin fit`. A larger count adds to what was timed before.
    """
    values = {
        "distribution": distribution,
        "count": count,
        "seed": seed,
        "family": family,
        "max_seconds": max_seconds,
        "update": update,
        "max_seconds_per_step": max_seconds_per_step,
        "again": again,
    }
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.time_tasks.time_tasks", "TimeParameters", values, settings, debug)


@app.command(rich_help_panel=STEPS)
def fit(
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Fit the paper's networks too, and show how they compare: minutes."),
    ] = False,
    fit_seed: Annotated[int | None, typer.Option(help="Folds and initial weights [0].")] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Fit the run-time and validity model to this machine's timings, and print its held-out error per family.

    What has not been timed here is predicted from the timings that keirin comes with, as far as they apply.
    """
    values = {"compare": compare or None, "fit_seed": fit_seed}
    settings = settings_from(home, None, None, None)
    run_step("flows.fit_runtime_model.fit_runtime_model", "FitParameters", values, settings, debug, False)


@app.command(rich_help_panel=STEPS)
def train(
    curriculum: Curriculum = None,
    phase: Annotated[
        str | None, typer.Option(help="Name of the phase, or next: the first that is not complete \\[next].")
    ] = None,
    architecture: Architecture = None,
    architecture_config: ArchitectureConfig = None,
    seed: Seed = None,
    outer_steps: OuterSteps = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate of the outer optimizer \\[as the phase says].")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="synchronous (reproducible) or asynchronous (no worker waits) \\[as the phase says]."
        ),
    ] = None,
    home: Home = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    memory_limit: MemoryLimit = None,
    debug: Debug = False,
) -> None:
    """Meta-train one phase of a curriculum, and promote its best optimizer for the next phase to start from.

    Example: keirin train --phase short_horizon --outer-steps 20
    """
    values = {
        "curriculum": curriculum,
        "phase": phase,
        "architecture": architecture,
        "architecture_config": architecture_config,
        "seed": seed,
        "outer_steps": outer_steps,
        "learning_rate": learning_rate,
        "mode": mode,
    }
    settings = settings_from(home, scheduler, workers, memory_limit)
    run_step("flows.meta_train_phase.meta_train_phase", "TrainParameters", values, settings, debug)


@app.command(rich_help_panel=STEPS)
def control(
    run: Annotated[
        str | None, typer.Argument(help="The running phase, or the start of its name \\[the only one].")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate of the outer optimizer.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Meta-gradients per outer step; asynchronous phases only.")
    ] = None,
    max_staleness: Annotated[
        int | None, typer.Option(help="Outer steps until a meta-gradient is dropped; asynchronous only.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="run: go on. pause: wait. stop: end after a checkpoint \\[run].")
    ] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Change a phase while it runs, pause it or stop it: it takes effect before the next outer step.

    Example: keirin control short_horizon --learning-rate 1e-3
    """
    from flows.commands.show import show_control

    values = {
        "run": run,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_staleness": max_staleness,
        "command": command,
    }
    show_control(given(values), settings_from(home, None, None, None))


for step in (baselines, evaluate, follow, promote, rollback, export):
    app.command(rich_help_panel=STEPS)(step)
app.command(rich_help_panel=LOOK)(history)


@app.command(rich_help_panel=LOOK)
def report(
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Write the report of what has been run so far: a table here, and a page that needs no network."""
    from flows.commands.show import show_report

    show_report(settings_from(home, None, None, None), open_page=open_page)


@app.command(rich_help_panel=LOOK)
def status(home: Home = None, debug: Debug = False) -> None:
    """Show phases, checkpoints, aliases, the last evaluation and running servers at a glance."""
    from rich.console import Console

    from flows.commands.status import show_status

    show_status(settings_from(home, None, None, None), Console())


def main() -> None:
    """Entry point of the command `keirin`."""
    from flows.commands.errors import guarded

    code = guarded(app, debug="--debug" in sys.argv)
    if "prefect" in sys.modules:
        # Prefect waits at exit, without a limit, for services whose server is gone; nothing of ours is left.
        from flows.interrupt import end_process

        end_process(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
