"""Parquet files as data hubs keep them: `train-*.parquet` and `test-*.parquet`, here or in `data/`.

Images are a column `image` or `img` of encoded files, as bytes or as {bytes, path}; labels a column `label` or
`fine_label`; texts a column `text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from storage.dataset_formats.base import Chunk, ImageRequest, Splits, decode_all
from storage.errors import DatasetSourceError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
TEXT_COLUMNS = ("text",)
_ROWS = 256
_PREFIXES = {"train": ("train",), "test": ("test", "validation", "val")}


def find(folder: Path) -> dict[str, list[Path]]:
    """Returns the files per official split; without any by those names, all are "train"."""
    for place in (folder, folder / "data"):
        files = sorted(place.glob("*.parquet"))
        found: dict[str, list[Path]] = {}
        for split, prefixes in _PREFIXES.items():
            for prefix in prefixes:
                named = [path for path in files if path.name.startswith(prefix)]
                if named and split not in found:
                    found[split] = named
        if files:
            return found if "train" in found else {"train": files}
    return {}


def read(folder: Path, request: ImageRequest) -> Splits | None:
    """Returns the splits of parquet files with images."""
    files = find(folder)
    return {split: partial(_chunks, paths, request) for split, paths in files.items()} or None


def rows(paths: Sequence[Path], wanted: Sequence[Sequence[str]]) -> Iterator[tuple[Any, ...]]:
    """Yields the values of the first present column of each group of names, and the file.

    Raises:
      DatasetSourceError: If a file is damaged or has none of a group.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        try:
            file = pq.ParquetFile(path)
            present = file.schema_arrow.names
            columns = [next((name for name in names if name in present), "") for names in wanted]
            if "" in columns:
                missing = " or ".join(repr(name) for name in wanted[columns.index("")])
                raise DatasetSourceError(f"`{path}` must have a column {missing}, got {', '.join(present)}.")
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                values = [batch.column(name).to_pylist() for name in columns]
                for row in zip(*values, strict=True):
                    yield (*row, path)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise DatasetSourceError(
                f"`{path}` cannot be read as parquet ({error}). Get it again."
            ) from error


def encoded_image(value: Any, where: Path | str) -> bytes:
    """Returns the file in a cell of an image column.

    Raises:
      DatasetSourceError: If there is none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DatasetSourceError(f"`{where}` must have encoded images, as bytes, got {type(value).__name__}.")
    return data


def _chunks(paths: list[Path], request: ImageRequest) -> Iterator[Chunk]:
    found = rows(paths, (IMAGE_COLUMNS, LABEL_COLUMNS))
    return decode_all(((encoded_image(image, path), label, path) for image, label, path in found), request)
