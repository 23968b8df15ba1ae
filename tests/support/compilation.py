"""Programs compiled as for users, where the rest of `make test` leaves them unoptimized (`tests/conftest.py`)."""

from __future__ import annotations

AS_FOR_USERS = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
"""For `jax.jit(…, compiler_options=…)`: XLA's own defaults.

For comparisons whose tolerance leaves room for a rounding or two and no more: published runs at places where a
parameter has hardly moved, and single elements in which large numbers cancel. Tolerances are not loosened for the
sake of quick compilation.
"""
