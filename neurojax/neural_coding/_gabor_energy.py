"""The energy model of complex cells: two Gabor filters in quadrature, squared and added."""

from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_at_least, check_rank, check_shape
from .._precision import product
from .._types import PRNGKey
from ._encoders import AbstractEncoder
from ._stimuli import check_image_shape

__all__ = ["GaborEnergy"]

PerNeuron = Float[Array, " neurons"]
Output = Literal["energy", "root"]
_PARAMETERS = (
    "row",
    "column",
    "direction_degrees",
    "frequency",
    "width_across",
    "width_along",
    "amplitude",
    "baseline",
)


class GaborEnergy(AbstractEncoder):
    """Responses to gratings of any phase: the length of (even, odd), or its square.

    With (y, x) the way down and to the right from the centre of a neuron's field, θ its direction,
    u = x·cos θ − y·sin θ across the bars and w = x·sin θ + y·cos θ along them, and the envelope
    G = exp(−u²/(2·width_across²) − w²/(2·width_along²)),

        even = (2/ΣG)·Σ G·(cos(2π·frequency·u) − m)·image,
        odd = (2/ΣG)·Σ G·(sin(2π·frequency·u) − n)·image,
        energy = even² + odd²,
        response = baseline + amplitude·energy        for ``output="energy"``,
        response = baseline + amplitude·√energy       for ``output="root"``,

    sums over pixels, m and n the means of cosine and sine under G, so that a uniform image has the response
    ``baseline``. The factors make energy 1 for the preferred grating at contrast 1, where the envelope holds
    some cycles inside the image: a grating of contrast c has c². θ and θ + 180° are the same neuron; signs of
    widths and frequency do not matter. Angles are those of `grating`: counter-clockwise from rightward as
    drawn, at a right angle to the bars.

    Attributes:
        row: the centre, in pixels from the middle of the top left pixel.
        column: likewise.
        direction_degrees: θ, across the bars.
        frequency: in cycles a pixel.
        width_across: standard deviation of the envelope across the bars, in pixels, not 0.
        width_along: along them.
        amplitude: in the responses' unit.
        baseline: in the responses' unit.
        image_shape: rows and columns.
        output: ``"energy"`` or ``"root"``.

    Gradient: of the root where the energy is 0: 0.

    Raises:
        ValueError: at construction, for parameters that are not a number for each neuron, an unknown output
            and an image shape that is none.

    Reference:
        Adelson & Bergen 1985, J. Opt. Soc. Am. A 2, 284-299.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> neurons = GaborEnergy.random((12, 16), 5, jax.random.key(0))
        >>> eqx.filter_jit(neurons)(jnp.ones((12, 16))).shape, neurons.n_parameters
        ((5,), 40)
    """

    row: PerNeuron = eqx.field(converter=partial(real_array, "row"))
    column: PerNeuron = eqx.field(converter=partial(real_array, "column"))
    direction_degrees: PerNeuron = eqx.field(converter=partial(real_array, "direction_degrees"))
    frequency: PerNeuron = eqx.field(converter=partial(real_array, "frequency"))
    width_across: PerNeuron = eqx.field(converter=partial(real_array, "width_across"))
    width_along: PerNeuron = eqx.field(converter=partial(real_array, "width_along"))
    amplitude: PerNeuron = eqx.field(converter=partial(real_array, "amplitude"))
    baseline: PerNeuron = eqx.field(converter=partial(real_array, "baseline"))
    image_shape: tuple[int, int] = eqx.field(static=True)
    output: Output = eqx.field(static=True, default="energy")

    def __check_init__(self):
        if self.output not in get_args(Output):
            raise ValueError(f"output: expected one of {get_args(Output)}, got {self.output!r}.")
        check_image_shape(self.image_shape)
        check_rank("row", self.row, "neurons")
        for name in _PARAMETERS[1:]:
            check_shape(name, getattr(self, name), self.row.shape, "a number for each neuron (of row)")

    @classmethod
    def random(
        cls,
        image_shape: tuple[int, int],
        n_neurons: int,
        key: PRNGKey,
        *,
        output: Output = "energy",
        dtype="float32",
    ) -> "GaborEnergy":
        """Draw neurons to start from.

        Centres are uniform over the middle half of the image, directions over 180°, the logarithm of
        the frequency from two cycles across the shorter side to 0.25 a pixel; both widths are half a
        cycle; amplitude 1 and baseline 0.
        """
        check_image_shape(image_shape)
        check_at_least("n_neurons", n_neurons, 1)
        rows, columns = image_shape
        row, column, turn, pitch = jax.random.uniform(key, (4, n_neurons), dtype)
        lowest = min(2 / min(rows, columns), 0.25)
        frequency = lowest * (0.25 / lowest) ** pitch
        ones = jnp.ones(n_neurons, dtype)
        return cls(
            row=(0.25 + 0.5 * row) * (rows - 1),
            column=(0.25 + 0.5 * column) * (columns - 1),
            direction_degrees=180 * turn,
            frequency=frequency,
            width_across=0.5 / frequency,
            width_along=0.5 / frequency,
            amplitude=ones,
            baseline=0 * ones,
            image_shape=(rows, columns),
            output=output,
        )

    @property
    def n_neurons(self) -> int:
        """The number of neurons."""
        return len(self.row)

    def filters(self) -> Float[Array, "neurons 2 rows columns"]:
        """Return each neuron's even and odd filter."""
        rows, columns = jnp.indices(self.image_shape, self.row.dtype)
        # Parameters against pixels: (neurons, 1, 1) against (rows, columns).
        at = {name: getattr(self, name)[:, None, None] for name in _PARAMETERS}
        angle = jnp.deg2rad(at["direction_degrees"])
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        down, right = rows - at["row"], columns - at["column"]
        across, along = right * cos - down * sin, right * sin + down * cos
        exponent = (across / at["width_across"]) ** 2 + (along / at["width_along"]) ** 2
        # The softmax is G/ΣG, also for a centre far outside the image.
        share = jax.nn.softmax(-exponent.reshape(self.n_neurons, -1) / 2).reshape(exponent.shape)
        phase = 2 * jnp.pi * at["frequency"] * across
        pair = jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1)
        means = jnp.sum(share[:, None] * pair, axis=(2, 3), keepdims=True)
        return 2 * share[:, None] * (pair - means)

    def energy(self, image: Real[ArrayLike, "rows columns"]) -> PerNeuron:
        """Return even² + odd² of each neuron."""
        image = real_array("image", image, "rows columns")
        check_shape("image", image, self.image_shape, "the image_shape of the encoder")
        pair = product(self.filters().reshape(self.n_neurons, 2, -1), image.reshape(-1))
        return jnp.sum(pair**2, axis=1)

    def __call__(self, image: Real[ArrayLike, "rows columns"]) -> PerNeuron:
        """Return the response of each neuron."""
        energy = self.energy(image)
        if self.output == "root":
            energy = jnp.where(energy > 0, jnp.sqrt(jnp.where(energy > 0, energy, 1)), 0)
        return self.baseline + self.amplitude * energy

    def readout_weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return nothing: there is no readout, and nothing to penalise."""
        return ()
