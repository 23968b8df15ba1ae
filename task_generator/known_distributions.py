"""The task distributions that phases and the command line name.

[1] Metz et al. 2022 (arXiv:2211.09760), App. C.5 and E.4: `phase_one`, `phase_two`. The paper's phase-one
    probabilities, 0.65, 0.3, 0.1 and 0.05, sum to 1.1; here they are divided by that. The larger families are
    offered from 1e-4 s on, as the text says (in the release, a rounded threshold kept them out there).
[2] Celo2 (arXiv:2602.19142): `celo2`, four small networks. Deviation: CIFAR-10 and SVHN keep their colours.
[3] Wichrowska et al. 2017 (arXiv:1703.04813), 4.1: `wichrowska`, problems without a data set, a quarter of them
    transformed. The paper names the problems and no weights.
[4] Almeida et al. 2021 (arXiv:2106.00958), App. H: `lhopt`, equal weights. Deviation: texts are the embedded ones,
    which have labels.
[5] Metz et al. 2018 (arXiv:1810.10180), 4.2 and C.2: `metz2018`, one convolutional network. Deviations: all
    classes of ImageNet instead of ten drawn ones per task; weights start by their inputs alone, not Glorot's way;
    the batch size, which the text does not print, is 64.
[6] Metz et al. 2020 (arXiv:2009.11243), 3.2: `metz2020`, the kinds of task that the text names, with equal
    weights; it prints neither weights nor ranges. Deviation: texts are those of the other distributions.
Names that end in `_embedded` are the same on data that need no preparation.
"""

from __future__ import annotations

from lopt.config import derive
from lopt.registry import lookup
from task_generator.augmentations import ReparametrizeConfig
from task_generator.broad_tasks import BROAD_TASKS
from task_generator.datasets.images import EMBEDDED_IMAGES
from task_generator.datasets.text import EMBEDDED_TEXTS
from task_generator.families import FAMILIES, ConvConfig, MlpConfig
from task_generator.sampling import Mixture, TaskDistribution, TimeBudget
from task_generator.task_config import TaskConfig

EMBEDDED = (*EMBEDDED_IMAGES, *EMBEDDED_TEXTS)
PUBLIC_IMAGE_NAMES = ("mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet16")
PUBLIC_TEXT_NAMES = ("lm1b_bytes", "lm1b_32k", "wikipedia_en_bytes", "wikipedia_en_32k")

SMALL = ("mlp", "conv", "autoencoder", "vae", "vit")
LARGE = ("rnn_lm", "transformer_lm", "resnet", "lopt_training")
LARGE_FROM = 1e-4
"""Seconds per step from which the larger families are offered."""

VELO_AUGMENTATIONS = (
    "reparametrize",
    "es_gradients",
    "reduced_batch",
    "low_precision",
    "normalized_gradient",
    "subsampled_directions",
    "delayed_gradients",
)


def uniform(*families: str) -> Mixture:
    """Returns the mixture of equal weights."""
    return tuple((family, 1.0 / len(families)) for family in families)


def budgets(*rows: tuple[float, float]) -> tuple[TimeBudget, ...]:
    """Returns VeLO's time budgets from (seconds, weight): weights normalised, families as C.5 offers them."""
    total = sum(weight for _, weight in rows)
    return tuple(
        TimeBudget(
            seconds=seconds,
            probability=weight / total,
            families=uniform(*(SMALL if seconds < LARGE_FROM else SMALL + LARGE)),
        )
        for seconds, weight in rows
    )


def embedded(distribution: TaskDistribution) -> TaskDistribution:
    """Returns the distribution on embedded data."""
    return derive(distribution, name=f"{distribution.name}_embedded", datasets=EMBEDDED)


DEMO = TaskDistribution(
    name="demo",
    families=(("mlp", 0.5), ("conv", 0.5)),
    datasets=("digits", "photo_patches"),
    augmentations=("reparametrize",),
)
"""The full ranges of VeLO's C.3.1 and C.3.2 on embedded data; a time budget narrows them later."""

PHASE_ONE = TaskDistribution(
    name="phase_one",
    budgets=budgets((2e-5, 0.65), (1e-4, 0.3), (4e-4, 0.1), (1e-3, 0.05)),
    datasets=(*PUBLIC_IMAGE_NAMES, *PUBLIC_TEXT_NAMES),
    augmentations=VELO_AUGMENTATIONS,
)

PHASE_TWO = derive(
    PHASE_ONE, name="phase_two", budgets=budgets((1e-4, 0.4), (4e-4, 0.2), (1e-3, 0.2), (3e-3, 0.2))
)

CELO2 = TaskDistribution(
    name="celo2",
    families=(("mlp", 1.0),),
    datasets=("mnist", "fashion_mnist", "cifar10", "svhn"),
    fixed=(
        ("hidden_size", 32),
        ("num_layers", 1),
        ("image_size", 8),
        ("batch_size", 64),
        ("activation", "relu"),
        ("initializer", "truncated_normal"),
        ("init_scale", 1.0),
    ),
    always=(ReparametrizeConfig(level="global", low=0.001, high=1000.0),),
)

FOUR_SMALL = TaskDistribution(
    name="four_small",
    tasks=tuple(
        TaskConfig(
            family=kind(**sizes, dataset=dataset, image_size=8, activation="relu", initializer="normal")
        )
        for dataset in EMBEDDED_IMAGES
        for kind, sizes in (
            (MlpConfig, {"hidden_size": 32, "num_layers": 1, "batch_size": 128}),
            (ConvConfig, {"hidden_size": 8, "num_layers": 2, "num_stride_2_layers": 1, "batch_size": 32}),
        )
    ),
)
"""The same four tasks on every machine, with any run-time model and seed: to compare meta-training by."""

BROAD = TaskDistribution(name="broad", tasks=BROAD_TASKS)
"""Many kinds of task, the same on every machine: what the shipped weights are trained on."""

WICHROWSKA = TaskDistribution(
    name="wichrowska",
    families=uniform(
        "functions_2d",
        "quadratic",
        "logistic_regression",
        "minibatch_quadratic",
        "slow_convergence",
        "sum_of_problems",
    ),
    augmentations=("reparametrize", "sparse_gradients", "warped_loss"),
)

LHOPT = TaskDistribution(
    name="lhopt",
    families=uniform(
        "algorithmic", "mlp", "conv", "text_classification", "transformer_lm", "noisy_quadratic"
    ),
    datasets=("mnist", "fashion_mnist", *EMBEDDED_TEXTS),
    priors="lhopt",
)

METZ2018 = TaskDistribution(
    name="metz2018",
    families=(("conv", 1.0),),
    datasets=("imagenet32",),
    fixed=(
        ("hidden_size", 32),
        ("num_layers", 3),
        ("num_stride_2_layers", 2),
        ("image_size", 32),
        ("batch_size", 64),
        ("activation", "relu"),
        ("initializer", "uniform"),
    ),
)

METZ2020 = TaskDistribution(
    name="metz2020",
    families=uniform(
        "mlp",
        "conv",
        "autoencoder",
        "vae",
        "maf",
        "rnn_lm",
        "text_classification",
        "functions_2d",
        "quadratic",
    ),
    datasets=(*PUBLIC_IMAGE_NAMES, *PUBLIC_TEXT_NAMES, *EMBEDDED_TEXTS),
)

DISTRIBUTIONS: dict[str, TaskDistribution] = {
    d.name: d
    for d in (
        DEMO,
        PHASE_ONE,
        PHASE_TWO,
        CELO2,
        FOUR_SMALL,
        BROAD,
        LHOPT,
        WICHROWSKA,
        METZ2018,
        METZ2020,
        *map(embedded, (PHASE_ONE, PHASE_TWO, CELO2, LHOPT, METZ2020)),
    )
}


def family_distribution(family: str) -> TaskDistribution:
    """Returns one family's whole prior on embedded data, with VeLO's augmentations: what timings are taken of.

    Raises:
      UnknownNameError: If there is no such family.
    """
    lookup(FAMILIES, family, kind="task family")
    return TaskDistribution(
        name=f"family_{family}",
        families=((family, 1.0),),
        datasets=EMBEDDED,
        augmentations=VELO_AUGMENTATIONS,
    )


def get_distribution(name: str) -> TaskDistribution:
    """Returns the distribution called `name`.

    Raises:
      UnknownNameError: If there is none; says which there are, and the nearest.
    """
    return lookup(DISTRIBUTIONS, name, kind="task distribution")
