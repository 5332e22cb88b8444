"""The targets (DESIGN.md), whether they are met, and the one table that tells it.

    python -m bench.targets

prints the table of the last run (bench/results.json) in Markdown, for docs/benchmarks.md.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results.json"

Results = dict[str, dict[str, float]]
"""Metric → server → figure."""

COLUMNS = ("headway", "headway_2", "starlette", "node", "nchan_redis", "nchan_memory", "floor")
"""Servers with a column of their own; all others share the last."""


class Target(NamedTuple):
    """A limit for Headway: its figure itself, or its ratio to a peer's."""

    metric: str
    limit: float
    peer: str = ""
    least: bool = False
    """Whether the figure must be at least the limit, instead of at most."""


TARGETS = (
    Target("fanout_1x1000_us", 0.95, "nchan_redis"),
    Target("fanout_1x1000_us", 0.65, "node"),
    Target("fanout_1x1000_us", 0.5, "starlette"),
    Target("delivered_1x1000", 1.0, least=True),
    Target("many_1000x1_us", 0.65, "node"),
    Target("delivered_1000x1", 1.0, least=True),
    Target("latency_p50_ms", 0.25),
    Target("latency_p99_ms", 2.0),
    Target("rss_per_socket_kib", 12.0),
    Target("rss_per_socket_kib", 10.0),
    Target("fanout_1x10000_us", 8.0),
    Target("delivered_1x10000", 1.0, least=True),
    Target("closed_1x10000", 0),
    Target("healthz_max_ms", 50.0),
    Target("join_10000_reads", 1),
    Target("poll_304_rps", 2.0, "fastapi", least=True),
    Target("publish_us", 0.4, "update_state"),
    Target("publish_cpu_us", 0.4, "update_state"),
    Target("track_ns", 0.5, "tqdm"),
)


def verdict(target: Target, results: Results) -> tuple[str, str, str]:
    """(what was reached, the target, "met" or "MISSED" or why it cannot be told)."""
    figures = results.get(target.metric, {})
    sign = "≥" if target.least else "≤"
    wanted = f"{sign} {target.limit:g}" + (f" of {target.peer}" if target.peer else "")
    ours, theirs = figures.get("headway"), figures.get(target.peer) if target.peer else 1.0
    if ours is None or not theirs:
        return "", wanted, "not measured" if ours is None else f"no {target.peer}"
    reached = ours / theirs
    met = reached >= target.limit if target.least else reached <= target.limit
    return number(reached), wanted, "met" if met else "MISSED"


def number(value: float) -> str:
    """Three digits, and 1 for nothing less."""
    if value == int(value) and abs(value) < 100:
        return str(int(value))
    if 0.999 <= value < 1:
        return f"{math.floor(value * 1e6) / 1e6:.6f}"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def table(results: Results) -> str:
    """One line for each metric, and for each target of it."""
    shown = [name for name in COLUMNS if any(name in figures for figures in results.values())]
    rows = [("metric", *shown, "other", "ratio", "target", "")]
    for metric, figures in results.items():
        others = ", ".join(f"{name} {number(value)}" for name, value in figures.items() if name not in shown)
        cells = (metric, *(number(figures[name]) if name in figures else "·" for name in shown), others)
        verdicts = [verdict(target, results) for target in TARGETS if target.metric == metric]
        rows.append((*cells, *(verdicts[0] if verdicts else ("", "", ""))))
        rows += [(*[""] * len(cells), *more) for more in verdicts[1:]]
    return aligned(rows)


def markdown(results: Results) -> str:
    """The same for a document: a metric's targets share its line."""
    lines = [f"| metric | {' | '.join(COLUMNS)} | other | target |", "|---" * (len(COLUMNS) + 3) + "|"]
    for metric, figures in results.items():
        others = ", ".join(f"{name} {number(value)}" for name, value in figures.items() if name not in COLUMNS)
        verdicts = (verdict(target, results) for target in TARGETS if target.metric == metric)
        told = "<br>".join(f"{reached} {wanted}: {word}" for reached, wanted, word in verdicts)
        cells = " | ".join(number(figures[name]) if name in figures else "" for name in COLUMNS)
        lines.append(f"| `{metric}` | {cells} | {others} | {told} |")
    return "\n".join(lines)


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width: the first to the left, figures to the right, words to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = {0, len(widths) - 4, len(widths) - 2, len(widths) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    print(markdown(json.loads(RESULTS.read_text())))
