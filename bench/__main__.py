"""`make bench`: measure, print one table with ratios and targets, write bench/results.json. QUICK=1 for a short run.

The exit code is 0 also when a target is missed: a benchmark tells, it does not gate.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from bench import publish, track

RESULTS = Path(__file__).parent / "results.json"
TARGETS = {
    "publish_us": ("update_state", 0.4),
    "publish_cpu_us": ("update_state", 0.4),
    "track_ns": ("tqdm", 0.5),
}
"""Metric → the peer, and the share of its cost that Headway may have (DESIGN.md, Targets)."""


def report(results: dict[str, dict[str, float]]) -> str:
    """The table."""
    rows = [("metric", "headway", "peer", "", "ratio", "target", "")]
    for metric, (peer, target) in TARGETS.items():
        ours, theirs = results[metric]["headway"], results[metric][peer]
        ratio = ours / theirs
        verdict = "met" if ratio <= target else "MISSED"
        rows.append((metric, f"{ours:.1f}", peer, f"{theirs:.1f}", f"{ratio:.2f}", f"≤ {target}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Run all benchmarks."""
    quick = os.environ.get("QUICK", "") not in ("", "0")
    rounds = 5 if quick else 9
    events, iterations = (2_000, 500_000) if quick else (10_000, 3_000_000)
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, medians of {rounds} rounds\n", flush=True)
    results = {**publish.measure(events, rounds), **track.measure(iterations, rounds)}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(report(results))
    print(f"\nwritten to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
