"""Texts as plain files, UTF-8: `train*.txt` and `test*.txt`, or folders `train` and `test` of files.

The One Billion Word Benchmark's own folders of shuffled sentences are known too. A document is a line or a
whole file, as the data set has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from storage.dataset_formats import parquet
from storage.errors import DatasetSourceError

Texts = dict[str, Callable[[], Iterator[str]]]
"""Per official split, "train" and perhaps "test", what starts reading its documents."""
_FOLDERS = {
    "train": ("train", "training-monolingual.tokenized.shuffled"),
    "test": ("test", "heldout-monolingual.tokenized.shuffled"),
}


def read_texts(folder: Path, *, document_per_line: bool) -> Texts:
    """Returns the documents of text or parquet files.

    Raises:
      DatasetSourceError: If there are no such files.
    """
    tables = parquet.find(folder)
    if tables:
        return {split: partial(_texts_of_tables, paths) for split, paths in tables.items()}
    files = find(folder)
    if "train" not in files:
        raise DatasetSourceError(
            f"`{folder}` must have `*.txt` files, folders `train` and `test` with files, or `*.parquet` files with "
            "a column `text`; found none."
        )
    return {
        split: partial(documents, paths, document_per_line=document_per_line)
        for split, paths in files.items()
    }


def find(folder: Path) -> dict[str, list[Path]]:
    """Returns the text files per official split; files by another name than `test*` are "train"."""
    found: dict[str, list[Path]] = {}
    for split, names in _FOLDERS.items():
        for place in (folder / name for name in names):
            if place.is_dir():
                paths = (path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
                found[split] = sorted(paths)
    if "train" not in found:
        files = sorted(folder.glob("*.txt"))
        named = {
            split: [p for p in files if p.name.startswith("test") == (split == "test")] for split in _FOLDERS
        }
        found = {split: paths for split, paths in named.items() if paths}
    return found


def _texts_of_tables(paths: list[Path]) -> Iterator[str]:
    return (text for text, _ in parquet.rows(paths, (parquet.TEXT_COLUMNS,)) if text)


def documents(paths: list[Path], *, document_per_line: bool) -> Iterator[str]:
    """Yields the documents of some files that are not empty.

    Raises:
      DatasetSourceError: If a file is not UTF-8.
    """
    for path in paths:
        try:
            if document_per_line:
                with path.open(encoding="utf-8") as file:
                    yield from (line for line in (line.rstrip("\n") for line in file) if line)
            elif text := path.read_text(encoding="utf-8"):
                yield text
        except UnicodeDecodeError as error:
            raise DatasetSourceError(
                f"`{path}` is not text in UTF-8 ({error.reason} at {error.start})."
            ) from error
