"""The pictures of the networks of ``neurojax decode``: losses, weights, and hidden units."""

from collections.abc import Mapping

import numpy as np
from jax import Array
from matplotlib.figure import Figure

from .. import neural_coding as nc
from .. import plotting
from ..neural_coding import AngleBins
from ._decode_networks import Learned, Scaling
from ._figures import grid
from ._neural_data import Responses

__all__ = ["network_figures"]

_N_HIDDEN = 6


def network_figures(
    networks: dict[str, Learned],
    responses: Responses,
    train: np.ndarray,
    test: np.ndarray,
    *,
    preferred: np.ndarray,
    bins: AngleBins,
) -> dict[str, Figure]:
    """Draw every network.

    Args:
        networks: trained on ``train``.
        responses: the trials.
        train: the numbers of some trials.
        test: of the others.
        preferred: the preferred angle of each neuron.
        bins: for tuning curves.

    Returns:
        Figures by the stem of their file; none without networks.
    """
    if not networks:
        return {}
    angles, period = responses.angles_degrees, responses.period_degrees
    scaled = Scaling.of(responses.responses[train])(responses.responses)
    activity = {name: np.asarray(of.network.hidden(scaled)) for name, of in networks.items()}
    figures = {
        "losses": _losses(networks),
        "input_weights": _input_weights(networks, preferred),
        "input_weights_penalties": _penalties(networks, preferred),
        "output_weights": _output_weights(networks),
        "hidden": _hidden(activity, angles),
        "hidden_tuning": _hidden_tuning(activity, angles, bins),
    }
    if "network-degrees" in networks:
        said = np.asarray(networks["network-degrees"].network(scaled))[:, 0]
        figures["regression"] = _regression(said, angles, period, train, test)
    return figures


def _losses(networks: dict[str, Learned]) -> Figure:
    figure, axes = grid(len(networks), 4.0, 3.3)
    for ax, (name, learned) in zip(axes, networks.items(), strict=True):
        history = learned.history
        unit = "squared degrees" if name == "network-degrees" else "nats" if "classifier" in name else None
        plotting.history(
            np.arange(len(history)),
            history["data_loss"],
            ax,
            evaluation=(history.evaluation_steps, history.evaluation["loss"]),
            quantity="data loss" + (f" ({unit})" if unit else ""),
            is_log=True,
        ).set_title(name)
    return figure


def _main(networks: dict[str, Learned]) -> str:
    return "network-classifier" if "network-classifier" in networks else next(iter(networks))


def _input_weights(networks: dict[str, Learned], preferred: np.ndarray) -> Figure:
    name = _main(networks)
    weights = np.asarray(networks[name].network.input_weights)
    figure = Figure((10, 6.5), layout="constrained")
    plain, by_angle = figure.subplots(2, 1)
    plotting.weight_matrix(weights, plain).set_title(f"input weights of {name}, neurons as they come")
    plotting.weight_matrix(weights, by_angle, preferred_degrees=preferred).set_title(
        "the same, neurons sorted by preferred angle"
    )
    return figure


def _penalties(networks: dict[str, Learned], preferred: np.ndarray) -> Figure:
    """Draw the input weights before learning, and after it under each loss, on scales of their own."""
    panels = {f"{_main(networks)}, before learning": networks[_main(networks)].first}
    panels |= {f"{name}, after learning": learned.network for name, learned in networks.items()}
    figure = Figure((10, 3 * len(panels)), layout="constrained")
    for ax, (title, network) in zip(figure.subplots(len(panels), 1), panels.items(), strict=True):
        weights = np.asarray(network.input_weights)
        plotting.weight_matrix(weights, ax, preferred_degrees=preferred).set_title(title)
    return figure


def _output_weights(networks: dict[str, Learned]) -> Figure:
    figure, axes = grid(len(networks), 4.4, 3.6)
    for ax, (name, learned) in zip(axes, networks.items(), strict=True):
        weights = np.asarray(learned.network.output_weights)
        row = "class" if "classifier" in name else "output"
        plotting.weight_matrix(weights, ax, row=row, column="hidden unit").set_title(name)
        if len(weights) <= 2:
            ax.set_yticks(range(len(weights)))
    return figure


def _hidden(activity: Mapping[str, np.ndarray], angles: Array) -> Figure:
    """Draw the hidden activity of every trial, units sorted by the angle at which they are most active."""
    figure, axes = grid(len(activity), 4.4, 3.6)
    for ax, (name, hidden) in zip(axes, activity.items(), strict=True):
        peaks = np.asarray(angles)[np.argmax(hidden, axis=0)]
        plotting.response_matrix(hidden, angles, ax, preferred_degrees=peaks, quantity="hidden activity")
        ax.images[0].set_interpolation("nearest")  # few units, each a column of its own
        ax.set_title(name)
        ax.set_xlabel(f"{hidden.shape[1]} hidden units, by the angle of their peak")
    return figure


def _hidden_tuning(activity: Mapping[str, np.ndarray], angles: Array, bins: AngleBins) -> Figure:
    """Draw the tuning curves of a few hidden units: those whose mean activity varies most with the angle."""
    figure, axes = grid(len(activity), 4.0, 3.2)
    for ax, (name, hidden) in zip(axes, activity.items(), strict=True):
        curves = np.asarray(nc.tuning_curves(hidden, angles, bins))
        seen = ~np.isnan(curves).any(axis=0)
        chosen = np.sort(np.argsort(-np.var(curves[:, seen], axis=1), kind="stable")[:_N_HIDDEN])
        plotting.tuning_curves(
            bins.centers_degrees[seen], curves[np.ix_(chosen, seen)], ax, quantity="mean hidden activity"
        ).set_title(f"{name}: {len(chosen)} of {len(curves)} units")
    return figure


def _regression(
    said: np.ndarray, angles: Array, period: float, train: np.ndarray, test: np.ndarray
) -> Figure:
    """Draw what the network on degrees says, as it is, and its signed error: decoded − true, unwrapped.

    On degrees the error of an angle just below a full turn may reach a full turn. That is the fault which
    an output on the circle does not have.
    """
    true = np.asarray(nc.wrap_degrees(angles, period))
    figure = Figure((10, 4.2), layout="constrained")
    outputs, errors = figure.subplots(1, 2)
    parts = {"learned from": (train, "#999999"), "held out": (test, "#0072B2")}
    for label, (rows, color) in parts.items():
        for ax, values in ((outputs, said), (errors, said - true)):
            ax.plot(true[rows], values[rows], "o", ms=3.5, alpha=0.7, mew=0, color=color, label=label)
    outputs.plot([0, period], [0, period], "k--", lw=1)
    errors.axhline(0, color="k", ls="--", lw=1)
    outputs.set(ylabel="output of the network (degrees)", title="network-degrees")
    errors.set(ylabel="signed error: output − true (degrees)", ylim=(-1.05 * period, 1.05 * period))
    errors.set_title("signed error, not wrapped")
    for ax in (outputs, errors):
        ax.set(xlabel="true angle (degrees)", xticks=np.arange(0, period + 1, period / 4))
        ax.spines[["top", "right"]].set_visible(False)
    outputs.legend(frameon=False)
    return figure
