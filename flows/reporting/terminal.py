"""The report in a terminal: a table, the result in two lines, and where everything is."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from flows.reporting.data import ReportData
from flows.reporting.formatting import plural
from flows.reporting.views import TaskRow, headline, task_groups

_STYLES = {"win": "bold green", "loss": "bold red", "diverged": "bold red", "even": "bold", None: "dim"}
_SPEEDUP_WIDTH, _LOSS_WIDTH = 12, 8  # with four optimizers the table fits 80 columns
_SIGNS = {"win": "▲", "loss": "▼", "diverged": "✗", "even": "=", None: " "}


def terminal_table(data: ReportData) -> Table:
    """Returns the evaluation as a table: one row per task, best first, every optimizer's final loss.

    A sign beside the colour says who won, so the table reads without colour, too. Without an evaluation the
    table says so in its only heading.
    """
    evaluation = data.evaluation
    if evaluation is None:
        return Table(headline(data))
    tasks, seeds = plural(len(evaluation.tasks), "task"), plural(evaluation.num_seeds, "seed")
    counts = f"{tasks}, {seeds} (range: seeds drawn anew)"
    title = f"Final {evaluation.loss_label} after {evaluation.horizon} steps: {counts}"
    table = Table(title=title, title_justify="left", title_style="", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    groups = task_groups(data)
    first = groups[0].rows[0] if groups else None
    table.add_column("task", no_wrap=True)
    for cell in first.speedups if first else ():
        table.add_column(f"speed-up over {cell.baseline}", justify="right", width=_SPEEDUP_WIDTH)
    labels = [info.label for info in evaluation.optimizers]
    for label in labels:
        table.add_column(label, justify="right", width=_LOSS_WIDTH)
    for group in groups:
        if len(groups) > 1:
            table.add_row(Text(group.title.removeprefix("Tasks of its ").capitalize(), style="dim italic"))
        for row in group.rows:
            losses = {cell.label: cell.loss for cell in row.optimizers}
            table.add_row(row.name, *_speedup_cells(row), *(losses.get(label, "–") for label in labels))
        table.add_section()
    return table


def _speedup_cells(row: TaskRow) -> list[Text]:
    cells = []
    for cell in row.speedups:
        text = Text(f"{_SIGNS[cell.verdict]} {cell.text}", style=_STYLES[cell.verdict])
        if cell.spread:
            text.append(f"\n{cell.spread.replace(' to ', '–')}", style="dim")
        cells.append(text)
    return cells


def result_lines(data: ReportData) -> list[str]:
    """Returns the result in a sentence, and whether the candidate was promoted, with the reasons."""
    lines = [headline(data)]
    promotion = data.promotion
    if promotion is not None:
        version = f" (version {promotion.version})" if promotion.version else ""
        done = f"Promoted to {promotion.alias!r}{version}" if promotion.promoted else "Not promoted"
        lines.append(f"{done}: " + "; ".join(reason.text.rstrip(".") for reason in promotion.reasons) + ".")
    return lines


def summary_lines(data: ReportData) -> list[str]:
    """Returns one line per location: what, where, and the command that shows it, in aligned columns."""
    what = max((len(place.what) for place in data.locations), default=0)
    where = max((len(place.where) for place in data.locations), default=0)
    return [f"{p.what:<{what}}  {p.where:<{where}}  →  {p.command}" for p in data.locations]
