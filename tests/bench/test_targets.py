"""The table and its verdicts."""

from __future__ import annotations

import pytest

from bench.targets import TARGETS, Target, markdown, number, table, verdict


@pytest.mark.parametrize(("ours", "said"), [(4.75, "met"), (4.76, "MISSED")])
def test_a_ratio_is_met_up_to_its_limit(ours: float, said: str) -> None:
    """`limit` times the peer's figure."""
    target = Target("fanout_1x1000_us", 0.95, "nchan_redis")
    assert verdict(target, {target.metric: {"headway": ours, "nchan_redis": 5.0}})[1:] == (
        "≤ 0.95 of nchan_redis",
        said,
    )


@pytest.mark.parametrize(("ours", "said"), [(4_000.0, "met"), (3_999.0, "MISSED")])
def test_where_more_is_better_it_is_the_other_way_round(ours: float, said: str) -> None:
    """Requests a second."""
    target = Target("poll_304_rps", 2.0, "fastapi", least=True)
    assert verdict(target, {target.metric: {"headway": ours, "fastapi": 2_000.0}})[2] == said


def test_a_limit_needs_no_peer() -> None:
    """A figure of its own."""
    assert verdict(Target("latency_p50_ms", 0.25), {"latency_p50_ms": {"headway": 0.2}}) == ("0.200", "≤ 0.25", "met")


def test_a_peer_that_is_missing_is_named() -> None:
    """It is neither met nor missed."""
    target = Target("many_1000x1_us", 0.65, "node")
    assert verdict(target, {"many_1000x1_us": {"headway": 6.0}})[2] == "no node"
    assert verdict(target, {})[2] == "not measured"


def test_what_is_not_all_never_reads_as_all() -> None:
    """One event lost in a million is shown."""
    assert number(0.999999) == "0.999999"
    assert number(1.0) == "1"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.2541, "0.254"), (4.756, "4.76"), (47.56, "47.6"), (1234.5, "1,234")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    """Whatever their size."""
    assert number(value) == text


def test_every_target_of_a_metric_has_its_line() -> None:
    """And servers without a column are named."""
    results = {
        "fanout_1x1000_us": {"headway": 4.0, "nchan_redis": 5.0, "node": 8.0, "starlette": 10.0},
        "track_ns": {"headway": 20.0, "tqdm": 80.5},
    }
    lines = table(results).splitlines()
    assert lines[0].split() == ["metric", "headway", "starlette", "node", "nchan_redis", "other", "ratio", "target"]
    assert [line.split()[-1] for line in lines[1:]] == ["met"] * 4
    assert "tqdm 80.5" in lines[4]


def test_a_document_has_a_line_for_each_metric() -> None:
    """With all its targets, and as many cells as its head."""
    lines = markdown({"rss_per_socket_kib": {"headway": 11.2, "node": 10.2}, "track_ns": {"tqdm": 60.0}}).splitlines()
    assert "11.2 ≤ 12: met<br>11.2 ≤ 10: MISSED" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


def test_no_target_is_said_twice() -> None:
    """Each has its own limit."""
    assert len({(target.metric, target.peer, target.limit) for target in TARGETS}) == len(TARGETS)
