"""The forms of flows: fields explained, all with defaults; what cannot be is refused; every deployment exists."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from flows import parameters
from flows.parameters import EvaluateParameters, Parameters, SampleParameters, TrainParameters
from flows.servers.deploy import WORK_POOL, deployment_file
from lopt.architectures import ARCHITECTURES


def subclasses(model: type[BaseModel]) -> set[type[BaseModel]]:
    direct = set(model.__subclasses__())
    return direct.union(*map(subclasses, direct))


MODELS = sorted(subclasses(Parameters), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_of_a_form_is_explained(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert not field.is_required(), f"{model.__name__}.{name}: a form must run as it is"
    model()


def test_names_are_choices_in_the_form() -> None:
    schema = TrainParameters.model_json_schema()
    assert "demo" in schema["$defs"]["Curriculum"]["enum"]
    assert "pacer" in schema["$defs"]["Architecture"]["enum"]


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        (SampleParameters, {"distribution": "dem"}, "Did you mean 'demo'"),
        (TrainParameters, {"architecture": "pacr"}, "Did you mean 'pacer'"),
        (TrainParameters, {"architecture_config": "[1]"}, r"such as .*\[1\].*an object"),
        (
            TrainParameters,
            {"architecture": "velo", "architecture_config": '{"lstm_hiden_size": 3}'},
            "Did you",
        ),
        (
            TrainParameters,
            {"architecture": "velo", "architecture_config": '{"lstm_hidden_size": 0}'},
            "than or",
        ),
        (TrainParameters, {"architecture_config": '{"architecture": "velo"}'}, "unknown field of pacer"),
        (EvaluateParameters, {"evaluation_sets": ["heldout"]}, "Did you mean 'heldout_demo'"),
        (EvaluateParameters, {"horizon": 101}, "Try 100"),
        (SampleParameters, {"count": 0}, "greater than or equal to 1"),
        (TrainParameters, {"learning_rate": 0.0}, "greater than 0"),
        (SampleParameters, {"cuont": 3}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(
    model: type[BaseModel], values: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        model.model_validate(values)


def test_an_architecture_has_the_sizes_that_it_is_given() -> None:
    sizes = '{"lstm_hidden_size": 32, "mlp_bank_size": 8}'
    small = TrainParameters(architecture="velo", architecture_config=sizes).optimizer()
    assert small == ARCHITECTURES["velo"].model_validate({"lstm_hidden_size": 32, "mlp_bank_size": 8})
    assert TrainParameters(architecture="velo").optimizer() == ARCHITECTURES["velo"].model_validate({})


def test_a_name_is_an_ordinary_string_in_names_of_runs() -> None:
    assert f"{SampleParameters().distribution}" == "demo"


def test_every_deployment_exists_and_takes_one_of_the_models() -> None:
    import importlib
    import inspect

    deployments = yaml.safe_load(deployment_file().read_text("utf-8"))["deployments"]
    assert {d["name"] for d in deployments} == {
        "pipeline",
        "sample",
        "time",
        "fit",
        "train",
        "control",
        "baselines",
        "evaluate",
        "follow",
        "promote",
        "probe",
        "rollback",
        "report",
    }
    for deployment in deployments:
        module, name = deployment["entrypoint"].rsplit(".", 1)
        flow = getattr(importlib.import_module(module), name)
        assert deployment["work_pool"]["name"] == WORK_POOL
        (parameter,) = inspect.signature(flow.fn).parameters.values()
        assert isinstance(parameter.default, Parameters)
        assert hasattr(parameters, type(parameter.default).__name__)
