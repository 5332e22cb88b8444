"""Names and types of columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.importing import columns
from workers.problems import BadArgument, TooManyColumns


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-2", "", " 3 "], "bigint"),
        (["9223372036854775807"], "bigint"),
        (["9223372036854775808"], "numeric"),
        (["1", "2.5", ".5", "3."], "numeric"),
        (["1e5", "2"], "double"),
        (["1e999"], "text"),
        (["007", "8"], "text"),
        (["00.5"], "text"),
        (["true", "FALSE"], "boolean"),
        (["t", "f"], "text"),
        (["2020-02-29"], "date"),
        (["2021-02-29"], "text"),
        (["2012/1/31"], "date"),
        (["2012/01-31"], "text"),
        (["31/01/2012"], "text"),
        (["Jan 1 2000", "February 28, 2001"], "date"),
        (["Foo 1 2000"], "text"),
        (["2010/01/01 00:00", "2010-01-01T23:59:59.5"], "timestamp"),
        (["2010-01-01 25:00"], "text"),
        (["2010-01-01T00:00:00Z", "2010-01-01 00:00:00+02:00"], "timestamptz"),
        (["123e4567-e89b-12d3-a456-426614174000"], "uuid"),
        (["", "  "], "text"),
        ([], "text"),
        (["."], "text"),
        (["²"], "text"),
    ],
)
def test_a_type_is_the_narrowest_that_every_value_fits(values, expected):
    """Nothing is a number or a day that would lose something, or be another one elsewhere."""
    assert columns.infer(values) == expected


@given(st.lists(st.text(max_size=40), max_size=60))
def test_names_are_unique_and_short_enough_for_any_header(header):
    """PostgreSQL would cut longer ones silently, and then find two the same."""
    names, _ = columns.names(header)
    assert len(set(names)) == len(header)
    assert all(0 < len(name.encode()) <= columns.NAME_BYTES for name in names)
    assert not columns.SYSTEM & set(names)


def test_blank_repeated_and_reserved_names_are_changed_and_told():
    """Each change has a note; good names stay as they are."""
    names, notes = columns.names(["a", "", "a", "A", "xmin", " b  c "])
    assert names == ["a", "column_2", "a_2", "A", "xmin_2", "b c"]
    assert len(notes) == 3


def test_more_columns_than_a_table_can_have_are_refused():
    """With both numbers."""
    with pytest.raises(TooManyColumns, match="10,000 columns; a table can have 1,600"):
        columns.names([str(n) for n in range(10_000)])


def test_a_given_type_wins_over_inference():
    """Only the other columns are inferred."""
    found = columns.columns(["a", "b"], [["1", "2"]], {"a": "text"})
    assert [(column.name, column.type) for column in found] == [("a", "text"), ("b", "bigint")]


def test_a_type_for_a_column_that_is_not_there_is_refused():
    """A typing error in a column's name must not be ignored."""
    with pytest.raises(BadArgument, match="'c'"):
        columns.columns(["a", "b"], [], {"c": "text"})
