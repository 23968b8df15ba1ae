"""Commands that only show something: no server, no workers, an answer in seconds."""

from __future__ import annotations

import json
import webbrowser
from typing import Any

from rich.console import Console
from rich.table import Table

from curriculum.control import Control
from flows.parameters import ControlParameters, ReportParameters, SampleParameters
from flows.progress import Reporter
from flows.promotion.history import history_table, read_history
from flows.report import run_report
from flows.sample_tasks import draw, rows
from flows.session import Session
from flows.settings import RuntimeSettings
from flows.training.control_records import change_control
from storage.workspace import Workspace


def show_sample(values: dict[str, Any], settings: RuntimeSettings, *, as_json: bool) -> None:
    """Prints sampled task configurations, as a table or as a JSON list that reads back; MFLOP is of one step."""
    configs = draw(SampleParameters(**values))
    if as_json:
        print(json.dumps([config.model_dump(mode="json") for config in configs], indent=1))
        return
    table = Table("#", "task")
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("MFLOP", justify="right", no_wrap=True)
    for row in rows(configs):  # without fingerprints, which leave the task no room
        table.add_row(
            str(row["#"]), row["task"], f"{row['parameters']:,}", megaflops(1e6 * row["MFLOP per step"])
        )
    Console().print(table)


def show_control(values: dict[str, Any], settings: RuntimeSettings) -> None:
    """Writes the wish for a running phase, and prints what its record says now."""
    parameters = ControlParameters(**values)
    wish = Control.model_validate(parameters.model_dump(exclude={"run"}))
    name, record = change_control(Workspace(settings.home), parameters.run, wish)
    wishes = [f"{key} {value:g}" for key, value in record.changes.items()]
    Console().print(f"{name}: {', '.join([record.command, *wishes])}; from the next outer step on")


def show_history(settings: RuntimeSettings, *, as_json: bool) -> None:
    """Prints the record of promotions, as a table or as a JSON list, the oldest first."""
    events = read_history(Workspace(settings.home))
    if as_json:
        entries = [{"number": e.number, **e.event.model_dump(mode="json")} for e in events]
        print(json.dumps(entries, indent=1))
    elif events:
        Console().print(history_table(events))
    else:
        Console().print("nothing has been promoted here. `keirin promote` decides on an evaluated optimizer.")


def megaflops(flops: float) -> str:
    """Returns a number of operations in millions, to about three digits: "0.843", "2,203"."""
    millions = flops / 1e6
    return f"{millions:,.0f}" if millions >= 100 else f"{millions:.3g}"


def show_report(settings: RuntimeSettings, *, open_page: bool) -> None:
    """Writes the report, prints it, and opens the page if asked to."""
    page = run_report(ReportParameters(), Session(settings, Reporter(Console()))).page
    if open_page:
        webbrowser.open(page.as_uri())
