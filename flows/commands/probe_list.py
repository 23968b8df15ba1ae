"""What `keirin probe list` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from curriculum.probes import PROBES


def show_probes() -> None:
    """Prints every probe with its question and where it comes from."""
    table = Table("probe", "question", "after")
    for name, probe in PROBES.items():
        table.add_row(f"[bold]{name}[/bold]", probe.question, probe.source)
    Console().print(table)
