"""The real data that tests and demo use."""

from __future__ import annotations

import sys

from deploy import samples


def test_the_samples_are_there_without_importing_their_package():
    """Importing it would import pandas."""
    files = samples.csv_files()
    assert {"airports.csv", "stocks.csv"} <= files.keys()
    assert all(path.stat().st_size > 0 for path in files.values())
    assert "vega_datasets" not in sys.modules
