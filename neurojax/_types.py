"""Names for the array types that recur in signatures."""

from jaxtyping import Array, Float, Int, Key

__all__ = ["Count", "PRNGKey", "Scalar"]

PRNGKey = Key[Array, ""]
Scalar = Float[Array, ""]
Count = Int[Array, ""]
