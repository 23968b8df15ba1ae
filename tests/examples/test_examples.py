"""The examples run at their small size, and the code blocks of the user's guide run one after the other."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from lopt import shipped
from lopt.architectures import ARCHITECTURES

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GUIDE = ROOT / "docs" / "optimizers.md"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text())


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


def run_script(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )


def assert_picture(path: Path) -> None:
    picture = imread(path)
    assert min(picture.shape[:2]) > 300
    assert np.std(picture[..., :3]) > 0.05  # something is drawn


@pytest.fixture
def pacer_file(tmp_path: Path) -> Path:
    """A weights file of a user's."""
    config = ARCHITECTURES["pacer"]()
    path = tmp_path / "mine.npz"
    shipped.write_weights(path, config, config.build().init_theta(jax.random.key(0)))
    return path


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_how_to_call_it(script: str) -> None:
    answer = run_script(script, "--help")
    assert answer.returncode == 0
    assert f"python examples/{script}" in answer.stdout


@pytest.mark.slow
def test_every_optimizer_trains_the_cnn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = example("train_a_cnn", monkeypatch)
    results = module.main(["--quick", "--out", str(tmp_path / "curves.png")])
    assert [r.label for r in results] == ["pacer", "celo2", "velo", "tuned Adam", "tuned cosine AdamW"]
    for result in results:
        assert_trained(result.histories)
    assert_picture(tmp_path / "curves.png")


@pytest.mark.slow
def test_weights_of_ones_own_are_compared_with_tuned_adam(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pacer_file: Path
) -> None:
    module = example("train_a_cnn", monkeypatch)
    out = str(tmp_path / "curves.png")
    chosen = ["--optimizers", "pacer", "--baselines", "adam", "--weights", f"pacer={pacer_file}"]
    results = module.main(["--quick", *chosen, "--out", out])
    assert [(r.label, r.num_tried) for r in results] == [("pacer", 1), ("tuned Adam", 2)]
    for result in results:
        assert_trained(result.histories)
    first_test_losses = [r.histories.test_loss[0, 0] for r in results]
    assert first_test_losses[0] != first_test_losses[1]
    assert_picture(tmp_path / "curves.png")


def assert_trained(histories: Any) -> None:
    """Losses fell from the first point on, for every seed, and every tensor moved."""
    assert np.all(histories.train_loss[:, -1] < 0.8 * histories.train_loss[:, 0])
    assert np.all(histories.test_accuracy[:, -1] > 0.6)
    assert np.all(histories.step_rms.max(axis=1) > 0)


def test_the_tuned_rate_is_the_one_with_the_lowest_training_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("train_a_cnn", monkeypatch)
    experiment = module.Experiment(module.SMALL, 20, num_points=2)
    alone = {
        rate: module.compare(module.tuned("adam", 20, [rate]), experiment, 1).histories.train_loss[0, -1]
        for rate in (1e-4, 1e-2)
    }
    both = module.compare(module.tuned("adam", 20, list(alone)), experiment, 1)
    assert alone[1e-2] < alone[1e-4]
    assert both.setting == "0.01"
    # The rate is in the state: the program compiled for the first rate ran the second.
    np.testing.assert_allclose(both.histories.train_loss[0, -1], alone[1e-2], rtol=1e-5)


def test_a_diverged_run_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("digits_cnn", monkeypatch)
    assert module.mean_log(np.array([1.0, np.nan])) == np.inf
    assert module.mean_log(np.array([np.e, 1.0])) == pytest.approx(0.5)


def test_finetuning_continues_in_every_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = example("finetune", monkeypatch)
    results = module.main(["--quick", "--out", str(tmp_path / "curves.png")])
    assert set(results) == {
        *(module.Halves("pacer", how) for how in (*module.WAYS, module.UNINTERRUPTED)),
        module.Halves("adam", "adam"),
        module.Halves("adam", "pacer"),
    }
    half = next(iter(results.values())).train_loss.shape[1] // 2
    own = [results["pacer", how].train_loss for how in module.WAYS]
    for losses in own:  # one first half, from which all go on
        np.testing.assert_array_equal(losses[:, :half], own[0][:, :half])
    assert len({float(losses[0, -1]) for losses in own}) == len(own)
    for (first, second), history in results.items():
        assert np.all(np.diff(history.step[0]) > 0)
        # A reset may end above the half-time's loss, but never where training began.
        assert np.all(history.train_loss[:, -1] < 0.8 * history.train_loss[:, 0]), (first, second)
    increased, whole = results["pacer", "increase_steps"], results["pacer", module.UNINTERRUPTED]
    assert np.mean(np.log(increased.train_loss[:, -1])) < np.mean(np.log(own[-1][:, -1]))  # better than naive
    assert not np.allclose(whole.train_loss[:, half - 1], increased.train_loss[:, half - 1])
    assert_picture(tmp_path / "curves.png")


@pytest.mark.slow
def test_the_sharded_run_equals_the_whole_one() -> None:
    answer = run_script("train_sharded.py", "--quick", "--optimizers", "pacer")
    assert answer.returncode == 0, answer.stderr
    assert "4 devices: cpu:0, cpu:1, cpu:2, cpu:3" in answer.stdout
    whole, cut = bytes_of("parameters", answer.stdout)
    assert cut < 0.26 * whole
    whole, cut = bytes_of("optimizer's state", answer.stdout)
    assert cut < 0.35 * whole
    whole, cut = bytes_of("optimizer's weights", answer.stdout)
    assert cut == whole
    rows = re.findall(r"^loss +\d+ +(\S+) +(\S+)$", answer.stdout, re.MULTILINE)
    assert len(rows) == 5
    losses = np.array(rows, np.float64)
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], rtol=1e-4)
    assert losses[-1, 0] < 0.8 * losses[0, 0]


def bytes_of(what: str, text: str) -> tuple[int, int]:
    found = re.search(rf"{what} +([\d,]+) +([\d,]+)", text)
    assert found, text
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@pytest.mark.parametrize("script", ["train_a_cnn", "finetune"])
def test_missing_weights_are_an_error_that_says_how_to_make_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    module = example(script, monkeypatch)
    option = "--optimizers" if script == "train_a_cnn" else "--optimizer"
    with pytest.raises(SystemExit) as error:
        module.main(["--quick", option, "pacr", "--out", str(tmp_path / "never.png")])
    message = str(error.value)
    assert "no weights for `pacr`" in message
    assert "Did you mean 'pacer'?" in message
    assert "meta_train_an_architecture.py" in message
    assert not (tmp_path / "never.png").exists()


def test_a_weights_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = example("digits_cnn", monkeypatch)
    with pytest.raises(SystemExit, match=re.escape(f"no weights file '{tmp_path / 'gone.npz'}'")):
        module.load("pacer", [f"pacer={tmp_path / 'gone.npz'}"], num_steps=10)
    with pytest.raises(SystemExit, match="`--weights` takes NAME=PATH"):
        module.load("pacer", ["gone.npz"], num_steps=10)


def test_the_code_of_the_guide_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) == text.count("```python")
    namespace: dict[str, Any] = {"__name__": "guide"}
    for block in blocks:
        line = text.count("\n", 0, block.start(1))
        code = compile("\n" * line + block[1], str(GUIDE), "exec")  # errors name the guide's own line
        exec(code, namespace)
    assert {"mine.npz", "velo.msgpack", "velo.npz"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_pathologies_of_unrolling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture, small; and that after fifty steps back-propagation varies more than the combination."""
    module = example("unrolling_pathologies", monkeypatch)
    with jax.numpy_dtype_promotion("standard"):
        module.draw(tmp_path / "out.png", momenta=50, count=20, horizon=20, horizons=(5, 50))
        assert_picture(tmp_path / "out.png")
        spread = module.variances(module.MOMENTUM, (5, 50), 200)
    assert spread["backprop"][0] < 0.01 * spread["ES"][0]
    assert spread["backprop"][1] > 10 * spread["ES"][1]
    assert spread["combined"][1] < 0.1 * spread["backprop"][1]
    losses = module.final_losses(np.linspace(0.5, 0.99, 2000), (10, 500))
    jumps = np.abs(np.diff(losses, axis=1)).max(axis=1)
    assert jumps[0] < 0.1 < 3.0 < jumps[1]


@pytest.mark.slow
def test_curricula_over_the_horizon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture, small; every curriculum gets the same number of inner steps, and starts at the same loss."""
    module = example("horizon_curricula", monkeypatch)
    sizes = {"horizon": 20, "outer_steps": 4}
    results = module.compare(**sizes, seeds=2, validate_every=1)
    assert list(results) == ["constant", "linear", "piece-wise"]
    budget = 4 * 20 * 16
    for curves in results.values():
        assert all(budget <= curve.inner_steps[-1] < budget + 20 * 16 for curve in curves)
        starts = [curve.meta_loss[0] for curve in curves]
        assert starts == [curve.meta_loss[0] for curve in results["constant"]]
    steps = {name: len(curves[0].meta_loss) - 1 for name, curves in results.items()}
    assert steps["constant"] == 4 < steps["linear"] <= steps["piece-wise"]
    module.draw(tmp_path / "out.png", results, **sizes)
    assert_picture(tmp_path / "out.png")
    curve = module.Curve(np.array([0.0, 100.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(module.reached([curve], 25.0), [0.75])
