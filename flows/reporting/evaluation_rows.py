"""Rows of an evaluation's tables, as data: what a report shows and its JSON holds."""

from __future__ import annotations

from pydantic import Field

from curriculum.evaluation.comparison import Row
from flows.reporting.report_model import ReportModel


def untrained_name(candidate: str) -> str:
    """Returns what a candidate's initialisation is called, in every table and plot."""
    return f"{candidate} before training"


def clock_name(candidate: str) -> str:
    """Returns what a candidate's row is called whose steps are weighed with what they cost."""
    return f"{candidate}, by the clock"


class ComparisonTable(ReportModel):
    """One table of optimizers, each number over the same tasks and seeds."""

    title: str
    note: str
    rows: tuple[Row, ...]


class TwiceRow(ReportModel):
    """On how many tasks an optimizer ended lower than every AdamW setting with twice the steps (LHOPT, 4.1)."""

    name: str
    num_twice: int = Field(ge=0)
    num_tasks: int = Field(gt=0)


class HorizonRow(ReportModel):
    """The candidate's row at one horizon."""

    horizon: int
    row: Row
