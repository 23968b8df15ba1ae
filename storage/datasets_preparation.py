"""Preparing data sets: from a reader of files or of a hub to folders of arrays, once, in bounded memory.

Images: the official training set is shuffled once with a fixed seed (files are often sorted by class) and cut
80 / 10 / 10 % into train, inner_valid and outer_valid; the official test set is the test. Without one, the last
tenth of the shuffled images is, and train is 70 %.

Texts: of every hundred documents of the training set the first is inner_valid, the second outer_valid, and,
where there is no official test set, the third is the test; the others are train. Nothing is shuffled.

What is complete and undamaged is left alone; what is stale, smaller than asked for or damaged is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from storage.bundles import DamagedBundleError, Manifest
from storage.dataset_arrays import ArrayFolderWriter, open_arrays
from storage.dataset_formats.base import ImageRequest, Splits
from storage.dataset_formats.text_files import Texts
from storage.datasets import NATIVE, SPLITS, TOKENS, VOCABULARY, dataset_folder
from storage.errors import DatasetSourceError, explain_os_errors
from storage.files import locked, remove_folder
from storage.workspace import Workspace

SHUFFLE_SEED = 0
WITH_TEST = {"train": 0.8, "inner_valid": 0.9, "outer_valid": 1.0}
WITHOUT_TEST = {"train": 0.7, "inner_valid": 0.8, "outer_valid": 0.9, "test": 1.0}
"""Where each split of the shuffled training set ends."""
VALIDATION_DOCUMENTS = {0: "inner_valid", 1: "outer_valid"}
VOCABULARY_CHARACTERS = 100_000_000
"""Of the training split: what a vocabulary is trained on."""
_ROWS = 4096
Progress = Callable[[str, int], None]
"""What is being done, and how many more examples of it are done."""


@dataclass(frozen=True)
class Source:
    """Where the files of a data set come from, and how much of it is wanted.

    Attributes:
      origin: A folder, or a name on the hub: what the manifest says.
      max_examples: At most so many of the official training set, and of the test set; None takes all.
    """

    origin: str
    max_examples: int | None = None


def prepare_images(
    workspace: Workspace,
    name: str,
    request: ImageRequest,
    read: Callable[[], Splits],
    source: Source,
    sizes: Sequence[int],
    on_progress: Progress,
) -> list[str]:
    """Prepares an image set at its native size and at `sizes`; returns the parts that had to be made.

    Raises:
      DatasetSourceError: If the files are not as they should be.
    """
    native = dataset_folder(workspace, name, NATIVE)
    made = []
    with explain_os_errors(native, f"prepare {name!r}"), locked(native.parent / ".lock"):
        manifest = complete(native, source.max_examples)
        if manifest is None:
            manifest = _write_native(native, name, request, read(), source, on_progress)
            made.append(NATIVE)
        for size in sizes:
            if size == request.side:
                continue
            folder = dataset_folder(workspace, name, str(size))
            resized = complete(folder)
            if resized is None or resized.metadata["made_from"] != manifest.digest:
                _write_size(folder, native, size, request, on_progress)
                made.append(str(size))
        for folder in native.parent.iterdir():  # sizes of an earlier native part
            if folder.name.isdecimal() and not _is_made_from(folder, manifest):
                remove_folder(folder)
    return made


def complete(folder: Path, max_examples: int | None = None) -> Manifest | None:
    """Returns the manifest of a part that is there, undamaged and not smaller than asked for; else None."""
    try:
        _, manifest = open_arrays(folder)
    except DamagedBundleError:
        return None
    present = manifest.metadata.get("max_examples")
    return manifest if present is None or (max_examples is not None and max_examples <= present) else None


def _is_made_from(folder: Path, native: Manifest) -> bool:
    found = complete(folder)
    return found is not None and found.metadata["made_from"] == native.digest


def _write_native(
    folder: Path, name: str, request: ImageRequest, official: Splits, source: Source, on_progress: Progress
) -> Manifest:
    cuts = WITH_TEST if "test" in official else WITHOUT_TEST
    with ArrayFolderWriter(folder) as scratch, ArrayFolderWriter(folder) as writer:
        for number, (split, read) in enumerate(official.items()):
            for images, labels in read():
                scratch.append(f"{split}_images", images)
                scratch.append(f"{split}_labels", labels)
                on_progress(f"reading {split}", len(labels))
            count = scratch.counts().get(f"{split}_labels", 0)
            order = np.random.default_rng(SHUFFLE_SEED + number).permutation(count)[: source.max_examples]
            if len(order) < len(cuts) * 3:
                raise DatasetSourceError(
                    f"the {split} set of {name!r} must have at least {len(cuts) * 3} images to be cut into splits, "
                    f"got {len(order)} from {source.origin}."
                )
            for into, rows in _cut(order, cuts if split == "train" else {"test": 1.0}).items():
                for start in range(0, len(rows), _ROWS):
                    part = rows[start : start + _ROWS]
                    writer.append(f"{into}_images", scratch.written(f"{split}_images")[part])
                    writer.append(f"{into}_labels", scratch.written(f"{split}_labels")[part])
                    on_progress(f"writing {into}", len(part))
        counts = writer.counts()
        return writer.commit(
            {
                "name": name,
                "origin": source.origin,
                "max_examples": source.max_examples,
                "counts": {split: counts[f"{split}_labels"] for split in SPLITS},
            }
        )


def _cut(order: np.ndarray, cuts: dict[str, float]) -> dict[str, np.ndarray]:
    """Returns the parts of `order` that end at the given fractions."""
    parts, start = {}, 0
    for split, end in cuts.items():
        stop = round(end * len(order))
        parts[split] = order[start:stop]
        start = stop
    return parts


def _write_size(folder: Path, native: Path, size: int, request: ImageRequest, on_progress: Progress) -> None:
    arrays, manifest = open_arrays(native)
    with ArrayFolderWriter(folder) as writer:
        for split in SPLITS:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            for start in range(0, len(labels), _ROWS):
                part = slice(start, start + _ROWS)
                writer.append(f"{split}_images", request.resize(images[part], size))
                on_progress(f"resizing to {size}", len(labels[part]))
            writer.append(f"{split}_labels", labels)
        writer.commit({**manifest.metadata, "made_from": manifest.digest})


def prepare_text(
    workspace: Workspace,
    name: str,
    read: Callable[[], Texts],
    encode: Callable[[str], np.ndarray],
    source: Source,
    on_progress: Progress,
) -> bool:
    """Prepares a text's tokens; returns whether they had to be made.

    Args:
      workspace: Where.
      name: Of the text.
      read: Returns what reads its documents.
      encode: A document's token ids, the end included.
      source: Where it comes from and how much of it is wanted.
      on_progress: Told what is being done.

    Raises:
      DatasetSourceError: If the files are not as they should be, or too few.
    """
    folder = dataset_folder(workspace, name, TOKENS)
    with explain_os_errors(folder, f"prepare {name!r}"), locked(folder.parent / ".lock"):
        if complete(folder, source.max_examples) is not None:
            return False
        with ArrayFolderWriter(folder) as writer:
            stream = ((split, encode(text)) for split, text in _assigned(read(), source.max_examples))
            _append_all(writer, stream, "reading documents", on_progress)
            counts = writer.counts()
            if missing := [split for split in SPLITS if not counts.get(f"{split}_tokens")]:
                raise DatasetSourceError(
                    f"{name!r} must have documents for every split, got none for {', '.join(missing)} from "
                    f"{source.origin}: prepare more of it."
                )
            writer.commit(
                {
                    "name": name,
                    "origin": source.origin,
                    "max_examples": source.max_examples,
                    "counts": {split: counts[f"{split}_tokens"] for split in SPLITS},
                }
            )
    return True


def _append_all(
    writer: ArrayFolderWriter, stream: Iterator[tuple[str, np.ndarray]], doing: str, on_progress: Progress
) -> None:
    """Appends (split, token ids of a document), many documents at a time: a line is a few hundred bytes."""
    while batch := list(islice(stream, _ROWS)):
        for split in dict.fromkeys(split for split, _ in batch):
            writer.append(f"{split}_tokens", np.concatenate([ids for into, ids in batch if into == split]))
        on_progress(doing, len(batch))


def _assigned(official: Texts, max_documents: int | None) -> Iterator[tuple[str, str]]:
    """Yields (split, document)."""
    parts = VALIDATION_DOCUMENTS if "test" in official else {**VALIDATION_DOCUMENTS, 2: "test"}
    for split, read in official.items():
        for index, document in enumerate(islice(read(), max_documents)):
            yield (parts.get(index % 100, "train") if split == "train" else split), document


def prepare_subwords(
    workspace: Workspace,
    name: str,
    byte_name: str,
    documents_of: Callable[[np.ndarray], Iterator[str]],
    train: Callable[[Iterable[str]], str],
    encode: Callable[[str, Iterable[str]], Iterator[np.ndarray]],
    on_progress: Progress,
) -> bool:
    """Prepares a text in sub-words from the same text in bytes; returns whether it had to be made.

    Args:
      workspace: Where.
      name: Of the text in sub-words.
      byte_name: Of the text in bytes, already prepared.
      documents_of: The documents of a stream of byte ids.
      train: Documents → a vocabulary (JSON).
      encode: A vocabulary and documents → the ids of each, the end included.
      on_progress: Told what is being done.
    """
    folder = dataset_folder(workspace, name, TOKENS)
    with explain_os_errors(folder, f"prepare {name!r}"), locked(folder.parent / ".lock"):
        arrays, manifest = open_arrays(dataset_folder(workspace, byte_name, TOKENS))
        present = complete(folder, manifest.metadata["max_examples"])
        if present is not None and present.metadata["made_from"] == manifest.digest:
            return False
        on_progress("training the vocabulary", 0)
        vocabulary = train(documents_of(arrays["train_tokens"][:VOCABULARY_CHARACTERS]))
        with ArrayFolderWriter(folder) as writer:
            stream = (
                (split, ids)
                for split in SPLITS
                for ids in encode(vocabulary, documents_of(arrays[f"{split}_tokens"]))
            )
            _append_all(writer, stream, "encoding documents", on_progress)
            counts = {split: writer.counts()[f"{split}_tokens"] for split in SPLITS}
            writer.commit(
                {**manifest.metadata, "name": name, "made_from": manifest.digest, "counts": counts},
                {VOCABULARY: vocabulary.encode()},
            )
    return True
