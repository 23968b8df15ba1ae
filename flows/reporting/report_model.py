"""What the parts of a report have in common."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator

from curriculum.evaluation.json_model import JsonModel


class ReportModel(JsonModel):
    """A part of a report. NaN and infinities survive the JSON round trip as strings."""


def _none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


EndOfInterval = Annotated[float | None, BeforeValidator(_none_for_nan)]
"""None where there is no interval: NaN, which equals nothing, would make every report differ from itself."""


def require_equal_lengths(owner: str, **columns: tuple[object, ...]) -> None:
    """Refuses columns that are not equally long, by name."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"columns of {owner} must be equally long: {listed}.")
