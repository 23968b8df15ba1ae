"""The base of every configuration: an immutable value with a stable identity.

A configuration is *static*: hashable, so that it can key a compilation cache, and serialisable, so that a
process on another machine computes the same fingerprint. What cannot be written as canonical JSON is refused
when the fingerprint is taken, because a permissive fallback would let identities fork silently.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict


class FrozenConfig(BaseModel):
    """An immutable pydantic model that refuses unknown fields and knows its fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def canonical_json(self) -> str:
        """Returns the configuration as JSON with sorted keys and no spaces.

        Raises:
          ValueError: If a value has no exact JSON form (NaN or an infinity).
        """
        payload = self.model_dump(mode="json")
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits of the SHA-256 of the canonical JSON: equal across processes."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]


ConfigT = TypeVar("ConfigT", bound=FrozenConfig)


def derive(config: ConfigT, **changes: Any) -> ConfigT:
    """Returns a copy of `config` with `changes`, validated whole (`model_copy` would skip validation)."""
    return type(config).model_validate({**config.model_dump(), **changes})
