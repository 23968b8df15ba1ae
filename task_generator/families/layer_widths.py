"""Hidden layers of different widths, for evaluation tasks that are drawn by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from lopt.config import FrozenConfig


class LayerWidthsConfig(FrozenConfig):
    """Adds `hidden_sizes` to a family of `num_layers` layers of `hidden_size` units.

    The two are then the number of widths and the widest of them, and may be left out. Equal widths are kept as the
    two numbers, so that one task has one fingerprint. At its default the field stays out of the JSON, and the
    fingerprints of tasks without it are what they were before it existed.
    """

    hidden_size: int
    num_layers: int
    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda value: value is None,
        description="The width of each hidden layer, where they differ; the prior draws None.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        widths = values.get("hidden_sizes") if isinstance(values, Mapping) else None
        if not isinstance(widths, list | tuple) or not widths or not all(type(w) is int for w in widths):
            return values  # nothing to fill in, or for the field's own check to refuse
        implied = {"hidden_size": max(widths), "num_layers": len(widths)}
        for field, value in implied.items():
            if values.get(field, value) != value:
                raise ValueError(
                    f"hidden_sizes={tuple(widths)} means {field}={value}, got {field}={values[field]}. "
                    f"Leave out `{field}`, or `hidden_sizes`."
                )
        return {**values, **implied, "hidden_sizes": widths if len(set(widths)) > 1 else None}

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each hidden layer."""
        return self.hidden_sizes or (self.hidden_size,) * self.num_layers

    def widths_label(self) -> str:
        """Returns e.g. "2x32", or "128x32x128" where widths differ."""
        return "x".join(map(str, self.hidden_sizes or (self.num_layers, self.hidden_size)))
