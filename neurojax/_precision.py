"""Products at the full precision of their numbers."""

from functools import partial

import jax
import jax.numpy as jnp

__all__ = ["product"]

# A GPU would otherwise round the factors of a float32 product to tf32.
product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
