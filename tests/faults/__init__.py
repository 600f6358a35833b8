"""Faults that were found, by area; `tests/test_faults.py` runs them."""
