"""An optimizer's weights in one file, for programs that have no workspace: `keirin export`."""

from __future__ import annotations

from pathlib import Path

from flows.optimizer_reference import OptimizerReference, read_config, resolve_optimizer
from flows.session import Session
from lopt.use.shipped import write_weights
from storage.errors import explain_os_errors


def export_weights(ref: str, path: Path, session: Session) -> str:
    """Writes the weights behind `ref` to `path`, which is replaced whole or not at all. Returns what was written.

    The file says what the weights were trained on, as far as the checkpoint does, so that an evaluation of it
    knows which tasks are held out; and from where, so that it knows what training gained.

    Args:
      ref: What `flows.optimizer_reference.resolve_optimizer` takes; its errors are this function's.
      path: Must end in `.npz`.
      session: Whose registry to ask.

    Raises:
      ValueError: If the path ends otherwise.
      StorageError: If the file cannot be written.
    """
    optimizer = resolve_optimizer(ref, session)
    domains = optimizer.trained_on
    with explain_os_errors(path, "export weights"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_weights(
            path,
            read_config(optimizer.config()),
            optimizer.theta,
            note=_origin(optimizer),
            trained_on=None if domains is None else [domain.model_dump(mode="json") for domain in domains],
            initial_seed=optimizer.initial_seed,
        )
    return f"{_origin(optimizer)}, in {path}: lopt.load({str(path)!r}, num_steps=…)"


def _origin(optimizer: OptimizerReference) -> str:
    """Returns who the weights are, for people."""
    name = optimizer.config()["architecture"]
    version = "" if optimizer.version is None else f" (version {optimizer.version})"
    domains = optimizer.trained_on
    phases = "phases that are not known" if domains is None else ", ".join(each.phase for each in domains)
    return f"{name}, {optimizer.ref}{version}, {f'trained in {phases}' if phases else 'not trained'}"
