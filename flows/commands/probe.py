"""`keirin probe`: how a learned optimizer behaves, one small experiment at a time."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import Debug, Home, Seed
from flows.commands.running import run_step, settings_from

LIST = "list"


def probe(
    name: Annotated[
        str, typer.Argument(help="Of a probe; list: show them; all: run every one that fits.", metavar="NAME")
    ] = LIST,
    optimizer: Annotated[
        str | None,
        typer.Argument(
            help="Alias, models:/NAME/VERSION, a checkpoint's folder, shipped:NAME, a weights file, or "
            "initial:ARCHITECTURE \\[shipped:pacer]."
        ),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Another optimizer, for probes of several (ensembles); may be repeated \\[all shipped ones].",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes: a quick look that proves nothing.")
    ] = False,
    seed: Seed = None,
    home: Home = None,
    debug: Debug = False,
) -> None:
    """Show how a learned optimizer behaves: a picture, its numbers, and a paragraph on how to read it.

    Example: keirin probe horizon_adaptation champion
    """
    if name == LIST:
        from flows.commands.probe_list import show_probes

        show_probes()
        return
    values = {
        "probe": name,
        "optimizer": optimizer,
        "others": tuple(others) if others else None,
        "quick": quick or None,
        "seed": seed,
    }
    run_step("flows.probe.probe", "ProbeParameters", values, settings_from(home), debug, False)
