"""Which gate is meant: one of those that keirin comes with, or a JSON file of one's own."""

from __future__ import annotations

from pydantic import ValidationError

from curriculum.gates import GATES, Gate, get_gate
from storage.errors import UnsafePathError
from storage.files import check_path

SUFFIX = ".json"
MAX_BYTES = 100_000
GATE_HELP = f"Conditions to meet: {', '.join(GATES)}, or a {SUFFIX} file with a name and conditions."


def read_gate(gate: str) -> Gate:
    """Returns the gate called that, or the one that the JSON file at that path holds.

    Raises:
      UnknownNameError: If no gate is called that; says which there are, and the nearest.
      ValueError: If there is no such file, or it isn't a gate.
    """
    if not gate.endswith(SUFFIX):
        return get_gate(gate)
    path = check_path(gate, "a gate")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnsafePathError(f"`{path}` is larger than {MAX_BYTES:,} bytes: it isn't a gate.")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't text"
        raise ValueError(
            f"the gate `{path}` cannot be read: {reason}. Known gates: {', '.join(GATES)}."
        ) from error
    try:
        return Gate.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ValueError(f"`{path}` is not a gate: {where}: {first['msg']}.") from error
