"""Faults that were found: each test has the input that showed one, and the right value beside it.

The tests lie in the folder ``faults``, by area. The letter and the number in a name number the faults.
"""

import pytest

pytest.register_assert_rewrite("faults")

from faults.boltzmann import *  # noqa: E402, F403
from faults.decoding import *  # noqa: E402, F403
from faults.files import *  # noqa: E402, F403
from faults.fits import *  # noqa: E402, F403
from faults.gradients import *  # noqa: E402, F403
from faults.inference import *  # noqa: E402, F403
from faults.runs import *  # noqa: E402, F403
from faults.statistics import *  # noqa: E402, F403
from faults.systems import *  # noqa: E402, F403
