"""The methods of penalties, compiled once for each kind and shape."""

import jax

value = jax.jit(lambda penalty, z: penalty.value(z))
prox = jax.jit(lambda penalty, v, t: penalty.prox(v, t))
support = jax.jit(lambda penalty, z: penalty.support(z))


@jax.jit
def jacobians(penalty, v, t):
    """Return the derivatives of the operator in the penalty, in v and in the step size."""
    return jax.jacobian(lambda penalty, v, t: penalty.prox(v, t), argnums=(0, 1, 2))(penalty, v, t)
