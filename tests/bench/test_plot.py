"""The plot of a run."""

from __future__ import annotations

from pathlib import Path

from bench import plot

RESULTS = {
    "fanout_1x100_us": {"headway": 6.0, "node": 9.0},
    "fanout_1x1000_us": {"headway": 4.0, "node": 8.0, "floor": 3.5},
    "rss_per_socket_kib": {"headway": 9.9},
}


def test_the_same_figures_make_the_same_file(tmp_path: Path) -> None:
    """A plot that is kept in git changes with what it shows only."""
    one, two = (plot.save(RESULTS, tmp_path / name / "benchmarks.svg") for name in "ab")
    assert [file.name for file in one] == ["benchmarks.svg", "benchmarks.png"]
    assert one[0].read_bytes() == two[0].read_bytes()
    assert "Node ws" in one[0].read_text()


def test_without_fan_out_there_is_no_plot(tmp_path: Path) -> None:
    """Only other parts were asked for."""
    assert plot.save({"track_ns": {"headway": 20.0, "tqdm": 60.0}}, tmp_path / "benchmarks.svg") == []
    assert list(tmp_path.iterdir()) == []
