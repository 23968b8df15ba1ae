"""Reads the possible keys and categories of a pydantic configuration class from its JSON schema.

The paths agree with what `runtime_model.features.read_pairs` gives for a configuration of that class.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel


@lru_cache(maxsize=512)
def const_fields(cls: type[BaseModel]) -> tuple[str, ...]:
    """Returns the values of the fields of `cls` that can hold one string only: its discriminators."""
    consts = []
    for field in cls.model_fields.values():
        if get_origin(field.annotation) is Literal:
            values = get_args(field.annotation)
            if len(values) == 1 and isinstance(values[0], str):
                consts.append(values[0])
    return tuple(consts)


def schema_pairs(config_type: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Returns every key path of `config_type`, and every "key=category" that its schema enumerates."""
    schema = config_type.model_json_schema()
    keys: dict[str, None] = {}
    values: dict[str, None] = {}
    _walk("", schema, schema.get("$defs", {}), keys, values, frozenset())
    return list(keys), list(values)


def _walk(
    path: str,
    node: Any,
    defs: dict[str, Any],
    keys: dict[str, None],
    values: dict[str, None],
    seen: frozenset[str],
) -> None:
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        if name not in seen:  # a class that contains itself is followed once
            _walk(path, defs.get(name, {}), defs, keys, values, seen | {name})
        return
    for union in ("oneOf", "anyOf", "allOf"):
        for choice in node.get(union, ()):
            _walk(path, choice, defs, keys, values, seen)
    if "properties" in node:
        consts = [p["const"] for p in node["properties"].values() if isinstance(p.get("const"), str)]
        prefix = f"{path}[{','.join(consts)}]" if consts else path
        for name, child in node["properties"].items():
            _walk(f"{prefix}.{name}" if prefix else name, child, defs, keys, values, seen)
        return
    if node.get("type") == "array":
        keys.setdefault(f"{path}#")
        for child in (node.get("items"), *node.get("prefixItems", ())):
            _walk(path, child, defs, keys, values, seen)
        return
    _leaf(path, node, keys, values)


def _leaf(path: str, node: dict[str, Any], keys: dict[str, None], values: dict[str, None]) -> None:
    kind = node.get("type")
    categories = list(node.get("enum", ())) + ([node["const"]] if "const" in node else [])
    if kind == "boolean":
        categories = [False, True]
    if kind == "null":
        categories = [None]
    if kind is None and not categories:
        return
    keys.setdefault(path)
    for category in categories:
        if isinstance(category, str):
            values.setdefault(f"{path}={category}")
        elif category is None or isinstance(category, bool):
            values.setdefault(f"{path}={str(category).lower()}")
