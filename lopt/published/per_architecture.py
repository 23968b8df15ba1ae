"""The tables of the published networks. To add one: its entries and sizes here, and its line in `TABLES`.

[1] google/learned_optimization (Apache-2.0): names and order of the arrays of all but Celo2.
[2] amoudgl/celo: those of Celo2.
"""

from __future__ import annotations

from typing import Any

from lopt.architectures.adafactor_mlp import AdafactorMlpConfig
from lopt.architectures.celo2 import Celo2Config
from lopt.architectures.per_parameter_mlp import PerParameterMlpConfig
from lopt.architectures.rnn_mlp import RnnMlpConfig
from lopt.architectures.velo import VeloConfig
from lopt.features import published as pf
from lopt.published.tables import Entry, Path, Shapes, Table, count_hidden, entry, hidden_sizes, linear

BANK = ("ff_mod_stack", "~")


def _velo(config: VeloConfig) -> list[Entry]:
    return [
        entry("lstm_init/hidden", "lstm_init_state", "hidden"),
        entry("lstm_init/cell", "lstm_init_state", "cell"),
        *linear("dead_mixing_layer", "rnn_params", "linear"),
        *linear("mix_all", "rnn_params", "linear_1"),
        *linear("mix_self", "rnn_params", "linear_2"),
        *linear("lstm", "rnn_params", "rnn/linear"),
        *linear("controls", "rnn_params", "rnn_to_controls"),
        *linear("step_scalar", "rnn_params", "step_size"),
        *_grouped_mlp("bank", BANK, _group_sizes(config.features, pf.Decays()), hidden_layers=2),
    ]


def _celo2(config: Celo2Config) -> list[Entry]:
    rows = _group_sizes(config.features, config.decays)
    return _grouped_mlp("network", BANK, rows, hidden_layers=config.hidden_layers)


def _celo2_layers(shapes: Shapes) -> dict[str, Any]:
    return {"hidden_layers": count_hidden(shapes, "ff_mod_stack/~/w{}", "ff_mod_stack/~/b{}")}


def _group_sizes(features: tuple[str, ...], decays: pf.Decays) -> tuple[int, ...]:
    sizes = pf.feature_sizes(decays)
    return tuple(sizes[name] for name in features)


def _grouped_mlp(ours: str, published: Path, rows: tuple[int, ...], *, hidden_layers: int) -> list[Entry]:
    """Returns the entries of a network of which the first layer has one published array per group of features."""
    first = tuple((*published, f"w0__{i}") for i in range(len(rows)))
    others = [f"{kind}{i}" for i in range(hidden_layers + 1) for kind in ("w", "b")][1:]
    return [Entry((ours, "w0"), first, rows), *[entry(f"{ours}/{name}", *published, name) for name in others]]


def _adafactor_mlp(config: AdafactorMlpConfig) -> list[Entry]:
    layers = range(config.hidden_layers + 1)
    return [
        *[entry(f"network/{kind}{i}", "nn", "~", f"{kind}{i}") for i in layers for kind in ("w", "b")],
        entry("momentum_decays", "momentum_decays"),
        entry("second_moment_decays", "rms_decays"),
        entry("factored_decays", "adafactor_decays"),
    ]


def _adafactor_mlp_layers(shapes: Shapes) -> dict[str, Any]:
    return {"hidden_layers": count_hidden(shapes, "nn/~/w{}", "nn/~/b{}")}


def _per_parameter_mlp(config: PerParameterMlpConfig) -> list[Entry]:
    layers = range(config.hidden_layers + 1)
    return [entry(f"{kind}{i}", f"mlp/~/linear_{i}", kind) for i in layers for kind in ("w", "b")]


def _per_parameter_mlp_layers(shapes: Shapes) -> dict[str, Any]:
    return {"hidden_layers": count_hidden(shapes, "mlp/~/linear_{}/w", "mlp/~/linear_{}/b")}


def _rnn_mlp(config: RnnMlpConfig) -> list[Entry]:
    layers = range(len(config.mlp_hidden_sizes) + 1)
    return [
        entry("lstm_init/hidden", "lstm_init_state", "hidden"),
        entry("lstm_init/cell", "lstm_init_state", "cell"),
        entry("from_lstm_init", "initial_from_lstm"),
        entry("from_mlp_init", "initial_from_mlp"),
        *linear("lstm", "rnn_params", "rnn/linear"),
        *linear("lstm_to_lstm", "rnn_to_in_params", "rnn_to_in"),
        *linear("lstm_to_mlp", "rnn_to_ff_params", "rnn_to_ff"),
        *[
            entry(f"network/{kind}{i}", "ffmod_params", f"mlp/~/linear_{i}", kind)
            for i in layers
            for kind in ("w", "b")
        ],
    ]


def _rnn_mlp_layers(shapes: Shapes) -> dict[str, Any]:
    return {"mlp_hidden_sizes": hidden_sizes(shapes, "ffmod_params/mlp/~/linear_{}")}


TABLES: dict[str, Table] = {
    "adafactor_mlp": Table(
        released=AdafactorMlpConfig.released,
        entries=_adafactor_mlp,
        axes={"hidden_size": (("nn/~/b0", 0), ("nn/~/w0", 1), ("nn/~/w1", 0))},
        layers=_adafactor_mlp_layers,
    ),
    "celo2": Table(
        released=Celo2Config.released,
        entries=_celo2,
        axes={
            "hidden_size": (
                ("ff_mod_stack/~/b0", 0),
                ("ff_mod_stack/~/w0__0", 1),
                ("ff_mod_stack/~/w0__1", 1),
                ("ff_mod_stack/~/w1", 0),
            )
        },
        layers=_celo2_layers,
        is_record=False,
        carried={"output_units": 3},
        not_in_file=(
            "variant",
            "output",
            "learning_rate",
            "warmup_fraction",
            "final_fraction",
            "weight_decay",
            "adam_below_rank",
            "adam_paths",
            "adam_multiplier",
            "adam_decays",
            "adam_epsilon",
            "adam_debiased",
            "state_dtype",
        ),
    ),
    "per_parameter_mlp": Table(
        released=PerParameterMlpConfig.released,
        entries=_per_parameter_mlp,
        axes={"hidden_size": (("mlp/~/linear_0/b", 0), ("mlp/~/linear_0/w", 1), ("mlp/~/linear_1/w", 0))},
        layers=_per_parameter_mlp_layers,
    ),
    "rnn_mlp": Table(
        released=RnnMlpConfig.released,
        entries=_rnn_mlp,
        axes={
            "lstm_hidden_size": (
                ("lstm_init_state/hidden", 1),
                ("lstm_init_state/cell", 1),
                ("rnn_to_ff_params/rnn_to_ff/w", 0),
                ("rnn_to_in_params/rnn_to_in/w", 0),
            ),
            "lstm_to_lstm_size": (
                ("rnn_to_in_params/rnn_to_in/b", 0),
                ("rnn_to_in_params/rnn_to_in/w", 1),
                ("initial_from_lstm", 0),
            ),
            "lstm_to_mlp_size": (("rnn_to_ff_params/rnn_to_ff/b", 0), ("rnn_to_ff_params/rnn_to_ff/w", 1)),
            "mlp_to_lstm_size": (("initial_from_mlp", 0),),
        },
        layers=_rnn_mlp_layers,
    ),
    "velo": Table(
        released=VeloConfig.released,
        entries=_velo,
        axes={
            "lstm_hidden_size": (
                ("lstm_init_state/hidden", 1),
                ("lstm_init_state/cell", 1),
                ("rnn_params/linear_1/b", 0),
                ("rnn_params/linear_2/b", 0),
                ("rnn_params/rnn_to_controls/w", 0),
                ("rnn_params/step_size/w", 0),
            ),
            "mlp_bank_size": (
                ("rnn_params/rnn_to_controls/b", 0),
                ("rnn_params/rnn_to_controls/w", 1),
                ("ff_mod_stack/~/b0", 0),
                ("ff_mod_stack/~/w1", 0),
                ("ff_mod_stack/~/w2", 0),
            ),
            "mlp_hidden_size": (
                ("ff_mod_stack/~/b0", 1),
                ("ff_mod_stack/~/b1", 1),
                ("ff_mod_stack/~/w1", 1),
                ("ff_mod_stack/~/w1", 2),
                ("ff_mod_stack/~/w2", 1),
            ),
        },
        carried={"dead_mixing_layer": True},
        not_in_file=("carries_lstm_state", "loss_horizon", "state_dtype"),
    ),
}
"""Architecture → its format."""
