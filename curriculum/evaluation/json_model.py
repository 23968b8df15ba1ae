"""Results as strict JSON: a loss that is not finite is a result, and JSON has neither NaN nor infinities."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict

from lopt.config import FrozenConfig


class JsonModel(FrozenConfig):
    """A model whose JSON has NaN and infinities as strings, which read back.

    pydantic writes the strings in text only, and leaves the numbers in `model_dump(mode="json")`, which no strict
    writer takes: an evaluation in which anything diverged could not be stored.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    def model_dump(self, *, mode: str = "python", **options: Any) -> dict[str, Any]:
        """Returns the fields; those of mode "json" are what the text would be read back as."""
        if mode != "json":
            return super().model_dump(mode=mode, **options)
        fields: dict[str, Any] = json.loads(self.model_dump_json(**options))
        return fields
