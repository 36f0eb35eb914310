"""What the server answers over HTTP, against handlers of a few lines that do the same with PostgreSQL."""

import time
from contextlib import ExitStack
from functools import cached_property
from statistics import mean, median

import served_tables
import servers
from figures import Figure
from load import Load, result
from workplace import MB, read_once, say

READERS = 4
POLLERS = 32
SENDERS = 64
PAGE = 100
# Different disclosures, which are sent again and again.
DISCLOSURES = 16_384
# Connections from the baseline to PostgreSQL that are tried out, and ways to make a page.
POOLS = (8, 16, 64)
PAGES = ("agg", "rows")
# Seconds of load that do not count, before each run.
WARM_UP = 2


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

    def posting(self, path, threads):
        what = ("posts", self.disclosures, threads)
        return Load(path, SENDERS, threads, what, ("Content-Type: application/json",))

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
    "serve-head": measure_head,
    "serve-post": measure_post,
    "serve-memory": measure_memory,
}
