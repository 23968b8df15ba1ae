"""What families share whose network is one recurrent layer: the cell, and what of C.2 applies to it.

The initialiser and its scale are drawn, the vanilla cell's activation is tanh unless it is set, and the other cells
have theirs. "irnn" and other activations are for evaluation: no prior draws them.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import jax
from pydantic import Field, model_validator

from task_generator.distributions import Categorical, Distribution, LogUniformInt
from task_generator.dynamic import NOTHING_DRAWN, ActivationName, NetworkDynamic, sample_network_dynamic
from task_generator.families.network import NetworkConfig
from task_generator.initializers import LeafInit, default_leaf_init
from task_generator.networks.language import CellName

VANILLA_ACTIVATION = "tanh"
SAMPLED_CELLS: tuple[CellName, ...] = ("vanilla", "lstm", "gru")
GATES: dict[CellName, int] = {"vanilla": 1, "irnn": 1, "lstm": 4, "gru": 3}
OFFSETS: dict[CellName, int] = {"vanilla": 2, "irnn": 2, "lstm": 4, "gru": 3}


class RecurrentDynamic(NamedTuple):
    """One draw of the initialiser and its scale."""

    initializer: jax.Array  # int32 [], index into SAMPLED_INITIALIZERS
    init_scale: jax.Array  # float32 []


class RecurrentConfig(NetworkConfig):
    """The fields of a network with one recurrent layer."""

    cell: CellName = Field(description="The recurrent cell.")
    hidden_size: int = Field(ge=1, le=4096, description="Units of the recurrent layer.")
    activation: ActivationName = Field(VANILLA_ACTIVATION, description="Of the vanilla cell.")

    @model_validator(mode="after")
    def _check_activation_is_used(self) -> Self:
        if self.cell != "vanilla" and self.activation != VANILLA_ACTIVATION:
            raise ValueError(
                f"`activation` is the vanilla cell's, got activation={self.activation!r} with cell={self.cell!r}. "
                "Leave it out."
            )
        return self

    def leaf_init(self, path: str, shape: tuple[int, ...]) -> LeafInit:
        """Returns how the parameter at `path` starts."""
        if self.cell == "irnn" and path.endswith("/recurrent"):
            return LeafInit("identity")
        return default_leaf_init(path, shape)

    def sample_dynamic(self, key: jax.Array) -> RecurrentDynamic:
        """Draws C.2.1's initialiser and scale."""
        drawn = sample_network_dynamic(key)
        return RecurrentDynamic(drawn.initializer, drawn.init_scale)

    def dynamic_axes(self) -> RecurrentDynamic:
        """Returns None for what selects code, 0 for what is one per task."""
        return RecurrentDynamic(None, 0)  # type: ignore[arg-type]

    def network_dynamic(self, dynamic: RecurrentDynamic) -> NetworkDynamic:
        """Returns the choices that were drawn."""
        return NOTHING_DRAWN._replace(initializer=dynamic.initializer, init_scale=dynamic.init_scale)

    def overrides_could_be_sampled(self) -> bool:
        """Returns whether the priors could draw what this configuration fixes."""
        return self.activation == VANILLA_ACTIVATION and super().overrides_could_be_sampled()

    def overrides_label(self) -> str:
        """Returns what is overridden, in a few words."""
        activation = None if self.activation == VANILLA_ACTIVATION else self.activation
        fixed = (activation, self.initializer, self.init_scale)
        return " · ".join(str(value) for value in fixed if value is not None)

    def recurrent_products(self, input_size: int) -> int:
        """Returns the weights of the recurrent layer, each used once per example and position."""
        return GATES[self.cell] * self.hidden_size * (input_size + self.hidden_size)

    def recurrent_values(self, input_size: int) -> int:
        """Returns the numbers that the recurrent layer reads and writes, per example and position."""
        return input_size + (GATES[self.cell] + 1) * self.hidden_size

    def recurrent_params(self, input_size: int) -> int:
        """Returns the parameters of the recurrent layer."""
        return self.recurrent_products(input_size) + OFFSETS[self.cell] * self.hidden_size


def recurrent_prior() -> dict[str, Distribution]:
    """Returns the priors of the cell and of sizes that these families share, the latter as C.3's."""
    return {
        "cell": Categorical(values=SAMPLED_CELLS),
        "hidden_size": LogUniformInt(low=8, high=128),
        "batch_size": LogUniformInt(low=4, high=512),
    }
