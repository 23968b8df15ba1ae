"""Meta-gradient estimators. One file each; registering one is one line here."""

from __future__ import annotations

from lopt.estimators.full_es import FullEsConfig

ESTIMATORS: dict[str, type[FullEsConfig]] = {
    "full_es": FullEsConfig,
}
