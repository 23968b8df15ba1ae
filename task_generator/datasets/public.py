"""The papers' public data sets: what is known of them before they are on this machine.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3 and F. Sizes are the sets' own; `imagenet16`, `imagenet32` and
`imagenet64` are the downsampled ILSVRC 2012. Food-101's photographs differ in size: they are kept at 128×128.

Deviation: the 32k vocabulary is a byte-pair one trained on the text itself when it is prepared, since the release's
(SentencePiece on C4) cannot be had everywhere; so its ids are other sub-words, as many.
"""

from __future__ import annotations

import functools

from task_generator.datasets.prepared import read_prepared_images, read_prepared_tokens
from task_generator.datasets.source import ImageSource, TextSource

BYTE_VOCABULARY = 259
"""256 bytes after three special ids: 0 padding, 1 end of document, 2 unknown."""
SUBWORD_VOCABULARY = 32_100


def _images(name: str, num_classes: int, channels: int, num_images: int, native_size: int) -> ImageSource:
    load = functools.partial(read_prepared_images, name)
    return ImageSource(num_classes, channels, num_images, load, native_size)


def _text(name: str, vocab_size: int, num_tokens: int) -> TextSource:
    return TextSource(vocab_size, num_tokens, functools.partial(read_prepared_tokens, name))


PUBLIC_IMAGES: dict[str, ImageSource] = {
    "mnist": _images("mnist", 10, 1, 70_000, 28),
    "fashion_mnist": _images("fashion_mnist", 10, 1, 70_000, 28),
    "cifar10": _images("cifar10", 10, 3, 60_000, 32),
    "cifar100": _images("cifar100", 100, 3, 60_000, 32),
    "svhn": _images("svhn", 10, 3, 99_289, 32),
    "imagenet16": _images("imagenet16", 1000, 3, 1_331_167, 16),
    "imagenet32": _images("imagenet32", 1000, 3, 1_331_167, 32),
    "imagenet64": _images("imagenet64", 1000, 3, 1_331_167, 64),
    "food101": _images("food101", 101, 3, 101_000, 128),
}

PUBLIC_TEXTS: dict[str, TextSource] = {
    "lm1b_bytes": _text("lm1b_bytes", BYTE_VOCABULARY, 4_000_000_000),
    "lm1b_32k": _text("lm1b_32k", SUBWORD_VOCABULARY, 1_000_000_000),
    "wikipedia_en_bytes": _text("wikipedia_en_bytes", BYTE_VOCABULARY, 20_000_000_000),
    "wikipedia_en_32k": _text("wikipedia_en_32k", SUBWORD_VOCABULARY, 5_000_000_000),
}
