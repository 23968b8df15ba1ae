"""What a probe is: a small experiment that shows one thing about a learned optimizer.

A probe is a frozen configuration whose `run` returns plain numbers: named series with labelled axes, what stands
behind each point, and a paragraph on how to read them. It knows no disk and draws nothing; one generic drawer shows
any result (`flows.reporting.probe_plots`). Adding one is a file with a subclass of `Probe`, and a line in `PROBES`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import ConfigDict, Field

from lopt.architectures import ARCHITECTURES
from lopt.config import FrozenConfig, derive
from lopt.contract import ArchitectureConfig
from lopt.types import LearnedOptimizer, Theta

Scale = Literal["linear", "log"]
Role = Literal["subject", "other", "baseline", "ordered", "category", "reference"]
"""How a series is drawn: the optimizer probed; another version of it; something to compare with; one of an ordered
row (colours from a scale); one of several kinds (a colour each); a thin line that helps to read."""
PanelKind = Literal["lines", "points", "table"]


class ProbeRefusedError(ValueError):
    """A probe that makes no sense on an optimizer; says why, and on which it does."""


class Subject(NamedTuple):
    """The learned optimizer that is looked at."""

    label: str
    config: ArchitectureConfig
    theta: Theta

    def learned(self) -> LearnedOptimizer:
        """Returns the architecture."""
        return self.config.build()


class Bench(NamedTuple):
    """What a probe is handed besides its subject."""

    others: tuple[Subject, ...] = ()
    """More optimizers, for probes of several."""
    clock: Callable[[], float] = time.perf_counter
    """Where seconds come from, for probes of time."""


class Result(FrozenConfig):
    """Numbers that survive JSON: NaN and infinities as text, which reads back."""

    model_config = ConfigDict(ser_json_inf_nan="strings")


class Series(Result):
    """Points that belong together."""

    name: str
    role: Role = "subject"
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    """Lower end of the spread behind each point; empty for none."""
    high: tuple[float, ...] = ()
    colour: tuple[float, ...] = ()
    """Of points: a number each, shown as its colour."""
    shape: Literal["solid", "dashed"] = "solid"
    marked: bool = False
    """Whether a line shows its points, too."""
    n: int = Field(ge=1)
    """What is behind each point: runs, trajectories, examples."""


class Panel(Result):
    """One pair of axes."""

    title: str
    kind: PanelKind = "lines"
    x_label: str
    y_label: str
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    equal_axes: bool = False
    limit: float | None = Field(None, gt=0)
    """Both axes end at ± this; None: where the data do."""
    y_range: tuple[float, float] | None = None
    """What the y axis covers, for panels to compare with each other; None: what the data do."""
    colour_label: str = ""
    series: tuple[Series, ...] = ()
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    """Of a table, [rows][columns]."""


class ProbeResult(Result):
    """What a probe found: everything that its picture and its paragraph show."""

    probe: str
    title: str
    question: str
    source: str
    how_to_read: str
    deviations: str
    subject: str
    n: int = Field(ge=1)
    """What is behind the main numbers: so many of `counted`."""
    counted: str
    findings: tuple[str, ...]
    """Sentences with the main numbers."""
    panels: tuple[Panel, ...] = Field(min_length=1)
    columns: int = Field(3, ge=1)
    """Panels side by side."""
    config: dict[str, Any]
    """The probe's configuration."""


class Probe(FrozenConfig):
    """The base of all probes. Subclasses state the texts below, and their sizes as fields with defaults.

    Defaults are sized for a minute or a few on two cores, `quick` ones for seconds.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    source: ClassVar[str]
    """Paper, section and figure."""
    how_to_read: ClassVar[str]
    deviations: ClassVar[str]
    quick_sizes: ClassVar[dict[str, Any]]
    """What `quick` changes."""

    seed: int = Field(0, ge=0, lt=2**20, description="Same seed, same numbers (times excepted).")

    @classmethod
    def quick(cls, **changes: Any) -> Self:
        """Returns a probe that takes seconds: enough to see what it shows, not to conclude anything."""
        return derive(cls(), **{**cls.quick_sizes, **changes})

    def refuses(self, subject: Subject) -> str | None:
        """Returns why the probe makes no sense on `subject`, a sentence that names what fits; None: it does."""
        del subject
        return None

    @abstractmethod
    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns what `run` does; the subject fits."""

    def run(self, subject: Subject, bench: Bench | None = None) -> ProbeResult:
        """Probes `subject`.

        Raises:
          ProbeRefusedError: If the probe makes no sense on it.
        """
        reason = self.refuses(subject)
        if reason is not None:
            raise ProbeRefusedError(f"probe {self.name!r} does not fit {subject.label}: {reason}")
        return self.measure(subject, Bench() if bench is None else bench)

    def result(
        self,
        subject: Subject,
        panels: Iterable[Panel],
        *,
        n: int,
        counted: str,
        findings: Sequence[str],
        columns: int = 3,
    ) -> ProbeResult:
        """Returns the result, with the probe's own texts."""
        return ProbeResult(
            probe=self.name,
            title=self.title,
            question=self.question,
            source=self.source,
            how_to_read=self.how_to_read,
            deviations=self.deviations,
            subject=subject.label,
            n=n,
            counted=counted,
            findings=tuple(findings),
            panels=tuple(panels),
            columns=columns,
            config=self.model_dump(mode="json"),
        )


def floats(values: Any) -> tuple[float, ...]:
    """Returns an array's numbers as a flat tuple."""
    return tuple(float(value) for value in np.asarray(values).ravel())


def spread_series(name: str, x: Any, runs: np.ndarray, **fields: Any) -> Series:
    """Returns the mean over runs [n, len(x)] with the range from the lowest to the highest."""
    return Series(
        name=name,
        x=floats(x),
        y=floats(runs.mean(axis=0)),
        low=floats(runs.min(axis=0)),
        high=floats(runs.max(axis=0)),
        n=len(runs),
        **fields,
    )


def default_architecture(name: str) -> LearnedOptimizer:
    """Returns an architecture at its default sizes."""
    return ARCHITECTURES[name].model_validate({"architecture": name}).build()


def names_of(architectures: Iterable[str]) -> str:
    """Returns names for a sentence."""
    return ", ".join(repr(name) for name in sorted(architectures))
