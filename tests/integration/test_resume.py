"""Real commands, killed: what was stored continues to the same bits, and no process stays behind.

The commands are `keirin` itself with one change: the curriculum "demo" is a phase of seconds.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from killed_commands import Command, is_alive

from curriculum.phase import Mode, Phase, ThetaOptimizerConfig
from flows.settings import RuntimeSettings
from flows.training.history import PhaseHistory
from flows.workers.environment import worker_environment
from lopt.estimators.full_es import FullEsConfig
from runtime_model.rejection import ProblemSizeThresholds
from storage.checkpoint_reading import locate, verify
from storage.checkpoints import CheckpointStore
from storage.mlflow_client import query
from storage.model_registry import ModelRegistry
from storage.workspace import Workspace

pytestmark = pytest.mark.integration

OUTER_STEPS = 16
PHASE = Phase(
    name="tiny",
    summary="for tests",
    distribution="demo",
    problem_size=ProblemSizeThresholds(seconds=(1e-3,), probabilities=(1.0,)),
    min_valid_probability=0.0,
    max_num_params=400,
    num_static_configs=2,
    estimator=FullEsConfig(
        sigma=0.03, min_horizon=3, max_horizon=5, num_tasks=1, num_pairs=1, num_final_batches=1
    ),
    theta_optimizer=ThetaOptimizerConfig(learning_rate=1e-2, gradient_clip=5.0, warm_up=1),
    outer_steps=OUTER_STEPS,
    validate_every=4,
    checkpoint_every=1,
)

TINY_CURRICULUM = f"""
from curriculum.phase import Phase
from curriculum.phases import CURRICULA
CURRICULA["demo"] = (Phase.model_validate_json({PHASE.model_dump_json()!r}),)
"""

COMMAND = f"""{TINY_CURRICULUM}
from flows.cli import main
main()
"""

STEP = f"""{TINY_CURRICULUM}
import importlib, os, signal, sys
from rich.console import Console
home, where, name, count, when, mode = sys.argv[1:]

# SIGKILL at the `count`th call of `where.name`, before or after it has done its work.
owner = importlib.import_module(where.partition(":")[0])
for part in filter(None, where.partition(":")[2].split(".")):
    owner = getattr(owner, part)
original, calls = getattr(owner, name), 0

def deadly(*arguments, **keywords):
    global calls
    calls += 1
    if calls == int(count) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(*arguments, **keywords)
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, deadly)
from curriculum.worker import InProcessWorkerPool
from flows.meta_train_phase import run_training
from flows.parameters import TrainParameters
from flows.progress import Reporter
from flows.session import Session
from flows.settings import RuntimeSettings
session = Session(
    RuntimeSettings(home=home), Reporter(Console()), open_pool=lambda _: InProcessWorkerPool()
)
run_training(TrainParameters(mode=mode), session)
"""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run-time model, fitted to made-up timings in a second."""
    from rich.console import Console

    import flows.fit_runtime_model as step
    import flows.run_times.models as models
    from flows.parameters import FitParameters, SampleParameters
    from flows.progress import Reporter
    from flows.sample_tasks import draw
    from flows.session import Session
    from runtime_model.fitting import fit
    from runtime_model.reference import reference_timings
    from storage.tracking import MlflowTracker

    home = tmp_path_factory.mktemp("fitted")
    configs = draw(SampleParameters(count=10))
    session = Session(RuntimeSettings(home=home), Reporter(Console(quiet=True)))
    session.timings.append([_timing(config) for config in configs])
    few = tuple(t for t in reference_timings() if t.family in ("mlp", "conv"))[:40]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "fit", functools.partial(fit, num_folds=2))
        patch.setattr(models, "reference_timings", lambda: few)
        patch.setattr(step, "_register", lambda *_: None)  # MLflow's runs have absolute paths
        step.run_fit(FitParameters(), session)
    MlflowTracker(session.workspace)  # makes the database
    return home


def _timing(config: Any) -> dict[str, Any]:
    return {
        "config_fingerprint": config.fingerprint(),
        "config_json": config.canonical_json(),
        "family": config.family.family,
        "seconds_per_step": 2e-5 + config.approximate_cost()["flops_per_step"] / 1e10,
        "compile_seconds": 1.0,
        "valid": True,
        "num_steps": 100,
    }


@pytest.fixture
def new_home(fitted: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes copies of the workspace. MLflow stores absolute paths: one that has runs must not be copied."""
    import shutil

    def copy(name: str) -> Path:
        home = tmp_path / name
        shutil.copytree(fitted, home, ignore=shutil.ignore_patterns("mlflow.*", "compilation_cache"))
        (home / "compilation_cache").symlink_to(tmp_path / "compilation_cache", target_is_directory=True)
        (tmp_path / "compilation_cache").mkdir(exist_ok=True)
        return home

    return copy


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(home: Path, *, workers: int) -> Command:
        commands.append(Command(COMMAND, home, workers=workers))
        return commands[-1]

    yield start
    for command in commands:
        for process in [*command.children, command.process]:
            if process.pid and _still(process):
                os.kill(process.pid, signal.SIGKILL)
        command.process.wait()


def _still(process: Any) -> bool:
    return process.poll() is None if isinstance(process, subprocess.Popen) else is_alive(process)


def final_digest(home: Path) -> str:
    """Returns the digest of the arrays of the phase's last checkpoint."""
    store = CheckpointStore(home / "checkpoints")
    (run,) = store.phases()
    return store.load(store.info(run, OUTER_STEPS)).digest


@pytest.fixture
def expected(new_home: Callable[[str], Path], start: Callable[..., Command]) -> str:
    """The digest of a run on one worker that nothing happens to."""
    home = new_home("whole")
    command = start(home, workers=1)
    assert command.end() == 0, command.log.read_text()
    return final_digest(home)


def interrupt(command: Command, outer_step: int, number: int) -> int:
    """Sends a signal once a step is stored; returns the last stored step when every process is gone."""
    command.wait_for_step(outer_step)
    code = command.end(number)
    assert code == (-number if number == signal.SIGKILL else 128 + number), command.log.read_text()
    assert command.left_behind() == []
    for info in command.store.list():
        verify(info)
    stored = max(command.steps())
    assert outer_step <= stored < OUTER_STEPS
    return stored


def finish(command: Command) -> str:
    """Waits for the end of the command; returns what it printed."""
    assert command.end() == 0, command.log.read_text()
    assert command.left_behind() == []
    return " ".join(command.log.read_text().split())


@pytest.mark.slow
def test_killed_and_continued_with_a_worker_killed_is_the_same_theta(
    new_home: Callable[[str], Path], start: Callable[..., Command], expected: str
) -> None:
    """Two workers, SIGKILL to the command, then to a worker: as one worker that nothing happens to."""
    home = new_home("broken")
    killed_at = interrupt(start(home, workers=2), 3, signal.SIGKILL)
    command = start(home, workers=2)
    command.wait_for_step(killed_at + 1)
    command.workers()[0].kill()
    log = finish(command)
    assert f"continues from outer step {killed_at} of {OUTER_STEPS}" in log
    assert "Traceback" not in log
    assert final_digest(home) == expected


@pytest.mark.slow
def test_told_to_stop_it_stores_what_it_has(
    new_home: Callable[[str], Path], start: Callable[..., Command], expected: str
) -> None:
    """SIGTERM is what Prefect sends to a cancelled run."""
    home = new_home("broken")
    stopped_at = interrupt(start(home, workers=2), 3, signal.SIGTERM)
    log = finish(start(home, workers=2))
    assert f"continues from outer step {stopped_at} of {OUTER_STEPS}" in log
    assert "Traceback" not in log
    assert final_digest(home) == expected


MOMENTS = [
    ("storage.checkpoints", "write_folder", 3, "before"),
    ("storage.files:os", "rename", 2, "before"),  # with the next checkpoint written, but not in its place
    ("storage.checkpoints:CheckpointStore", "prune", 3, "before"),
    ("storage.tracking:MlflowRun", "log_points", 2, "after"),
    ("storage.model_registry:ModelRegistry", "register", 1, "before"),
    ("storage.model_registry:ModelRegistry", "register", 1, "after"),
    ("storage.model_registry:ModelRegistry", "set_alias", 1, "after"),
    ("flows.artifacts:ArtifactStore", "write", 1, "before"),
    ("storage.workspace:Workspace", "write_state", 1, "before"),
]
"""Where the process is killed, one run after the other, on the way through one phase."""
NEVER = ("storage.workspace:Workspace", "write_state", 99, "before")


def run_step(
    home: Path,
    where: str,
    name: str,
    count: int,
    when: str,
    *,
    mode: Mode = "synchronous",
    timeout: float = 300,
) -> int:
    """Returns how the process ended that is killed there."""
    command = [sys.executable, "-c", STEP, str(home), where, name, str(count), when, mode]
    environment = {**os.environ, **worker_environment(RuntimeSettings(home=home))}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, timeout=timeout)
    return done.returncode


@pytest.mark.slow
def test_killed_at_every_delicate_moment(new_home: Callable[[str], Path]) -> None:
    whole, broken = new_home("whole"), new_home("broken")

    assert run_step(whole, *NEVER) == 0
    for moment in MOMENTS:
        assert run_step(broken, *moment) == -signal.SIGKILL, moment
        for info in CheckpointStore(broken / "checkpoints").list():
            verify(info)
    assert run_step(broken, *NEVER) == 0
    assert final_digest(broken) == final_digest(whole)
    (folder,) = (broken / "checkpoints").iterdir()
    assert not [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]
    registry = ModelRegistry(Workspace(broken))
    assert set(registry.aliases()) == {"tiny", "candidate"}
    for alias in registry.aliases():
        assert verify(locate(registry.resolve(alias)))
    assert registry.aliases()["tiny"] == registry.aliases()["candidate"] == max(registry.versions())


@pytest.mark.slow
def test_an_asynchronous_learner_killed_between_two_writes_loses_no_more_than_since_the_last(
    new_home: Callable[[str], Path],
) -> None:
    """A checkpoint at every outer step: at most one step is done twice, and MLflow has each once or twice."""
    home, stored = new_home("broken"), [-1]
    store = CheckpointStore(home / "checkpoints")
    for moment in MOMENTS[:3]:
        assert run_step(home, *moment, mode="asynchronous") == -signal.SIGKILL, moment
        for info in store.list():
            verify(info)
        stored.append(max((info.outer_step for info in store.list()), default=-1))
        assert stored[-1] >= stored[-2] + 1  # each run came further than the one before
    assert run_step(home, *NEVER, mode="asynchronous") == 0
    (phase,) = store.phases()
    last = store.load(store.info(phase, OUTER_STEPS))
    history = PhaseHistory.from_arrays(last.trees["history"]).columns
    assert history["outer_step"] == list(range(1, OUTER_STEPS + 1))
    assert sorted(set(history["validated_at"])) == history["validated_at"]  # every theta once
    rows = query(
        Workspace(home).mlflow_database,
        "select step, value from metrics where key = 'inner_steps' order by timestamp",
    )
    times = [len([step for step, _ in rows if step == number]) for number in range(1, OUTER_STEPS + 1)]
    assert min(times) == 1
    assert sum(times) == len(rows) <= OUTER_STEPS + len(MOMENTS[:3])
    assert dict(rows)[OUTER_STEPS] == sum(history["num_inner_steps"])
