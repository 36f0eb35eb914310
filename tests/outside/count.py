"""Reads a log's table with programs that know nothing of Sporlog: how many records, which ids.

    count.py TABLE

prints a line for each program: its name, the number of records, the first id and the last.
"""

import sys

import duckdb
import polars
from deltalake import DeltaTable


def by_polars(table: str) -> tuple:
    """Polars reads the folder as a Delta table."""
    ids = polars.scan_delta(table).select(
        polars.len().alias("count"),
        polars.col("id").min().alias("first"),
        polars.col("id").max().alias("last"),
        # Every column is decoded, not just the one that is counted.
        polars.struct(polars.all()).hash().max().alias("all"),
    )
    return ids.collect().row(0)[:3]


def by_duckdb(table: str) -> tuple:
    """DuckDB reads the Parquet files that the Delta log names."""
    files = DeltaTable(table).file_uris()
    ids = duckdb.sql(
        "SELECT count(*), min(id), max(id), max(hash(COLUMNS(*))) FROM read_parquet($files)",
        params={"files": files},
    )
    return ids.fetchall()[0][:3]


if __name__ == "__main__":
    for name, count in [("polars", by_polars), ("duckdb", by_duckdb)]:
        print(name, *count(sys.argv[1]))
