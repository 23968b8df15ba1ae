"""A workspace and a curriculum so small that a step takes seconds, and the command `keirin` in this process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from made_up_report import made_up_report

from curriculum.phase import Phase, ThetaOptimizerConfig
from curriculum.worker import InProcessWorkerPool
from flows.optimizer_reference import initial_theta
from flows.reporting import ReportData
from lopt.architectures import ARCHITECTURES
from lopt.config import derive
from lopt.estimators.full_es import FullEsConfig
from runtime_model.guess import guess_from_flops
from runtime_model.reference import reference_timings
from runtime_model.rejection import ProblemSizeThresholds
from runtime_model.timing import StepTiming
from storage.checkpoints import CheckpointStore
from storage.mlflow_client import migrate_tracking_database
from storage.model_registry import ModelRegistry
from storage.tracking import MlflowTracker
from storage.workspace import Workspace

Refused = Callable[..., "Answer"]


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        assert "Traceback" not in self.out + self.err
        assert "unexpected" not in lines[0]
        return lines[0].removeprefix("Error: ")


class CountingPool(InProcessWorkerPool):
    """Runs units here and counts them."""

    def __init__(self) -> None:
        self.num_units = 0
        self.num_closed = 0

    def run_all(
        self, fn: Any, payloads: Sequence[Any], *, affinity: Any = None, costs: Any = None
    ) -> list[Any]:
        self.num_units += len(payloads)
        return super().run_all(fn, payloads, affinity=affinity, costs=costs)

    def imap_unordered(
        self, fn: Any, payloads: Sequence[Any], *, affinity: Any = None, timeout: Any = None
    ) -> Iterator[tuple[int, Any]]:
        self.num_units += len(payloads)
        return super().imap_unordered(fn, payloads, affinity=affinity, timeout=timeout)

    def close(self) -> None:
        self.num_closed += 1


class FlopsModel:
    """Stands in for a fitted run-time model: everything runs, in proportion to its arithmetic."""

    predict = staticmethod(guess_from_flops)


@pytest.fixture(scope="session")
def few_reference_timings() -> tuple[StepTiming, ...]:
    """Returns a few of the shipped timings: enough for a base that is fitted in a second."""
    return tuple(t for t in reference_timings() if t.family in ("mlp", "conv"))[:40]


@pytest.fixture(autouse=True, scope="module")
def optax_promotes() -> Iterator[None]:
    """optax's bias corrections mix float32 and int32, so what calls `optax.adam` cannot be tested strictly."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def tiny_curriculum() -> tuple[Phase, ...]:
    """Two phases of a task each; the second starts from the first one's result."""
    first = Phase(
        name="first",
        summary="for tests",
        distribution="demo",
        problem_size=ProblemSizeThresholds(seconds=(1e-4,), probabilities=(1.0,)),
        max_num_params=400,
        num_static_configs=1,
        estimator=FullEsConfig(
            sigma=0.03, min_horizon=3, max_horizon=5, num_tasks=1, num_pairs=1, num_final_batches=1
        ),
        theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-2, gradient_clip=5.0, warm_up=1),
        outer_steps=4,
        validate_every=2,
        checkpoint_every=1,
    )
    return first, derive(first, name="second", start_from="first")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server of the tests' own."""
    from prefect.testing.utilities import prefect_test_harness

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with prefect_test_harness(server_startup_timeout=120):
            yield


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_curriculum: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Makes the tiny phases the curriculum "demo", and the run-time model one that needs no fit."""
    import flows.training.plan
    from curriculum.phases import CURRICULA

    monkeypatch.setitem(CURRICULA, "demo", tiny_curriculum)
    monkeypatch.setattr(flows.training.plan, "load_runtime_model", lambda _: ("flops", FlopsModel()))
    return tiny_curriculum


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new tracking database, which takes seconds to make."""
    workspace = Workspace(tmp_path_factory.mktemp("database")).ensure()
    migrate_tracking_database(workspace)
    return workspace.mlflow_database


@pytest.fixture
def workspace(tmp_path: Path, empty_database: Path) -> Workspace:
    """The workspace that the commands use."""
    workspace = Workspace(tmp_path / "home").ensure()
    shutil.copy(empty_database, workspace.mlflow_database)
    return workspace


@pytest.fixture
def champions(workspace: Workspace) -> Workspace:
    """Two registered optimizers: version 2 is champion and candidate, version 1 was champion before."""
    optimizer = ARCHITECTURES["pacer"]()
    registry, store = ModelRegistry(workspace), CheckpointStore(workspace.checkpoints)
    run = MlflowTracker(workspace).start_run("first")
    for step in (1, 2):
        theta = initial_theta(optimizer.canonical_json(), seed=0)
        metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0}
        info = store.save("first", step, {"theta": theta, "step": {"n": step * np.ones(3)}}, metadata)
        version = registry.register("keirin", info, run.run_id)
        registry.promote("keirin", version)
    registry.set_alias("keirin", "candidate", 2)
    return workspace


@pytest.fixture(scope="module")
def data() -> ReportData:
    """What a report is made of: a whole made-up run."""
    return made_up_report()


@pytest.fixture
def pool() -> CountingPool:
    return CountingPool()


@pytest.fixture(scope="session")
def counting_pool() -> type[CountingPool]:
    """The class, for tests that open a pool more than once."""
    return CountingPool


@pytest.fixture
def keirin(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    prefect_server: None,
    pool: CountingPool,
) -> Iterator[Refused]:
    """The command, in this process: its own Prefect server and worker processes replaced, all else as it is."""
    import flows.commands.launch
    import flows.session
    from flows.cli import app
    from flows.commands.errors import guarded

    @contextlib.contextmanager
    def prefect_api(*_: object, **__: object) -> Iterator[Callable[[], None]]:
        yield lambda: None

    monkeypatch.setattr(flows.commands.launch, "_prefect_api", prefect_api)
    monkeypatch.setattr(flows.commands.launch, "apply_worker_environment", lambda _: None)
    monkeypatch.setattr(flows.session, "_open_dask_pool", lambda _: pool)
    monkeypatch.setenv("KEIRIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = guarded(lambda: app([str(argument) for argument in arguments]), debug=False)
        return Answer(code, *capsys.readouterr())

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in previous.items():
        signal.signal(number, handler)
