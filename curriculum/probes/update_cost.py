"""What an update costs: time = λ_overhead + λ_params · parameters.

[1] Metz et al. 2022, "VeLO", B.7, Eq. 3 and Fig. 18a.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field
from scipy.optimize import least_squares

from curriculum.probes.base import Bench, Panel, Probe, ProbeResult, Role, Series, Subject, floats

NUM_MATRICES = 3


class CostFit(NamedTuple):
    """The two numbers of Eq. 3, in seconds."""

    overhead: float
    per_parameter: float

    def seconds(self, sizes: np.ndarray) -> np.ndarray:
        """Returns what the model says for numbers of parameters."""
        return self.overhead + self.per_parameter * np.asarray(sizes, np.float64)


def fit_costs(sizes: np.ndarray, seconds: np.ndarray) -> CostFit:
    """Fits log(seconds) = log(λ_overhead + λ_params · sizes), both λ positive: least squares in log space."""
    model = lambda logs: np.logaddexp(logs[0], logs[1] + np.log(sizes))
    start = [np.log(seconds[0]), np.log(seconds[-1] / sizes[-1])]
    logs = least_squares(lambda x: model(x) - np.log(seconds), start).x
    return CostFit(float(np.exp(logs[0])), float(np.exp(logs[1])))


class UpdateCost(Probe):
    """Times updates of three square matrices of rising size, and fits Eq. 3."""

    name: ClassVar[str] = "update_cost"
    title: ClassVar[str] = "Cost per step"
    question: ClassVar[str] = "What does an update cost, and from which size of model on does that matter?"
    source: ClassVar[str] = "Metz et al. 2022 (VeLO), B.7, Eq. 3, Fig. 18a"
    how_to_read: ClassVar[str] = (
        "Dots are measured, lines are λ_overhead + λ_params · parameters fitted to them. Where a line is flat, "
        "launching the update is the cost and its size is free; where it rises, the work per parameter is. The "
        "height of the flat part tells optimizers apart on small models, the rising part on large ones. It is "
        "the update alone: with large batches the task's own gradient costs far more, and an expensive update "
        "hardly shows. Dots far off their line mean that the machine was busy, or that caches overflow at that "
        "size."
    )
    deviations: ClassVar[str] = (
        "Least squares in log space instead of gradient descent there; the median of repeated updates, taken "
        "in turns so that all optimizers see the same load. Times are this machine's, and the seed does not "
        "fix them."
    )
    quick_sizes: ClassVar[dict[str, Any]] = {"sides": (4, 16), "repeats": 3}

    sides: tuple[int, ...] = Field((8, 16, 32, 64, 128, 256, 512), min_length=2)
    """Rows and columns of the matrices, rising."""
    repeats: int = Field(30, ge=1)

    def measure(self, subject: Subject, bench: Bench) -> ProbeResult:
        """Returns times and fits of the subject, Adam and SGD."""
        makers = _makers(subject)
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for side in self.sides:
            programs = {name: _compiled(theta, make, side) for name, (theta, make) in makers.items()}
            for name, median in _time_in_turns(programs, self.repeats, bench.clock).items():
                seconds[name].append(median)
        sizes = NUM_MATRICES * np.square(np.asarray(self.sides, np.float64))
        fits = {name: fit_costs(sizes, np.asarray(times)) for name, times in seconds.items()}
        panel = _panel(sizes, seconds, fits, self.repeats)
        findings = [_finding(name, fit, fits["SGD"]) for name, fit in fits.items()]
        counted = "timed updates, of which the median counts"
        return self.result(subject, [panel], n=self.repeats, counted=counted, findings=findings)


Maker = tuple[Any, Callable[[Any], optax.GradientTransformationExtraArgs]]


def _makers(subject: Subject) -> dict[str, Maker]:
    """Returns name → (theta, theta → transformation); theta is an argument of every timed program."""
    learned = subject.learned()
    theta = jax.tree.map(jnp.asarray, subject.theta)
    fixed = {"Adam": optax.adam(1e-3), "SGD": optax.sgd(1e-3)}
    always = lambda optimizer: lambda _: optax.with_extra_args_support(optimizer)
    return {
        subject.label: (theta, lambda theta: learned.transform(theta, num_steps=1_000)),
        **{name: ((), always(optimizer)) for name, optimizer in fixed.items()},
    }


def _compiled(
    theta: Any, make: Callable[[Any], optax.GradientTransformationExtraArgs], side: int
) -> Callable[[], Any]:
    """Returns one update of `NUM_MATRICES` square matrices, compiled and run once."""
    keys = jax.random.split(jax.random.key(0), NUM_MATRICES)
    params = {f"w{i}": 0.1 * jax.random.normal(key, (side, side)) for i, key in enumerate(keys)}
    grads = jax.tree.map(lambda p: 0.1 * p + 0.01, params)

    def update(theta: Any, grads: Any, state: Any, params: Any) -> Any:
        return make(theta).update(grads, state, params, value=jnp.float32(1.0))

    state = jax.jit(lambda theta, params: make(theta).init(params))(theta, params)
    program = jax.jit(update)
    run = lambda: jax.block_until_ready(program(theta, grads, state, params))
    run()
    return run


def _time_in_turns(
    programs: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Returns the median seconds of each program, run one after the other, `repeats` times around."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, run in programs.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _panel(
    sizes: np.ndarray, seconds: dict[str, list[float]], fits: dict[str, CostFit], repeats: int
) -> Panel:
    line = np.geomspace(sizes[0], sizes[-1], 50)
    series = []
    for index, (name, times) in enumerate(seconds.items()):
        role: Role = "baseline" if index else "subject"
        fit = fits[name]
        label = (
            f"{name}: {_number(1e6 * fit.overhead)} µs + {_number(1e9 * fit.per_parameter)} ns per parameter"
        )
        series.append(Series(name=label, role=role, x=floats(line), y=floats(fit.seconds(line)), n=repeats))
        series.append(
            Series(
                name="", role=role, shape="dashed", x=floats(sizes), y=floats(times), marked=True, n=repeats
            )
        )
    return Panel(
        title=f"One update of three square matrices ({jax.devices()[0].device_kind})",
        x_label="parameters",
        y_label="seconds per update",
        x_scale="log",
        y_scale="log",
        series=tuple(series),
    )


def _number(value: float) -> str:
    """Returns about two digits, without an exponent where there are more before the point."""
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.2g}"


def _finding(name: str, fit: CostFit, sgd: CostFit) -> str:
    return (
        f"{name}: {_number(1e6 * fit.overhead)} µs and {_number(1e9 * fit.per_parameter)} ns per parameter, "
        f"{fit.overhead / sgd.overhead:.1f} × and {fit.per_parameter / sgd.per_parameter:.1f} × SGD's; the "
        f"overhead is half of the cost at {fit.overhead / fit.per_parameter:,.0f} parameters."
    )
