"""What `keirin data` prints and draws."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.commands.data_preparation import prepare
from lopt.registry import lookup
from lopt.types import SPLITS
from storage.dataset_arrays import folder_bytes
from storage.datasets import WorkspaceReader, dataset_folder, part_names, prepared_parts
from storage.errors import DamagedDatasetError, explain_os_errors
from storage.workspace import Workspace
from task_generator.datasets.byte_tokens import decode_bytes
from task_generator.datasets.english_subwords import ENGLISH_SUBWORDS, english_vocabulary
from task_generator.datasets.images import DATASETS, EMBEDDED_IMAGES
from task_generator.datasets.prepared import use_reader
from task_generator.datasets.source import ImageSource, TextSource
from task_generator.datasets.subwords import decode_subwords
from task_generator.datasets.text import EMBEDDED_TEXTS, TEXTS

KNOWN: dict[str, ImageSource | TextSource] = {**DATASETS, **TEXTS}
SHEET_COLUMNS, SHEET_ROWS = 10, 2
SAMPLE_TOKENS = 400


def rows(workspace: Workspace) -> list[dict[str, Any]]:
    """Returns a row per data set: name, kind, classes or vocabulary, examples, where it is, bytes on disk."""
    found = []
    for name, source in KNOWN.items():
        where, count, num_bytes = _where(workspace, name)
        if isinstance(source, TextSource):
            kind, classes, declared = "text", source.vocab_size, source.num_tokens
        else:
            side = source.native_size
            kind, classes, declared = (
                f"{side}×{side}×{source.channels}",
                source.num_classes,
                source.num_images,
            )
        found.append(
            {
                "name": name,
                "kind": kind,
                "classes": classes,
                "examples": count or declared,
                "where": where,
                "bytes": num_bytes,
            }
        )
    return found


def _where(workspace: Workspace, name: str) -> tuple[str, int | None, int]:
    """Returns where a data set is in words, how many examples are there, and the bytes it takes on disk."""
    place = dataset_folder(workspace, name, "")
    num_bytes = folder_bytes(place)
    if name in EMBEDDED_IMAGES or name in EMBEDDED_TEXTS:
        return "embedded", None, num_bytes
    try:
        parts = prepared_parts(workspace, name)
        count = WorkspaceReader(workspace).count(name)
    except DamagedDatasetError:
        return "damaged: prepare it again", None, num_bytes
    return (f"prepared: {', '.join(part_names(parts))}" if parts else "not here"), count, num_bytes


def show_list(workspace: Workspace, *, as_json: bool) -> None:
    """Prints the data sets, as a table or as JSON."""
    found = rows(workspace)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("classes or\nvocabulary", justify="right")
    table.add_column("images or\ntokens", justify="right")
    table.add_column("where")
    table.add_column("MB here", justify="right")
    for row in found:
        size = f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else ""
        table.add_row(
            row["name"], row["kind"], str(row["classes"]), _short(row["examples"]), row["where"], size
        )
    console = Console()
    console.print(table)
    console.print("Get one that is not here: keirin data prepare NAME \\[--from FOLDER]")


def _short(count: int) -> str:
    """Returns a count in few characters: 1,797 or 4,000 M."""
    return f"{count / 1e6:,.0f} M" if count >= 10**7 else f"{count:,}"


def run_prepare(
    workspace: Workspace, name: str, *, folder: Path | None, sizes: Sequence[int], max_examples: int | None
) -> None:
    """Prepares a data set, showing progress, and says what was made."""
    console = Console()
    start = time.perf_counter()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def advance(doing: str, count: int) -> None:
            if doing not in tasks:
                tasks[doing] = progress.add_task(doing, total=None)
            progress.advance(tasks[doing], count)

        made = prepare(
            workspace, name, folder=folder, sizes=sizes, max_examples=max_examples, on_progress=advance
        )
    if not made:
        console.print(f"{name} is complete: nothing to do.")
        return
    places = {dataset_folder(workspace, part if part in KNOWN else name, "") for part in made}
    num_bytes = sum(folder_bytes(place) for place in places)
    seconds = time.perf_counter() - start
    console.print(f"Prepared {name} ({', '.join(made)}): {num_bytes / 1e6:.1f} MB in {seconds:.1f} s.")


def run_show(workspace: Workspace, name: str, *, size: int | None, out: Path | None) -> None:
    """Draws a contact sheet, or prints a piece of text."""
    source = lookup(KNOWN, name, kind="dataset")
    reader = WorkspaceReader(workspace)
    with use_reader(reader):
        if isinstance(source, TextSource):
            if size is not None or out is not None:
                raise ValueError(f"`--size` and `--out` are for images; {name!r} is a text. Leave them out.")
            _print_text(name, source, reader)
            return
        side = size or source.native_size
        splits = source.load(side)
    path = out or Path(f"{name}-{side}.png")
    with explain_os_errors(path, "write the contact sheet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_contact_sheet(path, f"{name}, {side}×{side} pixels", splits)
    counts = ", ".join(f"{split} {len(splits[split][1]):,}" for split in SPLITS)
    print(f"{name}: {counts} images.\nWrote {path}.")


def draw_contact_sheet(path: Path, title: str, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Writes a PNG with images of every split, evenly spaced (some sets are in order), each with its label."""
    from matplotlib.figure import Figure

    count = SHEET_COLUMNS * SHEET_ROWS
    figure = Figure(
        figsize=(SHEET_COLUMNS * 0.9, len(SPLITS) * SHEET_ROWS * 1.15 + 0.6), layout="constrained"
    )
    figure.suptitle(title)
    for part, split in zip(np.asarray(figure.subfigures(len(SPLITS), 1)), SPLITS, strict=True):
        images, labels = splits[split]
        part.suptitle(f"{split}: {len(labels):,}", fontsize=9, x=0.02, ha="left")
        axes = np.asarray(part.subplots(SHEET_ROWS, SHEET_COLUMNS)).ravel()
        for axis in axes:
            axis.axis("off")
        chosen = np.unique(np.linspace(0, len(labels) - 1, count).astype(int))
        for axis, image, label in zip(axes, images[chosen], labels[chosen], strict=False):
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axis.set_title(str(label), fontsize=7, pad=2)
    figure.savefig(path, dpi=120, format="png")


def _print_text(name: str, source: TextSource, reader: WorkspaceReader) -> None:
    splits = source.load()
    console = Console(highlight=False)
    for split in SPLITS:
        ids = np.asarray(splits[split][:SAMPLE_TOKENS])
        console.rule(f"{split}: {len(splits[split]):,} tokens")
        console.print(decode(name, ids, reader), markup=False)


def decode(name: str, ids: np.ndarray, reader: WorkspaceReader) -> str:
    """Returns the text of some ids of the text `name`."""
    if TEXTS[name] is ENGLISH_SUBWORDS:
        return decode_subwords(english_vocabulary(), ids)
    vocabulary = reader.vocabulary(name)
    return decode_bytes(ids) if vocabulary is None else decode_subwords(vocabulary, ids)
