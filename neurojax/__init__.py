"""neurojax: classic models of neural representation, with inference that certifies its convergence.

Every model is an energy E(θ, x, z), a way to get z from x (minimise, sample or encode) and a gradient
step on θ. Import the part you need: ``from neurojax import penalties, sparse_coding``.
"""

__version__ = "0.1.0"
