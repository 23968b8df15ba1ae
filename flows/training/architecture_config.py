"""Which learned optimizer is meant: an architecture by name, with those of its sizes that are not the defaults."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from lopt.architectures import ARCHITECTURES
from lopt.contract import ArchitectureConfig
from lopt.registry import UnknownNameError, lookup

EXAMPLE = '{"lstm_hidden_size": 32, "mlp_bank_size": 8}'
_OBJECT = TypeAdapter(dict[str, Any])


def read_architecture(name: str, fields: str) -> ArchitectureConfig:
    """Returns the architecture's configuration, with the fields of a JSON object instead of its defaults.

    Raises:
      UnknownNameError: If there is no such architecture, which says which there are, and the nearest.
      ValueError: If `fields` is no JSON object, or names a field or has a value that the architecture refuses.
    """
    config_type = lookup(ARCHITECTURES, name, kind="architecture")
    try:
        values = _OBJECT.validate_json(fields)
    except ValidationError as error:
        raise ValueError(
            f"must be a JSON object such as {EXAMPLE}, got {fields!r}: {_first(error)}"
        ) from error
    offered = {field: None for field in config_type.model_fields if field != "architecture"}
    try:
        for field in values:
            lookup(offered, field, kind=f"field of {name}")
        return config_type.model_validate(values)
    except UnknownNameError as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        raise ValueError(f"no configuration of {name}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])
