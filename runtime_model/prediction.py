"""A fitted run-time model: predicts seconds per step and validity without compiling anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from pydantic import BaseModel
from scipy.stats import norm

from lopt.config import FrozenConfig
from runtime_model.estimators import COMPARED
from runtime_model.estimators.base import Fitted, LogSeconds
from runtime_model.estimators.transferred import FittedTransfer
from runtime_model.features import Pair, read_pairs
from runtime_model.machine import Machine
from runtime_model.validity import ValidityModel

FORMAT_VERSION = 2
TRANSFERRED = "transferred"
UNTIMED_STRETCH = 2.0
"""Widens the intervals of a family that the model was not fitted to."""
BASE, SEPARATOR = "base", "/"


class UntimedFamilyError(ValueError):
    """A configuration of a family that nothing is known about."""


class Prediction(NamedTuple):
    """Predictions for n configurations."""

    seconds: np.ndarray
    """[n] seconds per inner step and task: the median of what is likely."""
    valid_probability: np.ndarray
    """[n] probability that the configuration runs, within the time and memory limits of the timings."""
    log_std: np.ndarray
    """[n] standard deviation of the natural logarithm of the seconds."""

    def upper(self, quantile: float) -> np.ndarray:
        """Returns the seconds [n] that a measurement stays below with probability `quantile`."""
        bound: np.ndarray = self.seconds * np.exp(norm.ppf(quantile) * self.log_std)
        return bound


class FamilyPart(FrozenConfig):
    """How one family is predicted."""

    estimator: str
    stretch: float
    """On the estimator's standard deviation, so that intervals cover what they say."""
    validity: ValidityModel
    num_timings: int
    num_timed: int


class RuntimeModelInfo(FrozenConfig):
    """Everything about a fitted model but its arrays."""

    format_version: int = FORMAT_VERSION
    num_timings: int
    seed: int
    machine: Machine | None = None
    families: Mapping[str, FamilyPart]
    fingerprints: tuple[str, ...] = ()
    """Of the configurations that it was fitted to, sorted."""
    spanning: str | None = None
    """The part that predicts families without timings."""


def part_name(estimator: str, family: str) -> str:
    """Returns the name of the part of an estimator that is fitted per family."""
    return f"{estimator}{SEPARATOR}{family}"


@dataclass(frozen=True)
class RuntimeModel:
    """One fitted estimator per family, and what stands in for the families that were not timed.

    Attributes:
      info: What is predicted how.
      parts: Fitted estimators, by name; one that is fitted per family is called "estimator/family".
      base: A model fitted elsewhere, which the part "transferred" corrects.
    """

    info: RuntimeModelInfo
    parts: Mapping[str, Any]
    base: RuntimeModel | None = None

    def predict(self, configs: Sequence[BaseModel]) -> Prediction:
        """Predicts seconds and validity; an empty sequence gives empty arrays.

        Raises:
          UntimedFamilyError: If a configuration is of a family that nothing is known about.
        """
        if not configs:
            return Prediction(*np.zeros((3, 0)))
        pairs = [read_pairs(config) for config in configs]
        families = [str(cast(Any, config).family.family) for config in configs]
        predicted = self.predict_log(pairs, families)
        return Prediction(np.exp(predicted.mean), self._validity(pairs, families, predicted), predicted.std)

    def predict_log(self, pairs: Sequence[Sequence[Pair]], families: Sequence[str]) -> LogSeconds:
        """Predicts log seconds from key/value pairs, intervals calibrated."""
        out = LogSeconds(*np.zeros((2, len(pairs))))
        for family, at in _by_family(families):
            part = self.info.families.get(family)
            mean, std = self._one_family(family, part, [pairs[i] for i in at])
            stretch = UNTIMED_STRETCH if part is None else part.stretch
            out.mean[at], out.std[at] = mean, stretch * std
        return out

    def _one_family(
        self, family: str, part: FamilyPart | None, pairs: Sequence[Sequence[Pair]]
    ) -> LogSeconds:
        estimator = self.info.spanning if part is None else part.estimator
        if estimator is None:
            raise UntimedFamilyError(
                f"nothing is known about how long tasks of family {family!r} take. Time some: "
                f"`keirin time --family {family} --count 50`, then `keirin fit`."
            )
        if estimator == TRANSFERRED:
            assert self.base is not None
            transfer: FittedTransfer = self.parts[TRANSFERRED]
            names = [family] * len(pairs)
            return transfer.correct(self.base.predict_log(pairs, names), names)
        fitted: Fitted = self.parts.get(part_name(estimator, family)) or self.parts[estimator]
        return fitted.predict(pairs)

    def _validity(
        self, pairs: Sequence[Sequence[Pair]], families: Sequence[str], predicted: LogSeconds
    ) -> np.ndarray:
        probability = np.ones(len(pairs))
        for family, at in _by_family(families):
            validity = self.validity_of(family)
            if validity is not None:
                probability[at] = validity.probability([pairs[i] for i in at], predicted.mean[at])
        return probability

    def validity_of(self, family: str) -> ValidityModel | None:
        """Returns what is known about a family's validity, here or in the base."""
        if family in self.info.families:
            return self.info.families[family].validity
        return None if self.base is None else self.base.validity_of(family)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the arrays by path and the rest as JSON data; `from_arrays` is the inverse."""
        arrays: dict[str, np.ndarray] = {}
        infos: dict[str, Any] = {}
        for name, part in self.parts.items():
            own, infos[name] = part.to_arrays()
            arrays |= {f"{name}:{key}": np.asarray(value) for key, value in own.items()}
        meta = {**self.info.model_dump(mode="json"), "parts": infos}
        if self.base is not None:
            own, meta[BASE] = self.base.to_arrays()
            arrays |= {f"{BASE}:{key}": value for key, value in own.items()}
        return arrays, meta

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> RuntimeModel:
        """Restores what `to_arrays` gave.

        Raises:
          ValueError: If the metadata is of another format, or arrays are missing or surplus.
        """
        if meta.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"`meta` must have format_version {FORMAT_VERSION}, got {meta.get('format_version')!r}. Fit "
                "the run-time model again: `keirin fit`."
            )
        groups: dict[str, dict[str, np.ndarray]] = {}
        for path, array in arrays.items():
            name, _, key = path.partition(":")
            groups.setdefault(name, {})[key] = array
        infos = dict(meta["parts"])
        base = None
        if BASE in meta:
            base = cls.from_arrays(groups.pop(BASE, {}), meta[BASE])
        _check_same(set(groups), set(infos))
        try:
            parts = {name: _part_type(name).from_arrays(groups[name], info) for name, info in infos.items()}
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"`arrays` must match the run-time model's metadata, got {error}. Fit it again: `keirin fit`."
            ) from error
        info = RuntimeModelInfo.model_validate({k: v for k, v in meta.items() if k not in ("parts", BASE)})
        return cls(info, parts, base)


def _part_type(name: str) -> Any:
    estimator = name.partition(SEPARATOR)[0]
    return FittedTransfer if estimator == TRANSFERRED else COMPARED[estimator].fitted_type


def _check_same(given: set[str], wanted: set[str]) -> None:
    missing, surplus = sorted(wanted - given), sorted(given - wanted)
    if missing or surplus:
        raise ValueError(
            f"`arrays` must match the run-time model's metadata, got {missing=}, {surplus=}. Fit it again: "
            "`keirin fit`."
        )


def _by_family(families: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    names = np.asarray(families)
    return [(str(name), np.flatnonzero(names == name)) for name in np.unique(names)]
