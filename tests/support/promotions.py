"""Three registered optimizers with made-up evaluations, and what was decided on them."""

from __future__ import annotations

import jax
from made_up_evaluations import made_up_evaluation
from rich.console import Console

from curriculum.evaluation.summary import EvaluationSummary
from flows.artifacts import ArtifactSpec
from flows.evaluation.records import EvaluationRecord, record_evaluation
from flows.optimizer_reference import initial_theta, resolve_optimizer
from flows.parameters import PromoteParameters
from flows.progress import Reporter
from flows.promote import run_promotion
from flows.promotion.history import PromotionEvent, read_history
from flows.session import Session
from flows.settings import RuntimeSettings
from lopt.architectures import ARCHITECTURES
from storage.checkpoints import CheckpointStore
from storage.model_registry import ModelRegistry
from storage.tracking import MlflowTracker
from storage.workspace import Workspace

MODEL = "keirin"


def steady(speed: float) -> EvaluationSummary:
    """Returns an evaluation of four tasks, two of them held out, all with one speed-up; before training 0.25."""
    return made_up_evaluation([[speed, speed]] * 4, num_held_out=2, initial=0.25)


def record(
    session: Session, ref: str, summary: EvaluationSummary, *, tasks: str = "tasks"
) -> EvaluationRecord:
    """Records an evaluation that was asked for, on tasks of this name."""
    fingerprint = resolve_optimizer(ref, session).fingerprint
    spec = ArtifactSpec("evaluation", 1, {"tasks": tasks}, (fingerprint,))
    return record_evaluation(session.workspace, fingerprint, spec, summary.model_dump(mode="json"))


def three_versions(workspace: Workspace) -> Session:
    """Registers versions 1 to 3, with speed-ups of 1, 2 and 1.5 on the same tasks. Nobody is champion."""
    optimizer = ARCHITECTURES["pacer"]()
    registry, store = ModelRegistry(workspace), CheckpointStore(workspace.checkpoints)
    run = MlflowTracker(workspace).start_run("first")
    theta = initial_theta(optimizer.canonical_json(), seed=0)
    for step in (1, 2, 3):
        moved = jax.tree.map(lambda leaf, step=step: leaf + 0.01 * step, theta)
        metadata = {"architecture": optimizer.model_dump(mode="json"), "seed": 0}
        registry.register(MODEL, store.save("first", step, {"theta": moved}, metadata), run.run_id)
    opened = Session(RuntimeSettings(home=workspace.root), Reporter(Console(quiet=True)))
    for version, speed in ((1, 1.0), (2, 2.0), (3, 1.5)):
        record(opened, uri(version), steady(speed))
    return opened


def uri(version: int) -> str:
    return f"models:/{MODEL}/{version}"


def promote(session: Session, version: int, gate: str = "default") -> bool:
    """Returns whether the version has become champion."""
    return run_promotion(PromoteParameters(optimizer=uri(version), gate=gate), session).promoted


def champion(session: Session) -> int | None:
    return session.registry.aliases(MODEL).get("champion")


def events(session: Session) -> list[PromotionEvent]:
    return [numbered.event for numbered in read_history(session.workspace)]


def moves(session: Session) -> list[tuple[str, int | None, int | None, int | None]]:
    """Returns kind, version, former and new champion of every decision."""
    return [(e.kind, e.version, e.from_version, e.to_version) for e in events(session)]
