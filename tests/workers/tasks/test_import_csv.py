"""import_csv against a real PostgreSQL, with real files."""

from __future__ import annotations

import csv
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from deploy import samples
from deploy.postgres import Postgres
from headway import Progress, Superseded
from headway.storage import UnknownRef
from workers import problems
from workers.importing import ledger, records
from workers.importing.database import Database
from workers.tasks.import_csv import import_csv

ROOT = Path(__file__).parents[3]


def run(task_id: str, **args):
    """Run the body under a task id, as a worker would."""
    import_csv.push_request(id=task_id)
    try:
        return import_csv.run(**args)
    finally:
        import_csv.pop_request()


def rejected(storage, result) -> list[list[str]]:
    """The lines of the rejects file."""
    text = storage.path(result["rejects"]["ref"]).read_text()
    return list(csv.reader(text.splitlines(keepends=True)))[1:]


@pytest.fixture
def small_batches(monkeypatch):
    """Many batches from a small file."""
    monkeypatch.setattr(records.Records.__init__, "__defaults__", (",", None, None, 4096))


@pytest.mark.parametrize("name", sorted(samples.csv_files()))
def test_a_real_file_is_in_its_table_row_for_row(name, upload, query):
    """Every value of every row, as text, is what the csv module reads from the file."""
    path = samples.csv_files()[name]
    result = run(name, file=upload(path.read_bytes(), name))
    columns = ", ".join(f'"{column["name"]}"::text' for column in result["columns"])
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    stored = query(f"SELECT {columns} FROM {result['table']}")
    assert [column["name"] for column in result["columns"]] == header
    assert (result["rows"], result["rejected"], result["rejects"]) == (len(rows), 0, None)
    text = [index for index, column in enumerate(result["columns"]) if column["type"] == "text"]
    assert [[row[i] for i in text] for row in stored] == [[row[i] or None for i in text] for row in rows]


def test_types_are_inferred_and_values_kept_exactly(upload, query):
    """A decimal keeps its zeros, an empty field is NULL."""
    result = run("t", file=upload(b"n,d,when\n1,2.50,2020-01-02 03:04\n,,\n"))
    assert [column["type"] for column in result["columns"]] == ["bigint", "numeric", "timestamp"]
    assert query(f'SELECT n, d::text, "when"::text FROM {result["table"]}') == [
        (1, "2.50", "2020-01-02 03:04:00"),
        (None, None, None),
    ]


def test_text_arrives_as_it_is(upload, query):
    """Backslashes, tabs, line ends, quotes, and the characters that batches are joined with."""
    values = ["a\\b", "\\.", "\\N", "tab\there", "two\nlines", "cr\r\nlf", 'quo"te', "\x1f", "\x1e", "日本", "%s", "'"]
    data = "v\n" + "".join('"{}"\n'.format(value.replace('"', '""')) for value in values)
    result = run("t", file=upload(data.encode()))
    assert [row[0] for row in query(f"SELECT v FROM {result['table']}")] == values


def test_bad_rows_are_kept_with_line_and_reason_and_the_others_imported(upload, storage, query):
    """Of every kind: width, value, NUL, undecodable, quote."""
    data = b'a,b\n1,\xc3\xa9\n1\nx,y\n3,n\0l\n4,\xe9\n5,"q\n6,"two\nlines"\n'
    result = run("t", file=upload(data), types={"a": "integer"}, encoding="utf-8")
    assert query(f"SELECT a, b FROM {result['table']}") == [(1, "é"), (6, "two\nlines")]
    assert (result["rows"], result["rejected"]) == (2, 5)
    assert rejected(storage, result) == [
        ["3", "1 fields where the header has 2", "1"],
        ["4", 'column a: invalid input syntax for type integer: "x"', "x,y"],
        ["5", "a NUL byte, which text in PostgreSQL cannot hold", "3,n\\x00l"],
        ["6", "a character that cannot be decoded (byte 0xE9): wrong encoding?", "4,\\xe9"],
        ["7", "a quoted field goes on after its closing quote", '5,"q'],
    ]


def test_a_later_row_that_does_not_fit_the_inferred_type_is_a_reject(upload, storage, query):
    """The sample said integer; row 20,002 says otherwise."""
    data = b"n\n" + b"1\n" * 20_000 + b"abc\n9\n"
    result = run("t", file=upload(data))
    assert (result["rows"], result["rejected"]) == (20_001, 1)
    assert rejected(storage, result)[0][0] == "20002"


def test_many_bad_values_are_each_found(upload, storage, query):
    """Single ones, runs, the first and the last of a batch."""
    bad = {2, 3, 4, 5, 300, 5_000, 9_998, 10_001}
    data = b"n\n" + b"".join(b"x\n" if line in bad else b"%d\n" % line for line in range(2, 10_002))
    result = run("t", file=upload(data), types={"n": "integer"})
    assert {int(line) for line, _, _ in rejected(storage, result)} == bad
    assert query(f"SELECT count(*), sum(n) FROM {result['table']}") == [(9_992, sum(set(range(2, 10_002)) - bad))]


def test_more_rejects_than_the_limit_end_it_with_the_file_still_there(upload, storage, query):
    """The message names limit, first reason and file; no half table stays."""
    with pytest.raises(problems.TooManyRejects, match=r"More than 3 rows .* first in line 2 .* /files/f_") as caught:
        run("t", file=upload(b"n\n" + b"x\n" * 10), types={"n": "integer"}, reject_limit=3)
    ref = str(caught.value).rpartition("/files/")[2].rstrip(".")
    assert len(storage.path(ref).read_text().splitlines()) >= 5
    assert query("SELECT 1 FROM pg_tables WHERE schemaname = 'imports'") == []
    assert query("SELECT 1 FROM imports") == []


def test_as_many_rejects_as_the_limit_are_borne(upload):
    """The limit itself is allowed."""
    assert run("t", file=upload(b"n\n1\nx\nx\nx\n"), types={"n": "integer"}, reject_limit=3)["rejected"] == 3


class Killed(BaseException):
    """Stands for the end of the process: nothing in the body may handle it."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_killed_and_run_again_it_neither_doubles_nor_loses(
    at, when, upload, storage, query, monkeypatch, small_batches
):
    """Killed at any batch, before or after its commit: rows and rejects are those of an uninterrupted run."""
    lines = [f'{n},"quoted\n{n}"' if n % 7 else f"{n},b,too many" for n in range(3_000)]
    args = {"file": upload(("n,t\n" + "\n".join(lines) + "\n").encode())}
    load, batches = ledger.Ledger.load, iter(range(10_000))

    def killing(self, *args, **options):
        kill = next(batches) == at
        if kill and when == "before":
            raise Killed
        result = load(self, *args, **options)
        if kill:
            raise Killed
        return result

    monkeypatch.setattr(ledger.Ledger, "load", killing)
    with pytest.raises(Killed):
        run("t", **args)
    result = run("t", **args)
    good = [n for n in range(3_000) if n % 7]
    assert query(f"SELECT n, t FROM {result['table']} ORDER BY n") == [(n, f"quoted\n{n}") for n in good]
    assert [raw for _, _, raw in rejected(storage, result)] == [f"{n},b,too many" for n in range(0, 3_000, 7)]
    assert (result["rows"], result["rejected"]) == (len(good), 3_000 - len(good))


def test_killed_while_the_rejects_file_is_named_it_makes_no_second_one(upload, storage, monkeypatch):
    """The run after it finds the file, or writes the only one."""
    finish = ledger.Ledger.finish
    monkeypatch.setattr(ledger.Ledger, "finish", lambda *_: (_ for _ in ()).throw(Killed))
    args = {"file": upload(b"a,b\n1,2\n3\n")}
    with pytest.raises(Killed):
        run("t", **args)
    monkeypatch.setattr(ledger.Ledger, "finish", finish)
    result = run("t", **args)
    assert len(rejected(storage, result)) == 1
    assert len(list(storage.root.glob("f_*"))) == 2


def test_a_finished_import_run_again_returns_its_result(upload, query):
    """A second delivery of a task that has ended imports nothing."""
    args = {"file": upload(b"a\n1\n")}
    first = run("t", **args)
    assert run("t", **args) == first
    assert query(f"SELECT count(*) FROM {first['table']}") == [(1,)]


def test_run_again_with_other_arguments_it_starts_over(upload, query):
    """A dead letter replayed with edited arguments is another import."""
    file = upload(b"a,b\n1,2\n")
    run("t", file=file, table="mine")
    result = run("t", file=file, table="mine", types={"a": "text"})
    assert query("SELECT a FROM imports.mine") == [("1",)]
    assert result["columns"][0]["type"] == "text"


def test_a_run_that_was_taken_over_cannot_write(upload, query, monkeypatch, small_batches):
    """Two runs overlap: the later one imports everything, once; the earlier one is stopped."""
    args = {"file": upload(b"n\n" + b"".join(b"%d\n" % n for n in range(5_000)))}
    load, results = ledger.Ledger.load, []

    def overtaken(self, *batch):
        monkeypatch.setattr(ledger.Ledger, "load", load)
        results.append(run("t", **args))
        return load(self, *batch)

    monkeypatch.setattr(ledger.Ledger, "load", overtaken)
    with pytest.raises(Superseded):
        run("t", **args)
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {results[0]['table']}") == [(5_000, 5_000)]


def test_a_connection_that_breaks_is_made_again(upload, query, monkeypatch, small_batches):
    """In the middle of a batch, and between a commit and its answer."""
    args = {"file": upload(b"n\n" + b"".join(b"%d\n" % n for n in range(5_000)))}
    load, batches = ledger.Ledger.load, iter(range(10_000))

    def breaking(self, *batch):
        if next(batches) in (1, 3):
            query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'headway%%'")
        return load(self, *batch)

    monkeypatch.setattr(ledger.Ledger, "load", breaking)
    result = run("t", **args)
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {result['table']}") == [(5_000, 5_000)]


def test_a_commit_whose_answer_was_lost_is_not_repeated(upload, query, monkeypatch, small_batches):
    """The ledger, not the connection, knows whether the rows are there."""
    data = b"n,t\n" + b"".join(b"%d,x\n" % n if n % 500 else b"%d\n" % n for n in range(5_000))
    transaction, commits = Database.run, iter(range(10_000))

    def losing(self, work):
        if next(commits) in (2, 4):
            transaction(self, work)
        return transaction(self, work)

    monkeypatch.setattr(Database, "run", losing)
    result = run("t", file=upload(data))
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {result['table']}") == [(4_990, 4_990)]
    assert (result["rows"], result["rejected"]) == (4_990, 10)


def test_rows_that_a_crash_of_the_server_took_back_are_imported_again(
    upload, query, database, monkeypatch, small_batches
):
    """Commits of batches are not waited for; the position goes back with the rows."""
    load, seen = ledger.Ledger.load, []

    def crashing(self, entry, batch, room):
        seen.append(batch.before)
        if len(seen) == 4:
            query(f"DELETE FROM imports.{entry.plan.table} RETURNING 1")
            query(
                "UPDATE imports SET byte_offset = %s, line = %s, rows = 0, rejected = 0 RETURNING 1",
                seen[0].offset,
                seen[0].line,
            )
        return load(self, entry, batch, room)

    monkeypatch.setattr(ledger.Ledger, "load", crashing)
    result = run("t", file=upload(b"n\n" + b"".join(b"%d\n" % n for n in range(5_000))))
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {result['table']}") == [(5_000, 5_000)]
    assert result["rows"] == 5_000


def test_a_database_that_stays_away_is_said_after_a_bounded_time(monkeypatch):
    """Not for ever, and with a sentence."""
    with (
        Database("postgresql://nobody:x@127.0.0.1:1/none", patience=0.3) as gone,
        pytest.raises(problems.DatabaseAway, match="away for"),
    ):
        gone.run(lambda connection: connection.execute("SELECT 1"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", problems.EmptyFile),
        (b"\n\n", problems.EmptyFile),
        (b"a,b\n", problems.HeaderOnly),
        (b'"a,b\n1,2\n', problems.BadHeader),
        (b"PK\x03\x04....", problems.NotText),
        (",".join(map(str, range(10_000))).encode() + b"\n1\n", problems.TooManyColumns),
    ],
)
def test_a_file_that_cannot_be_imported_is_a_problem_of_its_own(data, problem, upload, query):
    """One sentence, and nothing left behind."""
    with pytest.raises(problem, match=r"^[A-Z][^\n]+\.$"):
        run("t", file=upload(data))
    assert query("SELECT 1 FROM imports") == []


def test_a_file_that_vanished_is_unknown(database, storage):
    """Deleted between upload and import."""
    with pytest.raises(UnknownRef):
        run("t", file="f_" + "0" * 32)


def test_a_table_that_is_there_is_not_touched(upload, query):
    """It may be somebody's."""
    run("one", file=upload(b"a\n1\n"), table="mine")
    with pytest.raises(problems.TableExists, match="'mine'"):
        run("two", file=upload(b"a\n2\n"), table="mine")
    assert query("SELECT a FROM imports.mine") == [(1,)]


def test_two_imports_of_one_file_have_tables_of_their_own(upload):
    """The default name is the file's, and the task's."""
    ref = upload(b"a\n1\n", "My Data (2).csv")
    tables = {run(task_id, file=ref)["table"] for task_id in ("one", "two")}
    assert len(tables) == 2
    assert all(table.startswith("imports.my_data_2_") for table in tables)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(delimiter, upload, query):
    """Decimal commas and commas in text do not fool it."""
    data = (
        delimiter.join(["name", "amount"]) + "\n" + "".join(f'"a, b; c{delimiter}"{delimiter}1.5\n' for _ in range(5))
    )
    result = run("t", file=upload(data.encode()))
    assert [column["type"] for column in result["columns"]] == ["text", "numeric"]
    assert result["rows"] == 5


def test_names_that_sql_would_stumble_over_are_only_names(upload, query):
    """Quotes, percent signs, keywords, semicolons."""
    result = run("t", file=upload(b'"a""; DROP TABLE imports;--",%s,select,{}\n1,2,3,4\n'))
    assert [column["name"] for column in result["columns"]] == ['a"; DROP TABLE imports;--', "%s", "select", "{}"]
    assert query("SELECT count(*) FROM imports") == [(1,)]


KILLED = """
import os, signal, sys
from workers.importing import ledger
from workers.tasks.import_csv import import_csv
load, left = ledger.Ledger.load, [int(sys.argv[2])]
def killing(self, *batch):
    result = load(self, *batch)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
ledger.Ledger.load = killing
import_csv.push_request(id="t")
import_csv.run(file=sys.argv[1])
"""


def test_a_process_killed_in_the_middle_leaves_what_the_next_one_goes_on_with(upload, query):
    """SIGKILL, a new process, killed again, and the rows are all there once."""
    count = 600_000
    file = upload(b"n,t\n" + b"".join(b"%d,some text\n" % n for n in range(count)))
    for batches in (2, 3):
        killed = subprocess.run([sys.executable, "-c", KILLED, file, str(batches)], cwd=ROOT, check=False)
        assert killed.returncode == -signal.SIGKILL
    partial = query("SELECT rows FROM imports")[0][0]
    assert 0 < partial < count
    result = run("t", file=file)
    assert query(f"SELECT count(*), count(DISTINCT n) FROM {result['table']}") == [(count, count)]
    assert result["rows"] == count


def test_a_postgresql_that_crashes_and_comes_back_costs_no_row(tmp_path, upload, monkeypatch, small_batches):
    """SIGKILL to the server, which takes back the commits that nobody waited for."""
    server = Postgres(tmp_path / "postgres")
    server.start()
    load, batches = ledger.Ledger.load, iter(range(10_000))

    def crashing(self, *batch):
        if next(batches) == 20:
            server.kill()
            server.start()
        return load(self, *batch)

    try:
        subprocess.run(
            [sys.executable, "-m", "hub.migrate"], cwd=ROOT, env={**os.environ, "DATABASE_URL": server.url}, check=True
        )
        monkeypatch.setenv("DATABASE_URL", server.url)
        monkeypatch.setattr(ledger.Ledger, "load", crashing)
        result = run("t", file=upload(b"n\n" + b"".join(b"%d\n" % n for n in range(50_000))))
        with psycopg.connect(server.url) as connection:
            rows = connection.execute(f"SELECT count(*), count(DISTINCT n) FROM {result['table']}").fetchall()
        assert rows == [(50_000, 50_000)]
        assert result["rows"] == 50_000
    finally:
        server.kill()


def test_no_room_for_the_rejects_file_is_a_problem_of_its_own(upload, storage, query):
    """A full disk ends the import with a sentence, and nothing is left behind."""
    file = upload(b"n\n1\n" + b"x\n" * 500)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(problems.DiskFull):
            run("t", file=file, types={"n": "integer"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert query("SELECT 1 FROM imports") == []
    assert [path.name for path in storage.root.glob("f_*")] == [file]


def test_progress_never_goes_back_and_ends_at_the_exact_number_of_rows(upload, monkeypatch, small_batches):
    """Blank lines and line ends inside quotes make the total smaller as they are met."""
    said = []

    def hear(self, current=None, total=None, **_):
        said.append((current, total))

    monkeypatch.setattr(Progress, "set", hear)
    run("t", file=upload(b"n,t\n" + b"".join(b'%d,"two\nlines"\n\n' % n for n in range(2_000))))
    counted = [(current, total) for current, total in said if total is not None and current is not None]
    shares = [current / total for current, total in counted]
    assert shares == sorted(shares)
    assert counted[-1] == (2_000, 2_000)
    assert len(set(counted)) > 5
