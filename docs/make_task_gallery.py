"""Writes docs/tasks.md and its pictures: every task family, by what it really is.

    make gallery          (or: python docs/make_task_gallery.py [--families mlp,conv] [--steps 500])

One row per family: a sample of the training data as the task draws it (where there are no data, a slice of the loss
surface), the configuration as JSON, and the learning curve of Adam, at the best of three rates.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from lopt.inner_loop import LearningCurve, train_curve
from lopt.types import Task
from task_generator.datasets.byte_tokens import decode_bytes
from task_generator.families import FAMILIES
from task_generator.task_config import TaskConfig

DOCS = Path(__file__).parent
PICTURES = DOCS / "images" / "tasks"
RATES = (1e-3, 1e-2, 1e-1)
NUM_POINTS = 26
INK, ACCENT, QUIET = "#1f2933", "#0b6e99", "#9aa5b1"


def main() -> None:
    """Draws every family and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", default=",".join(FAMILIES), help="names, separated by commas")
    parser.add_argument("--steps", type=int, default=500, help="of Adam")
    options = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    names = options.families.split(",")
    rates = {}
    for number, name in enumerate(names, start=1):
        config = TaskConfig(family=FAMILIES[name].example())
        rates[name] = draw(config, PICTURES / f"{name}.png", options.steps)
        print(f"{number}/{len(names)} {config.label}", flush=True)
    if set(names) == set(FAMILIES):
        (DOCS / "tasks.md").write_text(page(rates, options.steps))
        print(f"wrote {DOCS / 'tasks.md'}")


def draw(config: TaskConfig, path: Path, num_steps: int) -> float:
    """Draws one family's sample and learning curve; returns the rate that Adam did best with."""
    family = config.build()
    task = family.task(jax.jit(family.sample_dynamic)(jax.random.key(3)))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(6.4, 2.2), width_ratios=(1, 1.15), layout="constrained"
    )
    draw_sample(left, task)
    rate = draw_curve(right, task, num_steps)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return rate


def draw_sample(axes: Axes, task: Task) -> None:
    """Draws what the task trains on."""
    batch = task.batch(jax.random.key(0))
    read = getattr(batch, "tokens", getattr(batch, "inputs", None))
    if hasattr(batch, "images"):
        draw_images(axes, np.asarray(batch.images), np.asarray(getattr(batch, "labels", np.zeros(0, int))))
    elif read is not None and jnp.issubdtype(read.dtype, jnp.integer):
        draw_text(axes, np.asarray(read), np.asarray(getattr(batch, "labels", np.zeros(0, int))))
    elif read is not None and read.ndim == 3:
        draw_bits(axes, np.asarray(read), np.asarray(batch.targets))
    else:
        draw_surface(axes, task)


def draw_images(axes: Axes, images: np.ndarray, labels: np.ndarray, rows: int = 3, columns: int = 5) -> None:
    """Draws a sheet of training images with their labels."""
    side = images.shape[1]
    sheet = np.ones((rows * (side + 1), columns * (side + 1), images.shape[-1]))
    for i, image in enumerate(images[: rows * columns]):
        y, x = divmod(i, columns)
        sheet[y * (side + 1) : y * (side + 1) + side, x * (side + 1) : x * (side + 1) + side] = image
        if len(labels):
            axes.text(x * (side + 1), y * (side + 1) + side - 0.6, labels[i], fontsize=6, color=ACCENT)
    axes.imshow(np.clip(sheet, 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def draw_text(axes: Axes, tokens: np.ndarray, labels: np.ndarray) -> None:
    """Writes some windows of text, one per line, a label in front where there is one."""
    lines = []
    for i, window in enumerate(tokens[:7]):
        text = decode_bytes(window)[:34].replace("\n", "⏎")
        lines.append(f"{labels[i]}  {text}" if len(labels) else text)
    axes.text(0, 1, "\n".join(lines), family="monospace", fontsize=6.5, va="top", color=INK, parse_math=False)
    axes.set_axis_off()


def draw_bits(axes: Axes, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Draws one generated example: the operands and what is to be answered, position by position."""
    rows = np.vstack([(inputs[0].T > 0).astype(int), targets[0][None]])
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for (y, x), bit in np.ndenumerate(rows):
        axes.text(x, y, bit, ha="center", va="center", fontsize=7, color=INK)
    names = [f"operand {i + 1}" for i in range(len(rows) - 1)] if len(rows) > 2 else ["bits"]
    axes.set_yticks(range(len(rows)), [*names, "target"], fontsize=7)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_surface(axes: Axes, task: Task, reach: float = 2.0, points: int = 41) -> None:
    """Draws the loss around the start: over the two variables, or over two random directions of many."""
    state = task.init(jax.random.key(1))
    leaves, structure = jax.tree.flatten(state.params)
    size = sum(leaf.size for leaf in leaves)
    batch, key = task.batch(jax.random.key(0)), jax.random.key(2)
    if size == 2:
        axis = [jax.tree.unflatten(structure, [jnp.eye(2)[i].reshape(leaves[0].shape)]) for i in range(2)]
    else:
        axis = [
            jax.tree.unflatten(
                structure,
                [jax.random.normal(jax.random.key(seed + i), leaf.shape) for i, leaf in enumerate(leaves)],
            )
            for seed in (100, 200)
        ]

    def loss(x: jax.Array, y: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda p, a, b: p + x * a + y * b, state.params, axis[0], axis[1])
        return task.loss(state._replace(params=params), key, batch)[0]

    along = jnp.linspace(-reach, reach, points)
    values = jax.jit(jax.vmap(jax.vmap(loss, (0, None)), (None, 0)))(along, along)
    heights = np.log(np.asarray(values) - float(values.min()) + 1e-2 * (float(jnp.std(values)) + 1e-6))
    axes.contourf(along, along, heights, levels=18, cmap="YlGnBu_r")
    axes.plot(0, 0, "o", color="#e8590c", markersize=4)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(
        "log loss around the start" if size == 2 else "log loss, two random directions", fontsize=7
    )


def draw_curve(axes: Axes, task: Task, num_steps: int) -> float:
    """Draws the normalised loss of Adam at the best of three rates, and returns that rate."""
    splits = ("train", "outer_valid")

    def curve(rate: jax.Array) -> LearningCurve:
        optimizer = optax.with_extra_args_support(optax.adam(rate))
        return train_curve(
            task,
            optimizer,
            jax.random.key(5),
            eval_every=max(num_steps // (NUM_POINTS - 1), 1),
            num_points=NUM_POINTS,
            splits=splits,
            num_eval_batches=8,
        )

    curves = jax.jit(jax.vmap(curve))(jnp.asarray(RATES))
    losses = {split: np.asarray(jax.vmap(jax.vmap(task.normalize))(curves.losses[split])) for split in splits}
    best = int(np.argmin(losses["train"][:, -1]))
    steps = np.asarray(curves.step[best])
    has_data = not np.array_equal(losses["train"], losses["outer_valid"])
    if has_data:
        axes.plot(steps, losses["outer_valid"][best], color=QUIET, linewidth=1.2, label="validation")
    axes.plot(steps, losses["train"][best], color=ACCENT, linewidth=1.6, label="train")
    if losses["train"][best].min() > 0 and losses["train"][best].max() > 5 * losses["train"][best].min():
        axes.set_yscale("log")
    axes.set_title(f"Adam, rate {RATES[best]:g}: normalised loss", fontsize=7, loc="left")
    axes.tick_params(labelsize=6)
    axes.spines[["top", "right"]].set_visible(False)
    if has_data:
        axes.legend(fontsize=6, frameon=False)
    return RATES[best]


def page(rates: dict[str, float], num_steps: int) -> str:
    """Returns the text of docs/tasks.md."""
    rows = "\n".join(row(name, rates[name]) for name in FAMILIES)
    return f"""# Task families

A task is data: a family's configuration and a tuple of augmentations, as JSON. `keirin sample` draws them,
`task_generator.parse_task_config(…).build()` makes the problem. Below is every family's example: what it trains on,
and {num_steps} steps of Adam at the best of the rates {", ".join(f"{rate:g}" for rate in RATES)} on the normalised
loss (1 is chance level, or the start where there is no chance level). Numbers in images and texts are labels.

This page is made by `make gallery`.

| Family | Sample and learning curve | Configuration |
|---|---|---|
{rows}

`keirin sample --distribution phase_one --count 20` draws from VeLO's first phase, `keirin tasks list` shows the
fixed tasks that optimizers are compared on. Ranges, and where they differ from the papers', are in the files under
`task_generator/families/`.
"""


def row(name: str, rate: float) -> str:
    """Returns a family's row."""
    del rate  # it is in the picture
    config = FAMILIES[name].example()
    summary = (FAMILIES[name].__doc__ or "").strip().split("\n")[0]
    text = json.dumps(config.model_dump(mode="json"), separators=(", ", ": "))
    return f"| **{name}** <br> {summary} | ![{name}](images/tasks/{name}.png) | `{text}` |"


if __name__ == "__main__":
    main()
