"""Small residual networks: a stem, four groups of bottleneck blocks, batch normalisation.

Version "v1" is what is meta-trained on; "v2" (pre-activation) is that of the evaluation tasks. Strided
convolutions and pools pad as "same", so a side of n becomes ceil(n / stride) and never vanishes; small images are
refused only where a batch norm would see a single number. v1's last norm of each block starts at scale zero, so
that a block starts as its shortcut; v2's cannot, because the activation follows it, and relu passes no gradient at
exactly zero. Logits start at zero. The network runs on batch statistics always; their running averages (decay 0.9)
are the model state.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.3.5  [2] He et al. 2016 (arXiv:1603.05027): "v2"

Deviations from the release: the sampled activation is used in the blocks too (there, relu, and the sampled one
only after the stem); blocks per group are uniform up to the maximum, as in [1] (there, log-uniform);
`initial_conv_stride` is honoured, and 2 unless asked for, which is what the release's networks have whatever it
draws ([1] does not name it). Only the activation is dynamic, as in [1]; kernels start as the release's library
starts them, from a truncated normal with variance 1 / fan_in.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, Self

import jax
import numpy as np
from pydantic import Field, model_validator

from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.dynamic import SAMPLED_ACTIVATIONS, uniform_index
from task_generator.families.base import gradient_cost
from task_generator.families.images import ClassificationConfig, image_prior
from task_generator.initializers import InitializerName, LeafInit, default_leaf_init
from task_generator.networks.resnet import BOTTLENECK_DIVISOR, GROUP_STRIDES, ResNet

WidthPattern = Literal["1-1-1-1", "1-2-4-8", "1-2-2-4", "1-2-2-2", "1-2-4-4"]
WIDTH_PATTERNS: tuple[WidthPattern, ...] = ("1-1-1-1", "1-2-4-8", "1-2-2-4", "1-2-2-2", "1-2-4-4")


@dataclasses.dataclass(frozen=True)
class BlocksPerGroup:
    """Four numbers of blocks, each uniform over 1, …, m; m is log-uniform over 1, …, `high`."""

    high: int = 10

    def sample(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Returns one draw."""
        most = LogUniformInt(low=1, high=self.high).sample(rng)
        return tuple(int(n) for n in rng.integers(1, most, size=len(GROUP_STRIDES), endpoint=True))

    def contains(self, value: Any) -> bool:
        """Returns whether `value` is four integers in the range."""
        one = LogUniformInt(low=1, high=self.high)
        return (
            isinstance(value, tuple)
            and len(value) == len(GROUP_STRIDES)
            and all(one.contains(n) for n in value)
        )


class ResNetDynamic(NamedTuple):
    """One draw of the only dynamic choice."""

    activation: jax.Array  # int32 [], index into SAMPLED_ACTIVATIONS


class ResNetConfig(ClassificationConfig):
    """Four groups; group i has `blocks_per_group[i]` blocks of `base_channels` · pattern[i] channels."""

    family: Literal["resnet"] = "resnet"
    version: Literal["v1", "v2"] = Field("v1", description="v2 normalises and activates before convolving.")
    blocks_per_group: tuple[int, int, int, int] = Field(description="Residual blocks of each group.")
    width_pattern: WidthPattern = Field(description="Multiples of `base_channels`, group by group.")
    base_channels: int = Field(ge=BOTTLENECK_DIVISOR, le=1024, description="Channels of the first group.")
    initial_conv_kernel_size: Literal[3, 5, 7] = Field(description="Side of the stem's kernel.")
    initial_conv_channels: int = Field(ge=1, le=1024, description="Channels after the stem.")
    initial_conv_stride: Literal[1, 2] = Field(2, description="Stride of the stem.")
    max_pool: bool = Field(description="Whether a 3×3 max pool of stride 2 follows the stem.")
    initializer: InitializerName = Field("truncated_normal", description="How kernels start.")
    init_scale: float = Field(1.0, gt=0, description="Multiplies the kernels' start.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(1 <= count <= 64 for count in self.blocks_per_group):
            raise ValueError(
                f"`blocks_per_group` must hold numbers from 1 to 64, got {self.blocks_per_group}. "
                "A group needs at least the block that changes its width."
            )
        if self.batch_size * self.group_sides[-1] ** 2 < 2:
            raise ValueError(
                f"batch norm needs more than one number per channel: with batch_size={self.batch_size} and "
                f"image_size={self.image_size} the last group has one pixel of one image, and normalising it "
                "leaves nothing. Raise `batch_size` or `image_size`."
            )
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the ranges of C.3.5."""
        return {
            "version": Categorical(values=("v1",)),
            "blocks_per_group": BlocksPerGroup(),
            "width_pattern": Categorical(values=WIDTH_PATTERNS),
            "base_channels": LogUniformInt(low=8, high=256),
            "initial_conv_kernel_size": Categorical(values=(3, 5, 7)),
            "initial_conv_channels": LogUniformInt(low=8, high=64),
            "initial_conv_stride": Categorical(values=(2,)),
            "max_pool": Categorical(values=(True, False)),
            **image_prior(),
            "image_size": LogUniformInt(low=8, high=64),
            "batch_size": LogUniformInt(low=4, high=256),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one block of 8 channels per group, with relu, on digits."""
        return cls(
            blocks_per_group=(1, 1, 1, 1),
            width_pattern="1-1-1-1",
            base_channels=8,
            initial_conv_kernel_size=3,
            initial_conv_channels=8,
            max_pool=False,
            image_size=8,
            batch_size=16,
            dataset="digits",
            activation="relu",  # eleven branches for each of thirteen activations take long to compile
        )

    @property
    def channels_per_group(self) -> tuple[int, ...]:
        """The channels of each group's blocks."""
        return tuple(self.base_channels * int(multiple) for multiple in self.width_pattern.split("-"))

    @property
    def stem_side(self) -> int:
        """The side of the image after the stem's convolution."""
        return -(-self.image_size // self.initial_conv_stride)

    @property
    def group_sides(self) -> tuple[int, ...]:
        """The side of the image before the first group and after each."""
        sides = [-(-self.stem_side // 2) if self.max_pool else self.stem_side]
        for stride in GROUP_STRIDES:
            sides.append(-(-sides[-1] // stride))
        return tuple(sides)

    def network(self) -> ResNet:
        """Returns the module."""
        return ResNet(
            self.version,
            self.blocks_per_group,
            self.channels_per_group,
            self.initial_conv_channels,
            self.initial_conv_kernel_size,
            self.initial_conv_stride,
            self.max_pool,
            self.num_classes,
        )

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns zero for the logits and for the scale of v1's last norm of each block."""
        if path == "logits/kernel" or (self.version == "v1" and path.endswith("/norm_2/scale")):
            return LeafInit("constant", 0.0)
        return default_leaf_init(path, shape)

    def sample_dynamic(self, key: jax.Array) -> ResNetDynamic:
        """Draws the activation."""
        return ResNetDynamic(uniform_index(jax.random.uniform(key), len(SAMPLED_ACTIVATIONS)))

    def dynamic_axes(self) -> ResNetDynamic:
        """Returns None: the activation selects code."""
        return ResNetDynamic(None)  # type: ignore[arg-type]

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the activation is one that C.2.2 draws, and kernels start as always."""
        usual = self.initializer == "truncated_normal" and self.init_scale == 1.0
        return usual and self.activation in (None, *SAMPLED_ACTIVATIONS)

    def overrides_label(self) -> str:
        """Returns the activation, if it is fixed."""
        return self.activation or ""

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        channels, sides = self.initial_conv_channels, self.group_sides
        stem = self.initial_conv_kernel_size**2 * self.channels * channels
        num_params, products = stem, stem * self.stem_side**2
        values, rows, depth = channels * self.stem_side**2, self.stem_side**2, 2
        reads = self.stem_side**2 * self.initial_conv_kernel_size**2 * self.channels
        for i, wide in enumerate(self.channels_per_group):
            for k in range(self.blocks_per_group[i]):
                before = sides[i] if k == 0 else sides[i + 1]
                params, work = self._block_cost(channels, wide, before, sides[i + 1], has_projection=k == 0)
                narrow, after = wide // BOTTLENECK_DIVISOR, sides[i + 1]
                reads += before**2 * channels + after**2 * 10 * narrow
                num_params, products, channels = num_params + params, products + work, wide
                values += before**2 * narrow + after**2 * (narrow + wide * (2 if k == 0 else 1))
                rows += before**2 + 2 * after**2
                depth += 3
        outer_norm = self.initial_conv_channels if self.version == "v1" else channels
        head = channels * self.num_classes
        num_params += 2 * outer_norm + head + self.num_classes
        return gradient_cost(
            num_params,
            products + head,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=values,
            rows_per_example=rows,
            reads_per_example=reads,
            depth=depth,
        )

    def _block_cost(
        self, channels: int, wide: int, before: int, after: int, *, has_projection: bool
    ) -> tuple[int, int]:
        """Returns a block's parameters and its products per example; `before` and `after` are image sides."""
        narrow = wide // BOTTLENECK_DIVISOR
        reduce, rest = channels * narrow, 9 * narrow * narrow + narrow * wide
        shortcut = channels * wide if has_projection else 0
        normalised = 2 * narrow + (channels if self.version == "v2" else wide)
        if has_projection and self.version == "v1":
            normalised += wide
        params = reduce + rest + shortcut + 2 * normalised
        return params, before * before * reduce + after * after * (rest + shortcut)

    def label(self) -> str:
        """Returns e.g. "resnet v1 1-2-1-1 x16 · 1-2-2-4 · digits 8px · batch 16"."""
        blocks = "-".join(str(count) for count in self.blocks_per_group)
        return f"resnet {self.version} {blocks} x{self.base_channels} · {self.width_pattern} · {self.data_label()}"
