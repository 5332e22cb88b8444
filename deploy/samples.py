"""Real data to try things with: the CSV files in the vega_datasets wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def csv_files() -> dict[str, Path]:
    """Return the CSV files by name, for example "airports.csv"; none where the wheel is not installed."""
    # Found, not imported: importing the package would import pandas, which we do not install.
    spec = importlib.util.find_spec("vega_datasets")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0]) / "_data"
    return {path.name: path for path in sorted(folder.glob("*.csv"))}
