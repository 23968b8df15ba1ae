"""MLP-Mixers: fully connected layers along the patches of an image, then along their channels.

A family of the evaluation tasks only: it is in no training distribution. Its prior, which the registry's contract
asks for, is this project's own choice around small sizes; no paper's. Nothing is dynamic: gelu; kernels start as a
truncated normal with variance 1 / fan_in, the head at zero.

[1] Tolstikhin et al. 2021 (arXiv:2105.01601)  [2] google-research/vision_transformer (Apache-2.0)
[3] Metz et al. 2022 (arXiv:2211.09760), App. F: the tasks

Deviation: rows and columns that fill no patch are cropped, as the vision transformer does ([2] pads the
mixer's); in the evaluation tasks the patch divides the image.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.dynamic import ActivationName
from task_generator.families.base import gradient_cost
from task_generator.families.images import ClassificationConfig, image_prior
from task_generator.families.network import NothingDrawn
from task_generator.families.vit import check_patch_fits
from task_generator.initializers import InitializerName, LeafInit, default_leaf_init
from task_generator.networks.mlp_mixer import MlpMixer


class MlpMixerConfig(NothingDrawn, ClassificationConfig):
    """`num_blocks` blocks of `hidden_dim` channels over patches of `patch_size`² pixels."""

    family: Literal["mlp_mixer"] = "mlp_mixer"
    hidden_dim: int = Field(ge=1, le=4096, description="Channels per patch.")
    num_blocks: int = Field(ge=1, le=64, description="Mixer blocks.")
    tokens_mlp_dim: int = Field(ge=1, le=8192, description="Hidden units of the layers along the patches.")
    channels_mlp_dim: int = Field(
        ge=1, le=16384, description="Hidden units of the layers along the channels."
    )
    patch_size: int = Field(ge=1, le=64, description="Side of a patch, in pixels.")
    activation: ActivationName = Field("gelu", description="Between two fully connected layers.")
    initializer: InitializerName = Field("truncated_normal", description="How kernels start.")
    init_scale: float = Field(1.0, gt=0, description="Multiplies the kernels' start.")

    @model_validator(mode="after")
    def _check_patch(self) -> Self:
        check_patch_fits(self.patch_size, self.image_size)
        return self

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns ranges of small networks: this project's choice."""
        return {
            "hidden_dim": LogUniformInt(low=16, high=256),
            "num_blocks": LogUniformInt(low=1, high=8),
            "tokens_mlp_dim": LogUniformInt(low=16, high=256),
            "channels_mlp_dim": LogUniformInt(low=32, high=512),
            "patch_size": Categorical(values=(2, 4, 8)),
            **image_prior(),
            "image_size": LogUniformInt(low=8, high=64),
            "batch_size": LogUniformInt(low=4, high=256),
        }

    @classmethod
    def example(cls) -> Self:
        """Returns one block of 16 channels on the quarters of digits."""
        return cls(
            hidden_dim=16,
            num_blocks=1,
            tokens_mlp_dim=16,
            channels_mlp_dim=32,
            patch_size=4,
            image_size=8,
            batch_size=16,
            dataset="digits",
        )

    @property
    def num_patches(self) -> int:
        """Patches per image."""
        return (self.image_size // self.patch_size) ** 2

    def network(self) -> MlpMixer:
        """Returns the module."""
        return MlpMixer(
            self.patch_size,
            self.hidden_dim,
            self.num_blocks,
            self.tokens_mlp_dim,
            self.channels_mlp_dim,
            self.num_classes,
        )

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns zero for the head."""
        return LeafInit("constant", 0.0) if path == "head/kernel" else default_leaf_init(path, shape)

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether activation and initialisation are the usual ones."""
        usual = self.initializer == "truncated_normal" and self.init_scale == 1.0
        return usual and self.activation == "gelu"

    def overrides_label(self) -> str:
        """Returns the activation, if it is not the usual one."""
        return "" if self.activation == "gelu" else self.activation

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        hidden, patches = self.hidden_dim, self.num_patches
        stem = self.patch_size**2 * self.channels * hidden
        along_tokens, along_channels = 2 * patches * self.tokens_mlp_dim, 2 * hidden * self.channels_mlp_dim
        biases = self.tokens_mlp_dim + patches + self.channels_mlp_dim + hidden
        block = along_tokens + along_channels + biases + 4 * hidden  # with two norms
        head = hidden * self.num_classes
        num_params = stem + hidden + self.num_blocks * block + 2 * hidden + head + self.num_classes
        mixing = hidden * along_tokens + patches * along_channels
        products = patches * stem + self.num_blocks * mixing + head
        mixed = hidden * (2 * self.tokens_mlp_dim + patches) + patches * (2 * self.channels_mlp_dim + hidden)
        return gradient_cost(
            num_params,
            products,
            self.batch_size,
            inputs_per_example=self.input_size,
            values_per_example=hidden * patches + self.num_blocks * mixed,
            rows_per_example=patches + 2 * self.num_blocks * (hidden + patches),
            depth=2 + 4 * self.num_blocks,
        )

    def label(self) -> str:
        """Returns e.g. "mlp_mixer 1x16 · patch 4 · digits 8px · batch 16"."""
        return (
            f"mlp_mixer {self.num_blocks}x{self.hidden_dim} · patch {self.patch_size} · {self.data_label()}"
        )
