"""PostgreSQL 15: a cluster of its own in the workplace, reached over a unix socket only."""

import json
import os
import re
import subprocess
import time
from statistics import median

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8

from prepare import POSTGRES_BIN, CannotBegin

# What differs from the defaults. Durable as Sporlog is: the last two are defaults, and said anyway.
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "synchronous_commit": "on",
    "fsync": "on",
    "listen_addresses": "''",
}
WARM_UP = 100


class Postgres:
    """A running cluster."""

    def __init__(self, place):
        self.place = place
        self.home = place / "postgres"
        self.home.mkdir()
        # initdb refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            subprocess.run(["chown", "postgres:postgres", self.home], check=True)
            if subprocess.run(["test", "-w", self.home], check=False, **self.user).returncode:
                raise CannotBegin(f"the user postgres cannot reach {self.home}: choose another --dir")
        self.data = self.home / "data"
        # Compares texts byte by byte, which is the quickest.
        self.call("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in SETTINGS.items())
            conf.write(f"unix_socket_directories = '{self.home}'\n")

    def __enter__(self):
        self.call("pg_ctl", "-D", self.data, "-w", "-l", self.home / "log", "start")
        try:
            self.connection = psycopg.connect(host=str(self.home), user="postgres", dbname="postgres", autocommit=True)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.connection.close()
        self.stop()

    def stop(self):
        """At once: nobody needs the data any more."""
        self.call("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def call(self, program, *args):
        argv = [POSTGRES_BIN / program, *map(str, args)]
        # Not into a pipe: the server would hold on to it.
        with (self.place / f"{program}.log").open("ab+") as log:
            done = subprocess.run(argv, cwd=self.home, stdout=log, stderr=log, check=False, **self.user)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(self.place / f'{program}.log').read_text()[-2000:]}")

    def execute(self, statement, *args):
        return self.connection.execute(statement, args or None)

    @property
    def version(self):
        return self.execute("SHOW server_version").fetchone()[0]

    def create(self, table, csv):
        """A table with the file's columns as text, and `id`; without indexes as yet."""
        with csv.open(encoding="utf-8") as file:
            names = [name.strip('"') for name in file.readline().rstrip("\n").split(",")]
        self.columns = sql.SQL(", ").join(map(sql.Identifier, names))
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in names)
        self.execute(sql.SQL("CREATE TABLE {} (id bigserial, {})").format(sql.Identifier(table), columns))

    def copy(self, table, csv):
        statement = sql.SQL("COPY {} ({}) FROM {} WITH (FORMAT csv, HEADER)")
        self.execute(statement.format(sql.Identifier(table), self.columns, sql.Literal(str(csv))))

    def index(self, table):
        """Made after loading, which is quicker than keeping them up meanwhile."""
        self.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(sql.Identifier(table)))
        for column in ("BorgerId", "BrugerId"):
            self.execute(sql.SQL("CREATE INDEX ON {} ({})").format(sql.Identifier(table), sql.Identifier(column)))

    def load(self, table, csv):
        """Gives the seconds it took until everything was durable."""
        self.create(table, csv)
        started = time.perf_counter()
        self.copy(table, csv)
        self.index(table)
        seconds = time.perf_counter() - started
        self.tidy(table)
        return seconds

    def tidy(self, table):
        """What PostgreSQL would otherwise do in the background while others are measured."""
        self.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
        self.execute("CHECKPOINT")

    def rows(self, table):
        return self.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()[0]

    def size(self, table):
        """Of the table and its indexes."""
        return self.execute("SELECT pg_total_relation_size(%s::regclass)", table).fetchone()[0]

    def answer_ms(self, query, table, values):
        """How long the answers took at the median, as JSON texts; the first ones do not count."""
        # Not as JSON, which the client would parse.
        statement = sql.SQL("SELECT json_agg(t)::text FROM (" + query + ") t").format(sql.Identifier(table))
        times = []
        for value in values:
            value = Int8(value) if isinstance(value, int) else value
            started = time.perf_counter()
            found = self.connection.execute(statement, [value], prepare=True).fetchone()[0]
            times.append(time.perf_counter() - started)
            if found is None:
                raise RuntimeError("nothing was found")
        return median(times[WARM_UP:]) * 1e3

    def page_ms(self, table, rows, afters):
        query = f"SELECT * FROM {{}} WHERE id > %s ORDER BY id LIMIT {rows}"
        return self.answer_ms(query, table, afters)

    def find_ms(self, table, limit, people):
        query = f'SELECT * FROM {{}} WHERE "BorgerId" = %s ORDER BY id DESC LIMIT {limit}'
        return self.answer_ms(query, table, people)

    def keep_records(self, records):
        """Audit records (JSON lines) that single inserts take their rows from."""
        records = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
        names = [name for name in records[0] if name != "id"]
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in names)
        self.execute(sql.SQL("CREATE TABLE sample (n bigint PRIMARY KEY, {})").format(columns))
        names_of_all = sql.SQL(", ").join(map(sql.Identifier, names))
        with self.connection.cursor().copy(sql.SQL("COPY sample (n, {}) FROM STDIN").format(names_of_all)) as copy:
            for n, record in enumerate(records):
                copy.write_row([n, *(record[name] for name in names)])
        self.execute("ANALYZE sample")
        self.execute(sql.SQL("CREATE TABLE auditlog (id bigserial PRIMARY KEY, {})").format(columns))
        self.execute('CREATE INDEX ON auditlog (cpr); CREATE INDEX ON auditlog ("samaccountName")')
        insert = sql.SQL("INSERT INTO auditlog ({0}) SELECT {0} FROM sample WHERE n = :n;\n").format(names_of_all)
        script = self.home / "insert.sql"
        script.write_text(f"\\set n random(0, {len(records) - 1})\n{insert.as_string(self.connection)}")
        script.chmod(0o644)

    def inserts_per_second(self, clients, seconds):
        """Single inserts by so many connections, each its own transaction."""
        argv = ["pgbench", "-n", "-M", "prepared", "-c", clients, "-j", os.cpu_count() or 1, "-T", seconds]
        argv = [*argv, "-f", self.home / "insert.sql", "-h", self.home, "-U", "postgres", "postgres"]
        argv[0] = POSTGRES_BIN / argv[0]
        told = self.place.run(list(map(str, argv))).stdout
        self.execute("VACUUM (ANALYZE) auditlog")
        self.execute("CHECKPOINT")
        return float(re.search(r"tps = ([0-9.]+)", told)[1])
