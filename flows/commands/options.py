"""Options that several commands share. Each is None unless given, so that the models' defaults hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

WHERE = "Where it runs"

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the workspace [.keirin, or $KEIRIN_HOME].", rich_help_panel=WHERE),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="A running Dask scheduler, tcp://HOST:PORT, instead of workers on this machine.",
        rich_help_panel=WHERE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Workers on this machine \\[one per core].", rich_help_panel=WHERE),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option("--memory-limit", help="Memory of one worker, as in 4GiB.", rich_help_panel=WHERE),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the whole traceback of an error, and Prefect's log.", rich_help_panel=WHERE
    ),
]
Distribution = Annotated[
    str | None, typer.Option("--distribution", help="Task distribution to draw from \\[demo].")
]
Count = Annotated[int | None, typer.Option("--count", help="How many task configurations [60].")]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Same seed, same result [0]; where run times choose tasks, on the same timings."
    ),
]
Curriculum = Annotated[str | None, typer.Option("--curriculum", help="The sequence of phases \\[demo].")]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", help="The learned optimizer to train: pacer, velo, celo2, … \\[pacer]."),
]
ArchitectureConfig = Annotated[
    str | None,
    typer.Option(
        "--architecture-config",
        help='Its sizes that are not the defaults, as JSON: {"lstm_hidden_size": 32, "mlp_bank_size": 8}.',
    ),
]
OuterSteps = Annotated[
    int | None, typer.Option("--outer-steps", help="Outer steps of a phase \\[as the phase says].")
]
Horizon = Annotated[int | None, typer.Option("--horizon", help="Inner steps of the evaluation.")]
NumSeeds = Annotated[int | None, typer.Option("--num-seeds", help="Runs per optimizer and task.")]
EvaluationSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "--evaluation-set", help="Tasks to compare on; may be repeated \\[both demo sets]."
    ),
]
