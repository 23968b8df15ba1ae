"""`keirin export`: weights to take elsewhere. Imports happen when the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import Debug, Home
from flows.commands.running import settings_from


def export(
    optimizer: Annotated[
        str, typer.Argument(help="Alias (champion), models:/NAME/VERSION, or a checkpoint's folder.")
    ],
    path: Annotated[Path, typer.Argument(help="File to write: .npz; an existing one is replaced.")],
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Write an optimizer's weights to one file, for programs without this workspace.

    `lopt.load("FILE.npz", num_steps=…)` reads it, and so does `keirin evaluate`, which then knows what the weights
    were trained on.

    Example: keirin export champion mine.npz
    """
    from rich.console import Console

    from flows.export import export_weights
    from flows.progress import Reporter
    from flows.session import Session

    del debug
    typer.echo(export_weights(optimizer, path, Session(settings_from(home), Reporter(Console(stderr=True)))))
