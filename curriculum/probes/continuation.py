"""Four ways to go on after a run's end, ranked over many runs, with one run of the whole length for comparison.

[1] Metz et al. 2022, "VeLO", 4.4.3 and Fig. 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field
from scipy.stats import rankdata

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Series, Subject, floats
from curriculum.probes.tasks import autoencoder, conv, mlp, quadratic
from curriculum.probes.training import run_keys
from lopt.family_data import separate_data
from lopt.inner_loop import InnerState, init_inner, mean_loss, unroll
from lopt.types import PRNGKey, Scalar, TaskFamily
from lopt.use.binding import bind
from lopt.use.continuation import Continuation, continue_run
from task_generator.task_config import TaskConfig

COMPLETE = "complete"
WAYS: tuple[Continuation, ...] = get_args(Continuation)
LABELS = {
    COMPLETE: "complete (one run)",
    "increase_steps": "increase steps",
    "reset_steps": "reset steps",
    "full_reset": "full reset",
    "naive": "naive",
}


class _Run(NamedTuple):
    """One split run: where it was split, the losses [P] until there, and those from there on of every method."""

    split: int
    before: np.ndarray
    losses: dict[str, np.ndarray]


class ContinuationRanks(Probe):
    """Splits runs at random points, goes on in every way, and ranks the final training losses."""

    name: ClassVar[str] = "continuation"
    title: ClassVar[str] = "Continuing a finished run"
    question: ClassVar[str] = "When training goes on after the planned end, which way of going on works best?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), 4.4.3, Fig. 10"
    how_to_read: ClassVar[str] = (
        "Left, one run: it was planned to end at the dotted line, and went on from there in four ways; the "
        "fifth line was planned for the whole length from the start. Right, many such runs: each row is a way, "
        "each column a place from 1 (lowest final loss) to 5, each cell the share of runs that took that "
        "place; a row sums to 100 %. Good ways have their weight on the left. Equal losses share the better "
        "place, so a column can hold more than its fifth: an optimizer that does not look at its progress ties "
        "everywhere."
    )
    deviations: ClassVar[str] = (
        "A handful of small tasks instead of 620; split points from N(½, ¼) of the run as in the paper, kept "
        "between a tenth and nine tenths."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {
        "tasks": (quadratic(dimension=4),),
        "num_steps": 40,
        "num_windows": 4,
        "num_seeds": 2,
    }

    tasks: tuple[TaskConfig, ...] = Field(
        (mlp(), mlp(hidden_size=16, num_layers=1, batch_size=16), conv(), autoencoder(), quadratic()),
        min_length=1,
    )
    num_steps: int = Field(400, ge=20)
    """Of both parts together."""
    num_windows: int = Field(20, ge=2)
    """Points along the continuation that is drawn."""
    num_seeds: int = Field(4, ge=1, le=100)
    """Runs, each with its own split, per task."""

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns one run's curves, and the ranks of all."""
        del bench
        keys = run_keys(self.seed, self.num_seeds)
        runs: list[_Run] = []
        for index, task in enumerate(self.tasks):
            splits = self._splits(index)
            runner = _Runner(subject, task.build(), self.num_windows)
            runs += [self._one(runner, keys[i], splits[i]) for i in range(self.num_seeds)]
        ranks = _ranks(runs)
        panels = (self._example(runs[0]), _rank_panel(ranks, len(runs)))
        counted = (
            f"runs: {self.num_seeds} initialisations of each of {len(self.tasks)} tasks, each split elsewhere"
        )
        return self.result(
            subject, panels, n=len(runs), counted=counted, findings=_findings(ranks), columns=2
        )

    def _splits(self, task: int) -> np.ndarray:
        """Returns where each run of a task is split, in steps."""
        rng = np.random.default_rng((self.seed, task))
        share = np.clip(rng.normal(0.5, 0.25, self.num_seeds), 0.1, 0.9)
        return np.rint(share * self.num_steps).astype(int)

    def _one(self, runner: _Runner, key: PRNGKey, split: int) -> _Run:
        first = runner.start(key, split)
        first, before = runner.advance(first, key, 0, split)
        whole = runner.start(key, self.num_steps)
        whole, _ = runner.advance(whole, key, 0, split)
        rest = self.num_steps - split
        losses = {COMPLETE: runner.advance(whole, key, split, rest)[1]}
        for how in WAYS:
            optimizer_state = continue_run(
                runner.optimizer(split),
                first.optimizer_state,
                first.task_state.params,
                num_steps=rest,
                how=how,
            )
            going_on = first._replace(optimizer_state=optimizer_state)
            losses[how] = runner.advance(going_on, key, split, rest)[1]
        return _Run(int(split), before, losses)

    def _example(self, run: _Run) -> Panel:
        steps = run.split + _stops(self.num_steps - run.split, self.num_windows)
        series = [
            Series(
                name=LABELS[how],
                role="other" if how == COMPLETE else "category",
                shape="dashed" if how == COMPLETE else "solid",
                x=floats(steps),
                y=floats(losses),
                n=1,
            )
            for how, losses in run.losses.items()
        ]
        before = Series(
            name="until its planned end",
            role="baseline",
            x=floats(_stops(run.split, self.num_windows)),
            y=floats(run.before),
            n=1,
        )
        losses = np.concatenate([run.before, *run.losses.values()])
        end = Series(
            name="planned end",
            role="reference",
            x=(float(run.split),) * 2,
            y=(float(np.nanmin(losses)), float(np.nanmax(losses))),
            n=1,
        )
        return Panel(
            title=f"One run, planned for {run.split} steps ({self.tasks[0].family.family})",
            x_label="inner step",
            y_label="training loss",
            y_scale="log",
            series=(before, end, *series),
        )


class _Runner:
    """One task's two programs: starting, and going on for any number of steps from any state."""

    def __init__(self, subject: Subject, family: TaskFamily, num_windows: int) -> None:
        self._subject = subject
        self._num_windows = num_windows
        self._data, with_data = separate_data(family)
        self._learned = subject.learned()
        self._theta = jax.tree.map(jnp.asarray, subject.theta)
        self._start: Callable[..., InnerState] = jax.jit(
            lambda data, theta, key, told: self._begin(with_data(data), theta, key, told)
        )
        self._advance: Callable[..., tuple[InnerState, jax.Array]] = jax.jit(
            lambda data, theta, state, key, first, length: self._go(
                with_data(data), theta, state, key, first, length
            )
        )

    def optimizer(self, num_steps: int) -> optax.GradientTransformationExtraArgs:
        """Returns the optimizer of a run of that many steps."""
        return bind(self._learned, self._theta, num_steps=int(num_steps))

    def start(self, key: PRNGKey, num_steps: int) -> InnerState:
        """Returns the state before a run that is told `num_steps`."""
        return self._start(self._data, self._theta, key, jnp.int32(num_steps))

    def advance(
        self, state: InnerState, key: PRNGKey, first: int, length: int
    ) -> tuple[InnerState, np.ndarray]:
        """Returns the state after the steps `first` ≤ t < `first + length`, and the losses on the way [P]."""
        state, losses = self._advance(
            self._data, self._theta, state, key, jnp.int32(first), jnp.int32(length)
        )
        return state, np.asarray(losses, np.float64)

    def _begin(self, family: TaskFamily, theta: Any, key: PRNGKey, told: Scalar) -> InnerState:
        dynamic_key, init_key, _, _ = jax.random.split(key, 4)
        task = family.task(family.sample_dynamic(dynamic_key))
        return init_inner(task, bind(self._learned, theta, num_steps=told), init_key)

    def _go(
        self,
        family: TaskFamily,
        theta: Any,
        state: InnerState,
        key: PRNGKey,
        first: Scalar,
        length: Scalar,
    ) -> tuple[InnerState, jax.Array]:
        dynamic_key, _, train_key, eval_key = jax.random.split(key, 4)
        task = family.task(family.sample_dynamic(dynamic_key))
        optimizer = bind(self._learned, theta, num_steps=length)  # what counts is what the state holds

        def window(carry: InnerState, ends: tuple[Scalar, Scalar]) -> tuple[InnerState, Scalar]:
            start, stop = ends
            carry = unroll(task, optimizer, carry, train_key, start=start, stop=stop)
            return carry, mean_loss(task, carry.task_state, eval_key, num_batches=8)

        index = jnp.arange(self._num_windows + 1, dtype=jnp.int32)
        stops = first + (index * length) // self._num_windows
        return jax.lax.scan(window, state, (stops[:-1], stops[1:]))


def _stops(length: int, num_windows: int) -> np.ndarray:
    return np.asarray([(i * length) // num_windows for i in range(1, num_windows + 1)])


def _ranks(runs: list[_Run]) -> dict[str, np.ndarray]:
    """Returns each method's places over all runs, from 1; equal losses share the better place."""
    methods = (COMPLETE, *WAYS)
    final = np.asarray([[run.losses[how][-1] for how in methods] for run in runs])
    places = rankdata(np.where(np.isfinite(final), final, np.inf), method="min", axis=1)
    return {how: places[:, i].astype(int) for i, how in enumerate(methods)}


def _rank_panel(ranks: dict[str, np.ndarray], num_runs: int) -> Panel:
    count = len(ranks)
    shares = [tuple(float(np.mean(places == k + 1)) for k in range(count)) for places in ranks.values()]
    return Panel(
        title=f"Places by final training loss · n = {num_runs} runs",
        kind="table",
        x_label="place",
        y_label="",
        colour_label="share of runs",
        rows=tuple(LABELS[how] for how in ranks),
        columns=tuple(str(k + 1) for k in range(count)),
        values=tuple(shares),
    )


def _findings(ranks: dict[str, np.ndarray]) -> list[str]:
    continued = np.stack([ranks[how] for how in WAYS])
    total = continued.shape[1]
    lines = []
    for index, how in enumerate(WAYS):
        best = int(np.sum(continued[index] == continued.min(axis=0)))
        lines.append(
            f"{LABELS[how]}: best (or equal best) of the four in {best} of {total} runs, mean place "
            f"{ranks[how].mean():.1f}."
        )
    lines.append(
        f"One complete run beats increase steps in "
        f"{int(np.sum(ranks[COMPLETE] < ranks['increase_steps']))} of {total}."
    )
    return lines
