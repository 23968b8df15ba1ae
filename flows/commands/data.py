"""`keirin data`: what data there are, preparing them, looking at them. Imports happen when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import Debug, Home

if TYPE_CHECKING:
    from storage.workspace import Workspace

Name = Annotated[str, typer.Argument(help="Of a data set, as `keirin data list` shows it.", metavar="NAME")]

data_app = typer.Typer(
    name="data",
    help="Look at data sets, and prepare public ones.\n\n"
    "Embedded sets come with the packages: nothing to do. Public ones are prepared once, from the network or from "
    "a folder of their usual files, and then read from the workspace.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data_app.command("list")
def list_data(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """List every data set: its kind, its size, and whether it is here."""
    from flows.commands.data_display import show_list

    show_list(_workspace(home), as_json=as_json)


@data_app.command()
def prepare(
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Folder with the set's files: IDX, CIFAR binary, Matlab, npz, parquet, text, or images in a "
            "folder per class. Without it they are downloaded, which needs keirin\\[data].",
        ),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option("--size", min=1, max=1024, help="Also at this side in pixels; may be repeated."),
    ] = None,
    max_examples: Annotated[
        int | None,
        typer.Option(
            "--max-examples", min=1, help="At most so many training and test images, or documents \\[all]."
        ),
    ] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Prepare a public data set, once: four splits, checksummed, mapped into memory when read.

    What is complete is left alone and what is damaged is repaired, so the same command can always be repeated.

    Example: keirin data prepare cifar10 --from ~/Downloads/cifar-10-batches-bin --size 16
    """
    from flows.commands.data_display import run_prepare

    run_prepare(_workspace(home), name, folder=folder, sizes=size or [], max_examples=max_examples)


@data_app.command()
def show(
    name: Name,
    size: Annotated[
        int | None, typer.Option("--size", min=1, max=1024, help="Side of the images in pixels \\[native].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the contact sheet, a PNG \\[NAME-SIZE.png].")
    ] = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Show a data set: images of every split with their labels as a contact sheet, or a piece of text.

    Example: keirin data show digits --out digits.png
    """
    from flows.commands.data_display import run_show

    run_show(_workspace(home), name, size=size, out=out)


def _workspace(home: Path | None) -> Workspace:
    from storage.workspace import Workspace

    return Workspace(home)
