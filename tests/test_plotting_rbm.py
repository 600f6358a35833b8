"""The course of what is measured now and then while a machine learns."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from neurojax import plotting


@pytest.mark.parametrize(("smoothing", "name"), [(1, "held out"), (2, "held out, mean of 2")])
def test_a_history_names_what_it_draws(smoothing, name):
    steps, values = np.array([10, 20, 40]), np.array([-5.0, -4.0, -3.5])
    ax = plotting.history(
        steps, values, Figure().subplots(), label="held out", quantity="nats", smoothing=smoothing
    )
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.column_stack([steps, values]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [name]
    assert ax.get_ylabel() == "nats" and ax.get_xlabel() == "step"
