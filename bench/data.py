"""What is measured on: made when first asked for, and then used by all."""

import subprocess
from functools import cached_property
from itertools import islice

from workplace import GB, read_once, say, settle


def room_needed(args):
    """Bytes on the disk: for all but the larger log in PostgreSQL, and for that.

    A row takes some 750 bytes as CSV, 300 in Sporlog and in DuckDB, 1,000 in PostgreSQL; nothing is
    deleted before the end. The write-ahead log is PostgreSQL's `max_wal_size`, if so much is written.
    """
    wal = min(8 * GB, args.runs * args.rows * 1_000 + args.large * 1_000)
    memory = 0.7 * GB if args.quick else 7 * GB
    small = args.rows * (750 + args.runs * (300 + 300 + 1_100))
    # Audit records are larger: as JSON, in Sporlog, and in PostgreSQL twice; and what is posted.
    served = args.rows * (1_850 + 450 + 2 * 2_000) + (1 if args.quick else 4) * GB
    return small + memory + wal + served + args.rows * 750 + args.large * 330 + 2 * GB, args.large * 1_100


def rows_of(lines):
    """CSV's rows: a line break within quotes does not end one."""
    row = b""
    for line in lines:
        row = row + line if row else line
        if row.count(b'"') % 2 == 0:
            yield row
            row = b""


class Data:
    """The smaller and the larger log, as CSV, in Sporlog, in DuckDB and in PostgreSQL.

    What a measurement has made anyway (the stores that the imports were timed with) it puts here,
    in place of what would be made.
    """

    def __init__(self, args, place, program, duckdb, postgres, large_table):
        self.args = args
        self.place = place
        self.program = program
        self.duckdb = duckdb
        # Gives the running cluster, which it starts when first called.
        self.postgres = postgres
        # Whether PostgreSQL is to have the larger log.
        self.large_table = large_table

    @cached_property
    def csv(self):
        say(f"making {self.args.rows:,} rows of CSV")
        csv = self.place / "small.csv"
        self.program.sample(self.place, self.args.rows, csv)
        read_once(csv)
        return csv

    @cached_property
    def store(self):
        """A store with the smaller log, and the receipt of its import."""
        store = self.place / "store"
        _, receipt = self.program.import_revision(self.place, store, self.csv, self.args.rows)
        return store, receipt

    @cached_property
    def database(self):
        database = self.place / "small.duckdb"
        self.duckdb.ask("load", csv=self.csv, database=database)
        return database

    @cached_property
    def table(self):
        self.postgres().load("small", self.csv)
        return "small"

    @cached_property
    def large(self):
        """The store with the larger log, and PostgreSQL's table, if it is to have one.

        One sample, so that the number of people fits the number of records, over as many days as
        it is cut into files, and these are taken in one after the other."""
        args, store = self.args, self.place / "large-store"
        parts = args.large // args.rows
        table = "large" if self.large_table else None
        say(f"making {args.large:,} rows, in {parts} files" + (", for PostgreSQL too" if table else ""))
        argv = [self.program.path, *self.program.sample_args(args.large, days=parts)]
        with subprocess.Popen(argv, cwd=self.place.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as sample:
            header, rows = sample.stdout.readline(), rows_of(sample.stdout)
            for part in range(parts):
                # One file, written anew: together they would need much room.
                csv = self.place / "part.csv"
                with csv.open("wb") as file:
                    file.write(header)
                    file.writelines(islice(rows, args.rows))
                self.program.import_revision(self.place, store, csv, args.rows)
                if table:
                    if part == 0:
                        self.postgres().create(table, csv)
                    self.postgres().copy(table, csv)
                say(f"  {part + 1} of {parts}")
        if table:
            say("  indexes")
            self.postgres().index(table)
            self.postgres().tidy(table)
        settle()
        return store, table

    @cached_property
    def people(self):
        """A file with the numbers of some people of the larger log, and how many there are."""
        out = self.place / "people"
        table = self.large[0] / "logs/revision/table"
        told, _ = self.duckdb.ask("people", table=table, count=100 + 300, out=out)
        return out, told
