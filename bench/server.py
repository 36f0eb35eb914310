"""What the server answers over HTTP, against handlers of a few lines that do the same with PostgreSQL."""

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from statistics import mean, median

import served_tables
import servers
import tessera
from figures import Figure
from load import Load, result
from workplace import MB, read_once, say, size_of

READERS = 4
POLLERS = 32
SENDERS = 64
# Tessera waits for its batch, so many senders suit it better.
MANY_SENDERS = 512
PAGE = 100
# Different disclosures, which are sent again and again.
DISCLOSURES = 16_384
# Connections from the baseline to PostgreSQL that are tried out, and ways to make a page.
POOLS = (8, 16, 64)
PAGES = ("agg", "rows")
# Seconds of load that do not count, before each run.
WARM_UP = 2
# How long is posted, and how long is waited, before the files are counted.
POSTED, RESTED = 60, 60


class Served:
    """A store and a table with the same audit records, and a server before each."""

    def __init__(self, bench):
        self.bench, self.place, self.rows = bench, bench.place, bench.args.rows
        self.store = self.place / "served"
        self.seconds = 3 if bench.args.quick else 10

    @cached_property
    def records(self):
        """Audit records, taken into the store."""
        say(f"making {self.rows:,} audit records")
        records = self.sample("auditlog", self.rows)
        self.bench.program.import_file(self.place, self.store, "auditlog", records, self.rows)
        read_once(self.store)
        return records

    @cached_property
    def sporlog(self):
        self.records  # are what it serves
        return self.bench.stack.enter_context(servers.sporlog(self.place, self.bench.program, self.store))

    @cached_property
    def postgres(self):
        """With the same records, and with the same in each as Sporlog gives."""
        names = list(self.sporlog.get("/api/auditlog/read?offset=0")[0])
        postgres = self.bench.postgres
        say("  for PostgreSQL, too")
        served_tables.audit(postgres, self.records, names)
        served_tables.disclosure(postgres)
        served_tables.access(postgres)
        read_once(postgres.data)
        return postgres

    @cached_property
    def disclosures(self):
        return self.sample("disclosure", DISCLOSURES)

    @cached_property
    def baseline(self):
        """With as many connections, and with the way of making a page, that it is quickest with."""
        postgres, pools = self.postgres, {}
        for pool in POOLS:
            with self.baseline_with(pool, PAGES[0]) as server:
                pools[pool] = self.speed(server, self.posting("/post", 2))
            postgres.tidy("served_disclosure")
        self.pool = max(pools, key=pools.get)
        postgres.execute("TRUNCATE served_disclosure RESTART IDENTITY")
        pages = {}
        for page in PAGES:
            with self.baseline_with(self.pool, page) as server:
                pages[page] = self.speed(server, self.paging("/page"))
        page = max(pages, key=pages.get)
        for tried in (pools, pages):
            say("  tried with PostgreSQL: " + ", ".join(f"{way}: {speed:,.0f}/s" for way, speed in tried.items()))
        return self.bench.stack.enter_context(self.baseline_with(self.pool, page))

    @cached_property
    def tessera(self):
        return self.bench.stack.enter_context(tessera.server(self.place))

    def speed(self, server, load):
        """Requests per second, after a while that does not count."""
        return self.measured(server, load)[-1]["per_second"]

    def measured(self, server, load):
        """What wrk says of the warming up, and of the run."""
        return [load.put_on(server, seconds) for seconds in (WARM_UP, self.seconds)]

    def baseline_with(self, pool, page):
        return servers.baseline(self.place, self.bench.baseline, self.postgres, pool, page, self.sporlog.headers)

    def sample(self, kind, records):
        out = self.place / f"served-{kind}.ndjson"
        args = ["sample", kind, "--records", str(records), "--faulty", "0", "--out", out]
        self.place.run([self.bench.program.path, *args])
        return out

    def paging(self, path):
        return Load(path, READERS, READERS, ("pages", self.rows, READERS))

    def posting(self, path, threads, senders=SENDERS):
        what = ("posts", self.disclosures, threads)
        return Load(path, senders, threads, what, ("Content-Type: application/json",))

    def tidy(self):
        """What would otherwise be done in the background while the other is measured."""
        self.sporlog.rest()
        self.postgres.tidy("served_disclosure")

    def check_pages(self):
        """Both answer with the same."""
        for offset in (0, self.rows // 2, self.rows - PAGE):
            ours = self.sporlog.get(f"/api/auditlog/read?offset={offset}")
            theirs = self.baseline.get(f"/page?offset={offset}")
            if len(ours) != PAGE or len(theirs) != PAGE:
                raise RuntimeError(f"after {offset}, there are {len(ours)} and {len(theirs)} records")
            for one, other in zip(ours, theirs):
                # Keys in the same order, too.
                if list(one.items()) != list(other.items()):
                    differ = [key for key in one if key not in other or one[key] != other[key]]
                    raise RuntimeError(f"the record {one['id']} differs: {differ}, {list(one)} {list(other)}")

    def disclosed(self):
        return self.sporlog.get("/api/logs/disclosure/head")["head"]

    def check_posts(self, before, runs):
        """All that was acknowledged in these runs of wrk is there, and the log in order. What was under
        way at the end of a run may be there as well."""
        acknowledged, head = sum(told["answers"] for told in runs), self.disclosed()
        if not before + acknowledged <= head <= before + acknowledged + SENDERS * len(runs):
            raise RuntimeError(f"{acknowledged} disclosures were acknowledged; the head went from {before} to {head}")
        self.bench.program.verify(self.place, self.store, "disclosure", head)

    def compare(self, name, what, goal, ours, theirs, peer="PostgreSQL"):
        """Requests per second, in turns: the figure, and what wrk says of Sporlog's runs."""
        loads = {"sporlog": (self.sporlog, ours), "baseline": (self.baseline, theirs)}
        told = {who: [] for who in loads}

        def contender(who):
            def run(_):
                told[who] += self.measured(*loads[who])
                self.tidy()
                return told[who][-1]["per_second"]

            return run

        runs, speed = self.bench.turns(**{who: contender(who) for who in loads})
        figure = Figure(
            name, what, "/s", speed["sporlog"], peer, speed["baseline"], speed["sporlog"] / speed["baseline"],
            "as many", goal, of_ratio=True, at_least=True, runs={**runs, "wrk": told},
        )  # fmt: skip
        # Without the warming up.
        figure.note = "; ".join(f"{who}: {spread(told[who][1::2])}" for who in loads)
        return figure, told["sporlog"]


def spread(runs):
    """How long answers took, and how much of the server's processor time, each at the median of the runs."""
    half, most = (median(told["ms"][key] for told in runs) for key in ("median", "p99"))
    cpu = median(told["cpu_us"] for told in runs)
    return f"{half:.2f} ms at the median, {most:.2f} ms at the 99th percentile, {cpu:,.0f} µs of the server's processor time"


def measure_page(bench):
    """Pages of audit records, by clients of which each reads on from where it is."""
    served = bench.served
    served.check_pages()
    what = f"pages of {PAGE} audit records over HTTP, {READERS} clients, of {served.rows:,}"
    ours, theirs = served.paging("/api/auditlog/read"), served.paging("/page")
    figure, _ = served.compare("serve-page", what, 1.0, ours, theirs)
    figure.note += " (without PostgreSQL's own)"
    yield figure


def measure_page_recorded(bench):
    """The same pages, against PostgreSQL that records each access durably, as Sporlog does."""
    served = bench.served
    what = f"the same, PostgreSQL with a durable record of each access, {READERS} clients"
    ours, theirs = served.paging("/api/auditlog/read"), served.paging("/page-recorded")
    figure, _ = served.compare("serve-page-recorded", what, 1.5, ours, theirs)
    figure.note += " (without PostgreSQL's own)"
    yield figure


def measure_head(bench):
    """The newest id, against a constant: what a request costs that costs nothing."""
    what = f"the newest id over HTTP, {POLLERS} clients"
    ours, theirs = (Load(path, POLLERS, 2) for path in ("/api/auditlog/head", "/head-constant"))
    figure, _ = bench.served.compare("serve-head", what, 0.8, ours, theirs, peer="a constant")
    yield figure


def measure_post(bench):
    """Disclosures one by one, each answered when it is durable."""
    served = bench.served
    what = f"disclosures posted one by one over HTTP by {SENDERS}, durable"
    ours, theirs = served.posting("/sporingslogg/api/post", 2), served.posting("/post", 2)
    before = served.disclosed()
    figure, runs = served.compare("serve-post", what, 2.0, ours, theirs)
    served.check_posts(before, runs)
    size = served.disclosures.stat().st_size / DISCLOSURES
    figure.note += f" (without PostgreSQL's own); {size:,.0f} bytes each; {served.pool} connections to PostgreSQL"
    yield figure


def measure_post_many(bench):
    """The same by many clients, against a transparency log that stores the same bytes."""
    served, store = bench.served, bench.place / "posted-by-many"
    what = f"disclosures posted one by one over HTTP by {MANY_SENDERS}, durable"
    bench.program.command(bench.place, store, "logs", "create", "disclosure")
    # All clients have one key, and so are one client, which may have a quarter of all requests under way.
    settings = f"[server.limits]\nrequests = {8 * MANY_SENDERS}\n"
    ours = bench.stack.enter_context(servers.sporlog(bench.place, bench.program, store, settings))
    loads = {
        ours: served.posting("/sporingslogg/api/post", 2, MANY_SENDERS),
        # Tessera refuses some when its queue is full.
        served.tessera: replace(served.posting("/add", 2, MANY_SENDERS), refused=0.02),
    }
    told = {server: [] for server in loads}

    def contender(server):
        def run(_):
            told[server] += served.measured(server, loads[server])
            ours.rest()
            return told[server][-1]["per_second"]

        return run

    runs, speed = bench.turns(sporlog=contender(ours), tessera=contender(served.tessera))
    ratio = speed["sporlog"] / speed["tessera"]
    note = "; ".join(f"{server.name}: {spread(told[server][1::2])}" for server in loads)
    yield Figure(
        "serve-post-many", what, "/s", speed["sporlog"], "Tessera", speed["tessera"], ratio, "as many", 1.2,
        of_ratio=True, at_least=True, runs=runs, note=note,
    )  # fmt: skip


def measure_files(bench):
    """What a while of single posts leaves behind, and what is left of that after `sporlog compact`."""
    served, program = bench.served, bench.program
    store = bench.place / "posted"
    log = store / "logs/disclosure"
    program.command(bench.place, store, "logs", "create", "disclosure")
    with servers.sporlog(bench.place, program, store) as server:
        told = served.posting("/sporingslogg/api/post", 2).put_on(server, 6 if bench.args.quick else POSTED)
        time.sleep(6 if bench.args.quick else RESTED)
        files, size = count_files(log / "table") + count_files(log / "journal"), size_of(log)
        tiles = count_files(log / "tlog")
    # Merging leaves the merged files for an hour, for whoever is reading them.
    program.command(bench.place, store, "compact", "disclosure", "--grace", "0")
    compacted = size_of(log)
    what = f"files of the table and the journal after {POSTED} s of posts and {RESTED} s of rest"
    note = f"{told['answers']:,} disclosures; {tiles:,} files of the transparency log beside them"
    yield Figure("serve-files", what, "files", files, goal=100, note=note)
    what = "the log's size then, against its size after `sporlog compact`"
    yield Figure(
        "serve-files-size", what, "MB", size / MB, "compacted", compacted / MB, size / compacted, "the size", 1.3, of_ratio=True
    )  # fmt: skip


def count_files(folder):
    return sum(1 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


def measure_memory(bench):
    """Whether the server's memory grows while all of this goes on at once."""
    served, seconds = bench.served, 12 if bench.args.quick else 60
    server = served.sporlog
    server.stop()
    server.start()
    before, samples = served.disclosed(), []
    idle = server.memory()[0]
    posting = served.posting("/sporingslogg/api/post", 1)
    loads = (served.paging("/api/auditlog/read"), Load("/api/auditlog/head", READERS, 1), posting)
    with ExitStack() as stack:
        processes = [stack.enter_context(load.begin(server, seconds)) for load in loads]
        started = time.monotonic()
        while (at := time.monotonic() - started) < seconds:
            samples.append((at / seconds, server.memory()[0] / MB))
            time.sleep(0.25)
        pages, heads, posts = map(result, processes)
    peak = server.memory()[1] / MB
    server.rest()
    served.check_posts(before, [posts])
    steps = [mean(mb for at, mb in samples if step <= at * 6 < step + 1) for step in range(6)]
    second, last = mean(steps[2:4]), mean(steps[4:])
    note = (
        f"from {idle / MB:.0f} MB at the start, in steps of {seconds // 6} s: {', '.join(f'{mb:.0f}' for mb in steps)}; "
        f"the most {peak:.0f} MB; {server.memory()[0] / MB:.0f} MB at rest afterwards; "
        f"per second, {pages['per_second']:,.0f} pages, {heads['per_second']:,.0f} heads and {posts['per_second']:,.0f} "
        f"disclosures by {READERS}, {READERS} and {SENDERS} clients"
    )
    yield Figure(
        "serve-memory", f"the server's memory, all of this at once for {seconds} s: its last third", "MB", last,
        "its second third", second, last / second, "the memory", 1.1, of_ratio=True, note=note,
        runs={"seconds_and_mb": [(round(at * seconds, 2), round(mb, 1)) for at, mb in samples]},
    )  # fmt: skip


ALL = {
    "serve-page": measure_page,
    "serve-page-recorded": measure_page_recorded,
    "serve-head": measure_head,
    "serve-post": measure_post,
    "serve-post-many": measure_post_many,
    "serve-files": measure_files,
    "serve-memory": measure_memory,
}
