"""The plot of a run."""

from __future__ import annotations

from pathlib import Path

from bench import plot
from bench.targets import COLUMNS

RESULTS = {
    "fanout_1x100_us": {"headway": 6.0, "node": 9.0},
    "fanout_1x1000_us": {"headway": 4.0, "node": 8.0, "floor": 3.5},
    "rss_per_socket_kib": {"headway": 9.9},
}


def test_the_same_figures_make_the_same_file(tmp_path: Path) -> None:
    """A plot that is kept in git changes with what it shows only."""
    one, two = plot.save(RESULTS, [tmp_path / "one" / "benchmarks.svg", tmp_path / "two.svg"])
    assert one.read_bytes() == two.read_bytes()
    assert "Node ws" in one.read_text()


def test_every_server_of_the_table_can_be_drawn(tmp_path: Path) -> None:
    """Each with a name and a colour of its own."""
    figures = dict.fromkeys(COLUMNS, 5.0)
    assert plot.save({"fanout_1x1000_us": figures, "rss_per_socket_kib": figures}, [tmp_path / "benchmarks.svg"])
    assert set(plot.NAMES) == set(COLUMNS)
    assert len({plot.colour(server) for server in COLUMNS}) == len(COLUMNS)


def test_the_suffix_names_the_format(tmp_path: Path) -> None:
    """A PNG for where no SVG is shown."""
    (file,) = plot.save(RESULTS, [tmp_path / "benchmarks.png"])
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_fan_out_there_is_no_plot(tmp_path: Path) -> None:
    """Only other parts were asked for."""
    assert plot.save({"track_ns": {"headway": 20.0, "tqdm": 60.0}}, [tmp_path / "benchmarks.svg"]) == []
    assert list(tmp_path.iterdir()) == []
