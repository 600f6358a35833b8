"""``python -m neurojax``."""

import sys

from .cli import main

sys.exit(main())
