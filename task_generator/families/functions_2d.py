"""Nine functions of two variables, "toy examples of various loss landscape pathologies".

Formulas and usual domains are those of [2]; log-sum-exp, which [2] lacks, is the release's. Training starts
uniformly in the usual domain, which nothing confines it to. Each formula is rearranged so that its minimum is zero
and, but for log-sum-exp and Michalewicz, a sum of terms that cannot be negative: float32 then resolves the approach
to the minimum, where the usual "value minus constant" ends at 1e-5.

The Michalewicz function comes as close to −2 as one likes far from its usual domain, so 2 is what is added; the
best value inside the domain is then 0.1987. Deviations from the release: Michalewicz has the m = 10 of [2] (there:
5), Styblinski–Tang, Branin and log-sum-exp are shifted so that their minimum is zero, as the paper says.

Which function is dynamic and one per task: a vectorised choice evaluates all nine, some hundred operations on
scalars (Adam on 16 tasks: 16 µs a step, where one function for all takes 3). The derivative is chosen together
with the value, so that an overflow in a function that is not chosen stays there. `function` fixes one.

[1] Wichrowska et al. 2017 (arXiv:1703.04813), Section 4.1.1.
[2] Surjanovic & Bingham 2013, "Optimization test functions and datasets".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
from jax import lax
from pydantic import Field

from lopt.registry import lookup
from lopt.types import Batch, Params, Scalar
from task_generator.distributions import Distribution
from task_generator.families.base import gradient_cost
from task_generator.families.synthetic import NoisyConfig, full_precision, noise_prior

STYBLINSKI_TANG_ROOT = -2.903534027771177
"""The leftmost root of 4 x³ − 32 x + 5, where the function has its minimum in each coordinate."""
LOG_SUM_EXP_MINIMUM = math.log(1 + math.sqrt(8) * math.exp(-0.1))


class Function2D(NamedTuple):
    """A function of the plane and what is known about it."""

    value: Callable[[jax.Array, jax.Array], jax.Array]
    low: tuple[float, float]  # corners of the usual domain
    high: tuple[float, float]
    minimisers: tuple[tuple[float, float], ...]  # all that lie in the usual domain
    minimum: float = 0.0  # in the usual domain


def rosenbrock(x: jax.Array, y: jax.Array) -> jax.Array:
    """A curved valley."""
    return jnp.square(1.0 - x) + 100.0 * jnp.square(y - jnp.square(x))


def ackley(x: jax.Array, y: jax.Array) -> jax.Array:
    """A funnel full of local minima, ending in a cone; the gradient at its tip is taken to be zero."""
    square = 0.5 * (jnp.square(x) + jnp.square(y))
    radius = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    ripples = jnp.square(jnp.sin(math.pi * x)) + jnp.square(jnp.sin(math.pi * y))
    return -20.0 * jnp.expm1(-0.2 * radius) - math.e * jnp.expm1(-ripples)


def beale(x: jax.Array, y: jax.Array) -> jax.Array:
    """Sharp peaks at the corners of a flat middle."""
    targets = ((1.5, y), (2.25, jnp.square(y)), (2.625, y * jnp.square(y)))
    return sum((jnp.square(c - x * (1.0 - power)) for c, power in targets), start=jnp.zeros_like(x))


def booth(x: jax.Array, y: jax.Array) -> jax.Array:
    """A convex quadratic with a long axis."""
    return jnp.square(x + 2.0 * y - 7.0) + jnp.square(2.0 * x + y - 5.0)


def styblinski_tang(x: jax.Array, y: jax.Array) -> jax.Array:
    """Four wells of different depths: ½ (z⁴ − 16 z² + 5 z) for each coordinate, less its minimum.

    With the minimiser a, a double root, the polynomial is ½ (z − a)² ((z + a)² + 2 a² − 16).
    """
    a = STYBLINSKI_TANG_ROOT
    well = lambda z: 0.5 * jnp.square(z - a) * (jnp.square(z + a) + (2 * a * a - 16))
    return well(x) + well(y)


def matyas(x: jax.Array, y: jax.Array) -> jax.Array:
    """A convex valley of condition number 25: 0.26 (x² + y²) − 0.48 x y."""
    return 0.24 * jnp.square(x - y) + 0.02 * (jnp.square(x) + jnp.square(y))


def branin(x: jax.Array, y: jax.Array) -> jax.Array:
    """Three equal wells; the constant term makes the minimum zero instead of 5 / 4π."""
    bend = y - 5.1 / (4 * math.pi**2) * jnp.square(x) + 5 / math.pi * x - 6.0
    return jnp.square(bend) + 10 * (1 - 1 / (8 * math.pi)) * (1.0 + jnp.cos(x))


def michalewicz(x: jax.Array, y: jax.Array) -> jax.Array:
    """Steep ridges between plateaus, m = 10."""
    ridge = lambda z, i: jnp.sin(z) * lax.integer_pow(jnp.sin(i / math.pi * jnp.square(z)), 20)
    return 2.0 - ridge(x, 1) - ridge(y, 2)


def log_sum_exp(x: jax.Array, y: jax.Array) -> jax.Array:
    """A smooth maximum of planes: convex, linear far from its minimum."""
    planes = jnp.stack([x + 3.0 * y - 0.1, x - 3.0 * y - 0.1, -x - 0.1, jnp.zeros_like(x)])
    return jax.nn.logsumexp(planes, axis=0) - LOG_SUM_EXP_MINIMUM


def _square(half: float) -> tuple[tuple[float, float], tuple[float, float]]:
    return (-half, -half), (half, half)


FUNCTIONS: dict[str, Function2D] = {
    "ackley": Function2D(ackley, *_square(32.768), ((0.0, 0.0),)),
    "beale": Function2D(beale, *_square(4.5), ((3.0, 0.5),)),
    "booth": Function2D(booth, *_square(10.0), ((1.0, 3.0),)),
    "branin": Function2D(
        branin,
        (-5.0, 0.0),
        (10.0, 15.0),
        ((-math.pi, 12.275), (math.pi, 2.275), (3 * math.pi, 2.475)),
    ),
    "log_sum_exp": Function2D(log_sum_exp, *_square(2.0), ((-0.5 * math.log(2), 0.0),)),
    "matyas": Function2D(matyas, *_square(10.0), ((0.0, 0.0),)),
    "michalewicz": Function2D(
        michalewicz, (0.0, 0.0), (math.pi, math.pi), ((2.20290552017261, math.pi / 2),), 0.19869658990145
    ),
    "rosenbrock": Function2D(rosenbrock, (-5.0, -5.0), (10.0, 10.0), ((1.0, 1.0),)),
    "styblinski_tang": Function2D(styblinski_tang, *_square(5.0), ((STYBLINSKI_TANG_ROOT,) * 2,)),
}

if TYPE_CHECKING:
    FunctionName = str
else:  # the names are the registry's keys
    FunctionName = Literal[tuple(FUNCTIONS)]


def _on_point(function: Function2D) -> Callable[[jax.Array], jax.Array]:
    return lambda point: function.value(point[0], point[1])


@jax.custom_jvp
def switch_function(index: jax.Array, point: jax.Array) -> jax.Array:
    """Returns the value at point [2] of the function that `index` selects."""
    return lax.switch(index, [_on_point(f) for f in FUNCTIONS.values()], point)


@switch_function.defjvp
def _switch_function_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    index, point = primals
    branches = [jax.value_and_grad(_on_point(f)) for f in FUNCTIONS.values()]
    value, gradient = lax.switch(index, branches, point)
    return value, jnp.sum(gradient * tangents[1])


class Functions2DConfig(NoisyConfig):
    """One of the nine functions."""

    family: Literal["functions_2d"] = "functions_2d"
    function: FunctionName | None = Field(None, description="Fixes the function; None draws it.")

    @classmethod
    def prior(cls) -> dict[str, Distribution]:
        """Returns the prior of the noise; the function is dynamic."""
        return noise_prior()

    @classmethod
    def example(cls) -> Self:
        """Returns the nine functions without noise."""
        return cls()

    def sample_problem(self, key: jax.Array) -> jax.Array:
        """Returns the index of a function, int32 []."""
        if self.function is not None:
            return jnp.int32(list(FUNCTIONS).index(self.function))
        return jax.random.randint(key, (), 0, len(FUNCTIONS), jnp.int32)

    def sample_start(self, key: jax.Array, problem: jax.Array) -> Params:
        """Returns a point that is uniform in the function's usual domain."""
        low = jnp.asarray([f.low for f in FUNCTIONS.values()], jnp.float32)[problem]
        high = jnp.asarray([f.high for f in FUNCTIONS.values()], jnp.float32)[problem]
        return {"x": low + (high - low) * jax.random.uniform(key, (2,), jnp.float32)}

    def objective(self, params: Params, problem: jax.Array, batch: Batch) -> Scalar:
        """Returns the function's value."""
        del batch
        point = full_precision(params["x"])
        if self.function is not None:
            return _on_point(lookup(FUNCTIONS, self.function, kind="function"))(point)
        return switch_function(problem, point)

    def approximate_cost(self) -> dict[str, float]:
        """Returns the parameters, operations, values and depth."""
        evaluated = 1 if self.function is not None else len(FUNCTIONS)
        return gradient_cost(2, 20 * evaluated, 1, values_per_example=10 * evaluated, depth=1)

    def label(self) -> str:
        """Returns e.g. "2-D rosenbrock · noise 0.5"."""
        return f"2-D {self.function or 'functions'}{self.noise_label()}"
