"""The measurements, each with its peer and its goal."""

import random
from functools import cached_property
from statistics import median

import server
from data import Data, room_needed
from duck import DuckDB
from figures import Figure
from postgres import SETTINGS, Postgres
from prepare import CannotBegin
from workplace import GB, MB, read_once, say, settle, size_of, take_turns

# The municipality whose day is exported.
ORGANISATION = "64942212"
PAGE = 100
NEWEST = 50
TASKS = 64
# Nearly as many as the journal takes before all is put into the table.
IN_JOURNAL = 64_000


class Bench:
    """What the measurements share."""

    def __init__(self, args, place, program, baseline, stack):
        self.args = args
        self.place = place
        self.program = program
        # The server that Sporlog's is measured against; None if none is to be measured.
        self.baseline = baseline
        self.stack = stack
        self.duckdb = DuckDB(place)
        self.large_left_out = self.leave_out_large()
        self.data = Data(args, place, program, self.duckdb, lambda: self.postgres, not self.large_left_out)

    def leave_out_large(self):
        """Why PostgreSQL is not to have the larger log, if it is not."""
        if self.args.skip_large_postgres:
            return "the larger log was not loaded into PostgreSQL (--skip-large-postgres)"
        needed, large = room_needed(self.args)
        free = self.place.free()
        if free < needed:
            raise CannotBegin(f"{self.place.path} has {free / GB:.0f} GB free, and {needed / GB:.0f} GB are needed: use --dir")
        if free < needed + large:
            short = f"{free / GB:.0f} GB are free, {(needed + large) / GB:.0f} GB are needed"
            return f"the larger log was not loaded into PostgreSQL, for want of room: {short}"
        return None

    @cached_property
    def postgres(self):
        say("starting PostgreSQL")
        return self.stack.enter_context(Postgres(self.place))

    @cached_property
    def served(self):
        return server.Served(self)

    def versions(self):
        import duckdb

        settings = ", ".join(f"{k}={v}" for k, v in SETTINGS.items() if k != "listen_addresses")
        return {"duckdb": duckdb.__version__, "postgresql": self.postgres.version, "postgresql_settings": settings}

    def doubts(self):
        """Why the figures may not be what they should be."""
        if self.place.file_system().startswith("tmpfs"):
            yield "The folder is in memory (tmpfs), where durability costs nothing: choose a --dir on a disk."

    def turns(self, **contenders):
        runs = take_turns(self.args.runs, contenders)
        for name, results in runs.items():
            say(f"  {name}: {', '.join(f'{r:.4g}' for r in results)}")
        return runs, {name: median(results) for name, results in runs.items()}


def measure_import(bench):
    """A CSV file taken in: until it is durable and the process, or the statement, is done."""
    data, args = bench.data, bench.args
    csv = data.csv

    def sporlog(run):
        ran, receipt = bench.program.import_revision(bench.place, bench.place / f"import-{run}", csv, args.rows)
        data.store = bench.place / f"import-{run}", receipt
        return ran.seconds

    def duckdb(run):
        database = bench.place / f"import-{run}.duckdb"
        told, _ = bench.duckdb.ask("load", csv=csv, database=database)
        same_rows("DuckDB", told["rows"], args.rows)
        data.database = database
        return told["seconds"]

    def postgres(run):
        seconds = bench.postgres.load(f"import_{run}", csv)
        same_rows("PostgreSQL", bench.postgres.rows(f"import_{run}"), args.rows)
        data.table = f"import_{run}"
        return seconds

    runs, took = bench.turns(sporlog=sporlog, duckdb=duckdb, postgres=postgres)
    what = f"import of {args.rows:,} rows of CSV"
    for peer, name, goal in (("duckdb", "DuckDB", 2.0), ("postgres", "PostgreSQL", 5.0)):
        yield Figure(
            f"import-{peer}", what, "s", took["sporlog"], name, took[peer], took[peer] / took["sporlog"],
            "as fast", goal, of_ratio=True, at_least=True, runs={k: runs[k] for k in ("sporlog", peer)},
        )  # fmt: skip


def measure_memory(bench):
    """The most memory resident at once while 2 GB are taken in: the largest of the runs."""
    args, size = bench.args, 200 * MB if bench.args.quick else 2 << 30
    per_row = bench.data.csv.stat().st_size / args.rows
    # The specification's limit is 2 GiB; rows differ a little from sample to sample.
    rows = int(size * 0.998 / per_row)
    csv = bench.place / "memory.csv"
    bench.program.sample(bench.place, rows, csv)
    if csv.stat().st_size >= size:
        raise RuntimeError(f"the sample has {csv.stat().st_size} bytes, and should stay below {size}")
    read_once(csv)

    def sporlog(run):
        ran, _ = bench.program.import_revision(bench.place, bench.place / f"memory-{run}", csv, rows)
        return ran.peak_bytes / MB

    def duckdb(run):
        _, ran = bench.duckdb.ask("load", csv=csv, database=bench.place / f"memory-{run}.duckdb")
        return ran.peak_bytes / MB

    runs, _ = bench.turns(sporlog=sporlog, duckdb=duckdb)
    ours, theirs = max(runs["sporlog"]), max(runs["duckdb"])
    what = f"peak memory, importing {csv.stat().st_size / GB:.2f} GB"
    yield Figure("memory", what, "MB", ours, "DuckDB", theirs, ours / theirs, "the memory", 400, runs=runs)


def measure_size(bench):
    """The apparent size of everything that belongs to the log."""
    log = size_of(bench.data.store[0] / "logs/revision") / MB
    csv = bench.data.csv.stat().st_size / MB
    table = bench.postgres.size(bench.data.table) / MB
    what = f"size of the log, {bench.args.rows:,} rows"
    yield Figure("size-csv", what, "MB", log, "CSV", csv, log / csv, "the size", 0.36, of_ratio=True)
    yield Figure("size-postgres", what, "MB", log, "PostgreSQL", table, log / table, "the size", 0.30, of_ratio=True)


def measure_page(bench):
    """Pages of records by id, at random places, in the smaller and in the larger log."""
    args, iterations = bench.args, 500
    contenders, p90s = {}, {"small": [], "large": [], "on": []}

    def sporlog(size, store, how="page"):
        def page(_):
            told = bench.program.measure(bench.place, how, store, "revision", PAGE, iterations)
            p90s[size].append(told["milliseconds"]["p90"])
            return told["milliseconds"]["median"]

        return page

    def postgres(rows, table):
        def page(run):
            afters = random.Random(run).choices(range(rows - PAGE + 1), k=100 + iterations)
            return bench.postgres.page_ms(table, PAGE, afters)

        return page

    sizes = {"small": (args.rows, bench.data.store[0], bench.data.table), "large": (args.large, *bench.data.large)}
    for size, (rows, store, table) in sizes.items():
        warm(bench, store)
        contenders[f"sporlog_{size}"] = sporlog(size, store)
        if table:
            contenders[f"postgres_{size}"] = postgres(rows, table)
    contenders["sporlog_on"] = sporlog("on", bench.data.large[0], "read-on")
    # All in the same turns, so that a moment's disturbance does not pass for growth.
    all_runs, all_took = bench.turns(**contenders)
    for size, (rows, _, table) in sizes.items():
        took = {who: all_took.get(f"{who}_{size}") for who in ("sporlog", "postgres")}
        runs = {who: all_runs.get(f"{who}_{size}", []) for who in took}
        name, value, ratio = against_postgres(took)
        note = join(f"at the 90th percentile {median(p90s[size]):.2f} ms", None if table else bench.large_left_out)
        what = f"a page of {PAGE} records by id, of {rows:,}"
        yield Figure(f"page-{size}", what, "ms", took["sporlog"], name, value, ratio, "as fast", 2.0, runs=runs, note=note)
    name, value, ratio = against_postgres({"sporlog": all_took["sporlog_on"], "postgres": all_took.get("postgres_large")})
    runs = {"sporlog": all_runs["sporlog_on"], "postgres": all_runs.get("postgres_large", [])}
    what = f"a page of {PAGE} after the one before, of {args.large:,}"
    note = f"at the 90th percentile {median(p90s['on']):.2f} ms; PostgreSQL's are at random"
    yield Figure("page-on", what, "ms", all_took["sporlog_on"], name, value, ratio, "as fast", 1.0, runs=runs, note=note)
    growth = {
        who: all_took[f"{who}_large"] / all_took[f"{who}_small"]
        for who in ("sporlog", "postgres")
        if f"{who}_large" in all_took
    }
    yield Figure(
        "page-growth", f"the same, how much slower at {args.large // args.rows} times the size", "×", growth["sporlog"],
        "PostgreSQL" if "postgres" in growth else None, growth.get("postgres"), goal=1.5,
    )  # fmt: skip


def measure_find(bench):
    """One person's newest records in the larger log; people picked at random."""
    store, table = bench.data.large
    people, told = bench.data.people
    warm(bench, store)
    details = {}

    def sporlog(_):
        details.update(bench.program.measure(bench.place, "find", store, "revision", NEWEST, people))
        return details["milliseconds"]["median"]

    def postgres(_):
        return bench.postgres.find_ms(table, NEWEST, people.read_text().split())

    runs, took = bench.turns(**({"sporlog": sporlog, "postgres": postgres} if table else {"sporlog": sporlog}))
    name, value, ratio = against_postgres(took)
    note = (
        f"{told['people']:,} people with {told['mean']:.0f} records each on average ({told['median']:.0f} at the median); "
        f"{details['median_records']} records found at the median; "
        f"at the 90th percentile {details['milliseconds']['p90']:.2f} ms; the aim is 5 ms"
    )
    what = f"one person's newest {NEWEST}, of {bench.args.large:,}"
    note = join(note, None if table else bench.large_left_out)
    yield Figure("find", what, "ms", took["sporlog"], name, value, ratio, "as fast", 20, runs=runs, note=note)


def measure_export(bench):
    """One municipality's day as CSV: the whole process, against DuckDB's statement alone."""
    store, receipt = bench.data.store
    database = bench.data.database
    day, counts = receipt["receivedAt"][:10], {}

    def sporlog(run):
        out = bench.place / f"export-{run}"
        ran, told = bench.program.export(bench.place, store, ORGANISATION, day, out)
        counts["sporlog"] = told["rows"]
        return size_of(out) / MB / ran.seconds

    def duckdb(run):
        out = bench.place / f"export-{run}.csv"
        told, _ = bench.duckdb.ask("export", database=database, organisation=ORGANISATION, out=out)
        counts["duckdb"] = told["rows"]
        return out.stat().st_size / MB / told["seconds"]

    runs, speed = bench.turns(sporlog=sporlog, duckdb=duckdb)
    same_rows("DuckDB", counts["duckdb"], counts["sporlog"])
    what = f"export of one municipality's day ({counts['sporlog']:,} rows)"
    yield Figure(
        "export", what, "MB/s", speed["sporlog"], "DuckDB", speed["duckdb"], speed["sporlog"] / speed["duckdb"],
        "as fast", 1.0, of_ratio=True, at_least=True, runs=runs,
    )  # fmt: skip


def measure_verify(bench):
    """The whole log, recomputed from the records up; the whole process."""
    store, _ = bench.data.store
    rows = bench.args.rows

    def sporlog(_):
        return rows / bench.program.verify(bench.place, store, "revision", rows).seconds

    runs, speed = bench.turns(sporlog=sporlog)
    yield Figure("verify", f"verify, {rows:,} entries", "/s", speed["sporlog"], goal=500_000, at_least=True, runs=runs)


def measure_append(bench):
    """Single records from many tasks at once, each of which waits until its own is durable."""
    seconds = 3 if bench.args.quick else 10
    records = bench.place / "records.ndjson"
    bench.place.run([bench.program.path, "sample", "auditlog", "--records", "4096", "--faulty", "0", "--out", records])
    bench.postgres.keep_records(records)
    details = {}

    def sporlog(run):
        store = bench.place / f"append-{run}"
        details.update(bench.program.measure(bench.place, "append", store, records, TASKS, seconds))
        # What was acknowledged has to be there, and in order.
        bench.program.verify(bench.place, store, "auditlog", details["head"])
        return details["per_second"]

    def postgres(_):
        return bench.postgres.inserts_per_second(TASKS, seconds)

    runs, speed = bench.turns(sporlog=sporlog, postgres=postgres)
    took = details["milliseconds"]
    note = (
        f"an append took {took['median']:.2f} ms at the median, {took['p99']:.2f} ms at the 99th percentile; "
        f"within one process, where PostgreSQL serves {TASKS} connections"
    )
    yield Figure(
        "append", f"single-record appends by {TASKS} at once, durable", "/s", speed["sporlog"], "PostgreSQL",
        speed["postgres"], speed["sporlog"] / speed["postgres"], "as fast", 20_000, at_least=True, runs=runs, note=note,
    )  # fmt: skip


def measure_recovery(bench):
    """Opening a log whose writer was killed while its newest records were in the journal."""
    records = bench.place / "killed.ndjson"
    bench.place.run([bench.program.path, "sample", "auditlog", "--records", "4096", "--faulty", "0", "--out", records])
    runs = {"reading": [], "appending": []}
    for run in range(bench.args.runs):
        store = bench.place / f"killed-{run}"
        bench.place.run([bench.program.measure_path, "kill", store, records, str(IN_JOURNAL)])
        settle()
        told = bench.program.measure(bench.place, "recover", store)
        if told["head"] != IN_JOURNAL:
            raise RuntimeError(f"{IN_JOURNAL} records were acknowledged, and {told['head']} are there")
        for how, seconds in runs.items():
            seconds.append(told[f"{how}_seconds"])
    what = f"opening a log with {IN_JOURNAL:,} records in the journal after a kill"
    for how, seconds in runs.items():
        yield Figure(f"recovery-{how}", f"{what}, for {how}", "s", median(seconds), goal=0.5, runs={"sporlog": seconds})


def warm(bench, store):
    """Has all that is going to be asked for in the page cache."""
    read_once(store)
    read_once(bench.postgres.data)


def against_postgres(took):
    theirs = took.get("postgres")
    return ("PostgreSQL", theirs, theirs / took["sporlog"]) if theirs else (None, None, None)


def join(*notes):
    return "; ".join(note for note in notes if note)


def same_rows(whose, rows, ours):
    if rows != ours:
        raise RuntimeError(f"{whose} has {rows} rows, Sporlog {ours}")


ALL = {
    "import": measure_import,
    "memory": measure_memory,
    "size": measure_size,
    "page": measure_page,
    "find": measure_find,
    "export": measure_export,
    "verify": measure_verify,
    "append": measure_append,
    "recovery": measure_recovery,
    **server.ALL,
}
