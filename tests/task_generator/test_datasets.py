"""Data sets: their splits and shapes, resizing without copies, batches, and names that are unknown."""

from __future__ import annotations

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.registry import UnknownNameError
from lopt.types import SPLITS
from task_generator.datasets import photo_patches
from task_generator.datasets.images import DATASETS, EMBEDDED_IMAGES, load
from task_generator.datasets.source import chunks_of, resize, resize_bytes


@pytest.mark.parametrize("name", EMBEDDED_IMAGES)
def test_splits_have_every_class_and_the_declared_shape(name: str) -> None:
    data = load(name, 6)
    assert data.num_classes == DATASETS[name].num_classes
    for split in SPLITS:
        images, labels = getattr(data, split)
        assert images.shape == (len(labels), 6, 6, DATASETS[name].channels)
        assert set(np.unique(labels)) == set(range(data.num_classes))
    assert len(data.train.labels) > 1000 > len(data.test.labels)


def test_the_splits_of_digits_are_disjoint_and_complete() -> None:
    data = load("digits", 8)
    # Duplicates in the source would blur this; of 1797 images all differ.
    rows = np.concatenate([np.asarray(getattr(data, s).images).reshape(-1, 64) for s in SPLITS])
    assert len(rows) == 1797
    assert len(np.unique(rows, axis=0)) == 1797


def test_no_pixel_of_a_photograph_is_in_two_splits() -> None:
    # The real code cuts "photographs" whose pixel values are their own positions.
    positions = np.arange(427 * 640).reshape(427, 640, 1)
    splits = photo_patches.cut_patches([positions])
    used = {split: set(images.ravel().tolist()) for split, (images, _) in splits.items()}
    assert all(used.values())
    assert sum(len(pixels) for pixels in used.values()) == len(set.union(*used.values()))


def test_the_strips_cover_the_width_without_overlap() -> None:
    bounds = photo_patches.strip_bounds()
    assert [left for _, left, _ in bounds] == [0, *(right for _, _, right in bounds[:-1])]
    assert bounds[-1][2] == 640


@pytest.mark.parametrize("size", [4, 5, 8, 13])
def test_resizing_agrees_with_jax(size: int) -> None:
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    expected = jax.image.resize(images, (2, size, size, 3), "linear", antialias=True)
    np.testing.assert_allclose(resize(images, size), expected, atol=1e-6)


def test_resizing_in_chunks_is_resizing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a rounding: a processor may add the terms of a larger product in another order."""
    images = np.random.default_rng(0).integers(0, 256, (7, 6, 9, 3), dtype=np.uint8)
    whole = resize(images, 5), resize_bytes(images, 5)
    monkeypatch.setattr("task_generator.datasets.source.CHUNK_NUMBERS", 2 * 6 * 9 * 3)
    assert len(list(chunks_of(images, 5))) == 4
    numbers, as_bytes = resize(images, 5), resize_bytes(images, 5)
    assert numbers.shape == as_bytes.shape == (7, 5, 5, 3)
    np.testing.assert_allclose(numbers, whole[0], rtol=5e-7)
    differ = np.flatnonzero(as_bytes != whole[1])  # where half a grey level was rounded the other way
    assert len(differ) <= 2
    np.testing.assert_allclose(as_bytes.astype(int), whole[1].astype(int), atol=1)


def test_shrinking_averages_and_keeps_channels_apart() -> None:
    # By hand, 4 → 2 pixels: the left one is at 0.5, a triangle of half width 2 weighs the first three 3 : 3 : 1.
    image = np.zeros((1, 4, 4, 2), np.uint8)
    image[..., 0] = np.array([80, 160, 240, 0])[None, None, :]
    image[..., 1] = 7
    expected = [(3 * 80 + 3 * 160 + 240) / 7, (160 + 3 * 240 + 0) / 7]
    np.testing.assert_allclose(resize(image, 2)[0, 0, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(resize(image, 2)[..., 1], 7, rtol=1e-6)


def test_resizing_holds_little_more_than_its_result() -> None:
    images = np.zeros((4000, 64, 64, 3), np.uint8)  # 49 MB; as float32 it would be 197 MB
    tracemalloc.start()
    small = resize_bytes(images, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < small.nbytes + 100e6


def test_images_of_that_size_are_not_copied() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert resize_bytes(images, 8) is images


def test_batches_are_drawn_with_replacement_from_their_split_only() -> None:
    data = load("digits", 8)
    batch = data.batch(jax.random.key(0), "test", 2000)
    drawn = np.asarray(jnp.round(batch.images * 255)).reshape(-1, 64)
    test, train = (np.asarray(split.images).reshape(-1, 64) for split in (data.test, data.train))
    assert batch.images.dtype == jnp.float32
    assert float(batch.images.max()) == 1.0
    assert {row.tobytes() for row in drawn.astype(np.uint8)} == {row.tobytes() for row in test}
    assert not {row.tobytes() for row in drawn.astype(np.uint8)} & {row.tobytes() for row in train}


def test_labels_stay_with_their_images() -> None:
    data = load("digits", 8)
    known = {np.asarray(x).tobytes(): int(y) for x, y in zip(*map(np.asarray, data.train), strict=True)}
    batch = data.batch(jax.random.key(1), "train", 50)
    images = np.asarray(jnp.round(batch.images * 255)).astype(np.uint8)
    assert [known[x.tobytes()] for x in images] == batch.labels.tolist()


def test_an_unknown_data_set_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'digit'.*Did you mean 'digits'"):
        load("digit", 8)
