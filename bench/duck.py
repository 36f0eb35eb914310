"""DuckDB, in a process of its own each time, as Sporlog is.

What is timed leaves out starting Python and loading the library, to DuckDB's advantage.
"""

import json
import sys
import time

from prepare import HERE


class DuckDB:
    """Asks for what is below, of a process of its own."""

    def __init__(self, place):
        self.place = place

    def ask(self, what, **request):
        """Gives the answer, and what the process took."""
        request = {key: str(value) for key, value in request.items()}
        ran = self.place.run([sys.executable, "-B", HERE / "duck.py", what, json.dumps(request)])
        return json.loads(ran.stdout), ran


def load(duckdb, csv, database):
    """A CSV file into a table in a database file, all columns as text; durable when done."""
    started = time.perf_counter()
    connection = duckdb.connect(database)
    connection.execute("CREATE TABLE r AS SELECT * FROM read_csv(?, all_varchar = true, header = true)", [csv])
    connection.execute("CHECKPOINT")
    connection.close()
    seconds = time.perf_counter() - started
    with duckdb.connect(database, read_only=True) as connection:
        rows = connection.execute("SELECT count(*) FROM r").fetchone()[0]
    return {"seconds": seconds, "rows": rows}


def export(duckdb, database, organisation, out):
    """The rows of one organisation as a CSV file; only the statement is timed."""
    with duckdb.connect(database, read_only=True) as connection:
        started = time.perf_counter()
        copied = connection.execute(
            f"""COPY (SELECT * FROM r WHERE "KalderOrganisation" = '{organisation}')
                TO '{out}' (FORMAT csv, HEADER, FORCE_QUOTE *)"""
        )
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "rows": copied.fetchone()[0]}


def people(duckdb, table, count, out):
    """Writes the numbers of `count` people picked at random from a log's table, one a line. Counts
    how many there are, and how many records are about each."""
    with duckdb.connect() as connection:
        # DuckDB's random order depends on how its threads are scheduled; a hash does not.
        connection.execute(
            """CREATE TABLE people AS
               SELECT "BorgerId" AS person, count(*) AS records FROM read_parquet(?)
               WHERE regexp_full_match("BorgerId", '[0-9]{10}') GROUP BY 1""",
            [f"{table}/**/*.parquet"],
        )
        picked = connection.execute("SELECT person FROM people ORDER BY hash(person), person LIMIT ?", [int(count)]).fetchall()
        with open(out, "w", encoding="ascii") as file:
            file.writelines(f"{person}\n" for (person,) in picked)
        people, mean, median = connection.execute("SELECT count(*), avg(records), median(records) FROM people").fetchone()
        return {"people": people, "mean": mean, "median": median}


def organisations(duckdb, table):
    """The municipalities that a log's table has rows of."""
    with duckdb.connect() as connection:
        listed = 'SELECT DISTINCT "KalderOrganisation"::VARCHAR FROM read_parquet(?) ORDER BY 1'
        return {"organisations": [row[0] for row in connection.execute(listed, [f"{table}/**/*.parquet"]).fetchall()]}


def partitions(duckdb, table, columns, out):
    """A log's table as CSV files, a folder for each municipality; only the statement is timed."""
    listed = ", ".join(f'"{column}"' for column in json.loads(columns))
    with duckdb.connect() as connection:
        started = time.perf_counter()
        copied = connection.execute(
            f"""COPY (SELECT {listed} FROM read_parquet('{table}/**/*.parquet')) TO '{out}'
                (FORMAT csv, HEADER, FORCE_QUOTE *, PARTITION_BY ("KalderOrganisation"), WRITE_PARTITION_COLUMNS)"""
        )
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "rows": copied.fetchone()[0]}


def count(duckdb, files):
    """The rows of CSV files."""
    with duckdb.connect() as connection:
        counted = "SELECT count(*) FROM read_csv(?, all_varchar = true, header = true)"
        return {"rows": connection.execute(counted, [files]).fetchone()[0]}


if __name__ == "__main__":
    import duckdb

    known = (load, export, people, organisations, partitions, count)
    what = {function.__name__: function for function in known}[sys.argv[1]]
    print(json.dumps(what(duckdb, **json.loads(sys.argv[2]))))
