"""The plot of a run: cost of a delivery by server, its growth with the room, and what a socket weighs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.targets import COLUMNS, Results, number

NAMES = {
    "headway": "Headway",
    "headway_2": "Headway, 2 processes",
    "starlette": "Starlette loop",
    "node": "Node ws",
    "nchan_redis": "nginx+Nchan, Redis",
    "nchan_memory": "nginx+Nchan, memory",
    "floor": "bare send() in C",
}
OURS, PEERS = "#0b6e4f", ("#5fa98c", "#9aa5b1", "#7b8794", "#b08968", "#ddb892", "#3e4c59")
SIZES = (1, 10, 100, 1_000, 10_000)


def save(results: Results, paths: Iterable[Path]) -> list[Path]:
    """Write the plot, in the format of each path's suffix; the files. None if nothing was measured that it shows."""
    growth = {size: results[f"fanout_1x{size}_us"] for size in SIZES if f"fanout_1x{size}_us" in results}
    if not growth:
        return []
    written = []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same figures make the same file: a layout is not quite the same when it is drawn again.
        with mpl.rc_context({"svg.hashsalt": "headway", "svg.fonttype": "none"}):
            metadata = {"Date": None} if path.suffix == ".svg" else None
            _drawn(growth, results.get("rss_per_socket_kib", {})).savefig(path, dpi=110, metadata=metadata)
        written.append(path)
    return written


def _drawn(growth: dict[int, dict[str, float]], weights: dict[str, float]) -> Figure:
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    bars, lines, memory = figure.subplots(1, 3)
    size = 1_000 if 1_000 in growth else max(growth)
    _bars(bars, growth[size], f"CPU of the server for each delivery\n1 task, {size:,} sockets", "µs")
    _lines(lines, growth)
    _bars(memory, weights, "Resident memory of an idle socket", "KiB")
    return figure


def colour(server: str) -> str:
    """The colour of a server, as matplotlib writes one."""
    return OURS if server == "headway" else PEERS[COLUMNS.index(server) - 1]


def _bars(axes: Axes, figures: dict[str, float], title: str, unit: str) -> None:
    servers = [server for server in COLUMNS if server in figures]
    drawn = axes.barh(
        [NAMES[server] for server in servers],
        [figures[server] for server in servers],
        color=[colour(server) for server in servers],
    )
    axes.bar_label(drawn, [number(figures[server]) for server in servers], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, growth: dict[int, dict[str, float]]) -> None:
    for server in COLUMNS:
        points = [(size, figures[server]) for size, figures in growth.items() if server in figures]
        if points:
            width = 2.5 if server == "headway" else 1.5
            axes.plot(*zip(*points, strict=True), marker="o", label=NAMES[server], color=colour(server), lw=width)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.set_xticks(list(growth), [f"{size:,}" for size in growth])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_title("The same, as the room grows", fontsize=10)
    axes.set_xlabel("sockets watching the task")
    axes.set_ylabel("µs")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
