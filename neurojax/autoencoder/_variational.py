"""The variational autoencoder, its bounds on log p(x), and log p(x) by importance sampling."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._arrays import check_same_shape, real_array
from .._checks import check_at_least, check_limits, check_size
from .._precision import at_least_single
from .._types import PRNGKey, Scalar
from ._layers import affine, check_layers, dense_layer, dense_layers, run_layers, vector
from ._models import AbstractAutoencoder
from ._outputs import AbstractOutput, BernoulliOutput

__all__ = [
    "GaussianPosterior",
    "LogLikelihood",
    "VariationalAutoencoder",
    "elbo",
    "importance_weighted_bound",
    "log_likelihood",
    "log_weights",
]

Features = Float[Array, " features"]
Code = Float[Array, " code"]


class GaussianPosterior(NamedTuple):
    """q(z | x): independent Gaussians. Densities and divergences are in float32 at least.

    Attributes:
        mean: of each latent unit.
        log_scale: log of each standard deviation.
    """

    mean: Code
    log_scale: Code

    def sample(self, key: PRNGKey) -> Code:
        """Draw z = mean + scale·normal, which carries a gradient to both."""
        mean, log_scale = self._checked()
        return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape, mean.dtype)

    def log_density(self, z: Code) -> Scalar:
        """Compute log q(z | x) in nats."""
        mean, log_scale = map(at_least_single, self._checked())
        z = vector("z", z, len(mean), "a number for each latent unit")
        standard = (z - mean) * jnp.exp(-log_scale)
        return jnp.sum(-0.5 * standard**2 - log_scale - 0.5 * jnp.log(2 * jnp.pi))

    def unit_divergences(self) -> Code:
        """Compute KL(q(z | x) ‖ N(0, 1)) of each unit, ½(mean² + scale² − 1) − log scale, in nats."""
        mean, log_scale = map(at_least_single, self._checked())
        excess = jnp.expm1(2 * log_scale) - 2 * log_scale
        return 0.5 * (mean**2 + excess)

    def divergence(self) -> Scalar:
        """Compute KL(q(z | x) ‖ N(0, 1)), the sum over units, in nats."""
        return jnp.sum(self.unit_divergences())

    def _checked(self) -> tuple[Code, Code]:
        mean, log_scale = real_array("mean", self.mean, "code"), real_array("log_scale", self.log_scale)
        check_same_shape("log_scale", log_scale, "mean", mean)
        return mean, log_scale


class VariationalAutoencoder(AbstractAutoencoder):
    """Latent units z ~ N(0, 1), data from p(x | z), and an encoder that gives q(z | x) for p(z | x).

    Attributes:
        encoder: hidden layers from the datum; may be none.
        posterior_layer: from the last of them to the means and the log scales of q, in that order.
        decoder: layers from the latent units to the output's parameters.
        output: p(x | z): `BernoulliOutput` or `GaussianOutput`.
        activation: of hidden layers on both sides.

    Raises:
        ValueError: at construction, for sizes that do not fit; in its methods at trace time, for another
            number of features or units.

    Reference:
        Kingma & Welling 2014, Auto-encoding variational Bayes; Rezende, Mohamed & Wierstra 2014.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> vae = VariationalAutoencoder.from_sizes(784, [200], 50, jax.random.key(0))
        >>> vae.encode(jnp.zeros(784)).shape
        (50,)
    """

    encoder: tuple[eqx.nn.Linear, ...]
    posterior_layer: eqx.nn.Linear
    decoder: tuple[eqx.nn.Linear, ...]
    output: AbstractOutput = BernoulliOutput()
    activation: Callable = eqx.field(static=True, default=jnp.tanh)

    def __check_init__(self):
        check_layers("encoder", (*self.encoder, self.posterior_layer))
        check_at_least("decoder: number of layers", len(self.decoder), 1)
        check_layers("decoder", self.decoder)
        self.output.check_size(self.n_features)
        ends = (2 * int(self.decoder[0].in_features), self.decoder[-1].out_features)
        expected = (self.posterior_layer.out_features, self.n_features)
        if ends != expected:
            raise ValueError(
                "decoder: expected layers from half the posterior layer's numbers to the features, "
                f"{expected[0]}/2 to {expected[1]}, got {ends[0] // 2} to {ends[1]}."
            )

    @classmethod
    def from_sizes(
        cls,
        n_features: int,
        n_hidden: Sequence[int],
        n_latent: int,
        key: PRNGKey,
        *,
        output: AbstractOutput | None = None,
        activation: Callable = jnp.tanh,
        dtype=None,
    ) -> "VariationalAutoencoder":
        """Start a machine: Glorot's uniform weights, biases 0.

        Args:
            n_features: of a datum.
            n_hidden: units of each hidden layer of the encoder; the decoder mirrors them. May be empty.
            n_latent: latent units.
            key: a typed PRNG key.
            output: ``None``: `BernoulliOutput`.
            activation: of hidden layers.
            dtype: of the parameters; ``None``: JAX's default.

        Raises:
            ValueError: for a size < 1.
        """
        for name, size in (("n_features", n_features), ("n_latent", n_latent)):
            check_at_least(name, size, 1)
        for size in n_hidden:
            check_at_least("n_hidden", size, 1)
        dtype = jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)
        encoder_key, posterior_key, decoder_key = jax.random.split(key, 3)
        sizes = [n_features, *n_hidden]
        return cls(
            dense_layers(sizes, encoder_key, activation, dtype, last=activation),
            dense_layer(sizes[-1], 2 * n_latent, posterior_key, 1.0, dtype),
            dense_layers([n_latent, *sizes[::-1]], decoder_key, activation, dtype, last=None),
            BernoulliOutput() if output is None else output,
            activation,
        )

    @property
    def n_features(self) -> int:
        """The number of features of a datum."""
        first = self.encoder[0] if self.encoder else self.posterior_layer
        return int(first.in_features)

    @property
    def n_code(self) -> int:
        """The number of latent units."""
        return int(self.posterior_layer.out_features) // 2

    @property
    def limits(self) -> tuple[float, float] | None:
        """The output's limits."""
        return self.output.limits

    def posterior(self, x: Features) -> GaussianPosterior:
        """Return q(z | x)."""
        x = vector("x", x, self.n_features, "a number for each feature of a datum")
        both = affine(self.posterior_layer, run_layers(self.encoder, self.activation, x))
        return GaussianPosterior(both[: self.n_code], both[self.n_code :])

    def encode(self, x: Features) -> Code:
        """Return the mean of q(z | x)."""
        return self.posterior(x).mean

    def output_parameters(self, code: Code) -> Features:
        """Return the parameters of p(x | z)."""
        code = vector("code", code, self.n_code, "a number for each latent unit")
        *hidden, last = self.decoder
        return affine(last, run_layers(hidden, self.activation, code))

    def decode(self, code: Code) -> Features:
        """Return the mean of p(x | z)."""
        return self.output.mean(self.output_parameters(code))

    def generate(self, key: PRNGKey) -> Features:
        """Draw z from the prior, and return the mean of p(x | z)."""
        return self.decode(jax.random.normal(key, (self.n_code,), self.posterior_layer.weight.dtype))


def _datum(vae: VariationalAutoencoder, x: Features) -> Features:
    """Return a datum, or raise ``ValueError`` for one out of the output's range where values are known."""
    x = vector("x", x, vae.n_features, "a number for each feature of a datum")
    if vae.limits is not None:
        check_limits("x", x, vae.limits)
    return x


def elbo(
    vae: VariationalAutoencoder,
    x: Features,
    key: PRNGKey,
    *,
    n_samples: int = 1,
    beta: Scalar | float = 1.0,
) -> Scalar:
    """Compute meanₛ log p(x | zₛ) − β·KL(q(z | x) ‖ p(z)), zₛ from q, in nats.

    At β = 1 its mean over draws is below log p(x), by KL(q(z | x) ‖ p(z | x)). The divergence is exact.

    Args:
        vae: the machine.
        x: a datum.
        key: a typed PRNG key.
        n_samples: draws of z, ≥ 1.
        beta: weight of the divergence (Higgins et al. 2017).

    Reference:
        Kingma & Welling 2014, eq. 10.
    """
    check_at_least("n_samples", n_samples, 1)
    x = _datum(vae, x)
    posterior = vae.posterior(x)
    zs = jax.vmap(posterior.sample)(jax.random.split(key, n_samples))
    losses = jax.vmap(lambda z: vae.output.negative_log_likelihood(vae.output_parameters(z), x))(zs)
    return -jnp.mean(losses) - beta * posterior.divergence()


def log_weights(
    vae: VariationalAutoencoder, x: Features, zs: Float[Array, "draws code"], posterior: GaussianPosterior
) -> Float[Array, " draws"]:
    """Compute log p(x, z) − log q(z | x) at each z, in nats."""
    x = vector("x", x, vae.n_features, "a number for each feature of a datum")
    zs = real_array("zs", zs, "draws code")
    check_size("zs", zs, 1, vae.n_code, "numbers, one for each latent unit,")
    prior = GaussianPosterior(jnp.zeros_like(posterior.mean), jnp.zeros_like(posterior.mean))

    def weight(z):
        loss = vae.output.negative_log_likelihood(vae.output_parameters(z), x)
        return prior.log_density(z) - posterior.log_density(z) - loss

    return jax.vmap(weight)(zs)


def importance_weighted_bound(
    vae: VariationalAutoencoder, x: Features, key: PRNGKey, *, n_samples: int
) -> Scalar:
    """Compute log meanₖ p(x, zₖ)/q(zₖ | x), zₖ from q, in nats.

    Its mean over draws is below log p(x), and rises to it with ``n_samples``; one sample is the ELBO (with
    the divergence sampled).

    Args:
        vae: the machine.
        x: a datum.
        key: a typed PRNG key.
        n_samples: draws of z, ≥ 1, all held at once; see `log_likelihood` for thousands.

    Gradient: through the draws. For learning with many draws see `ImportanceWeightedObjective`.

    Reference:
        Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders, eq. 8.
    """
    check_at_least("n_samples", n_samples, 1)
    x = _datum(vae, x)
    posterior = vae.posterior(x)
    zs = jax.vmap(posterior.sample)(jax.random.split(key, n_samples))
    values = log_weights(vae, x, zs, posterior)
    return jax.nn.logsumexp(values) - jnp.log(jnp.asarray(n_samples, values.dtype))


class LogLikelihood(NamedTuple):
    """log p(x) by importance sampling.

    Attributes:
        value: in nats; too low in expectation.
        standard_error: of ``value``, over draws (delta method); itself too small where few draws count.
        effective_sample_size: (Σw)²/Σw², how many draws count.
    """

    value: Scalar
    standard_error: Scalar
    effective_sample_size: Scalar


def log_likelihood(
    vae: VariationalAutoencoder,
    x: Features,
    key: PRNGKey,
    *,
    n_samples: int = 5000,
    n_at_once: int = 100,
) -> LogLikelihood:
    """Estimate log p(x) = log E_q[p(x, z)/q(z | x)], with draws made and forgotten ``n_at_once`` at a time.

    The sums of weights and of their squares are kept relative to the largest weight so far, so memory does
    not grow with ``n_samples``. Draw k depends on ``key`` and k alone: the result does not depend on
    ``n_at_once``, but for rounding.

    Args:
        vae: the machine.
        x: a datum.
        key: a typed PRNG key.
        n_samples: draws of z, ≥ 2.
        n_at_once: draws held at a time, ≥ 1.

    Reference:
        Burda et al. 2016, section 5; Rezende et al. 2014.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> vae = VariationalAutoencoder.from_sizes(6, [], 2, jax.random.key(0))
        >>> estimate = jax.jit(log_likelihood)(vae, jnp.ones(6), jax.random.key(1))
        >>> estimate.value.shape
        ()
    """
    check_at_least("n_samples", n_samples, 2)
    check_at_least("n_at_once", n_at_once, 1)
    x = _datum(vae, x)
    n_at_once = min(n_at_once, n_samples)
    posterior = vae.posterior(x)

    def add(i, sums):
        numbers = i * n_at_once + jnp.arange(n_at_once)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        values = log_weights(vae, x, jax.vmap(posterior.sample)(keys), posterior)
        return _added(sums, jnp.where(numbers < n_samples, values, -jnp.inf))

    nothing = jnp.zeros((), jnp.promote_types(posterior.mean.dtype, jnp.float32))
    start = (jnp.full_like(nothing, -jnp.inf), nothing, nothing)
    largest, total, squares = lax.fori_loop(0, -(-n_samples // n_at_once), add, start)
    size = total**2 / squares
    # Var(mean w)/(mean w)² = (n Σw²/(Σw)² − 1)/(n − 1).
    variance = jnp.maximum(n_samples / size - 1, 0) / (n_samples - 1)
    return LogLikelihood(largest + jnp.log(total / n_samples), jnp.sqrt(variance), size)


def _added(sums, values):
    """Return (largest, Σ e^{v − largest}, Σ e^{2(v − largest)}) with more values taken in."""
    largest, total, squares = sums
    new = jnp.maximum(largest, jnp.max(values))
    # Nothing but weights of 0 so far: any finite reference will do.
    reference = jnp.where(jnp.isfinite(new), new, 0)
    shrunk, weights = jnp.exp(largest - reference), jnp.exp(values - reference)
    return new, total * shrunk + jnp.sum(weights), squares * shrunk**2 + jnp.sum(weights**2)
