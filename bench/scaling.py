#!/usr/bin/env python3
"""What a country's records need: files, requests, storage, money, and which part breaks first.

    bench/scaling.py                         prints the tables in docs/scaling.md
    bench/scaling.py --write docs/scaling.md puts them into the page, between its two marks
    bench/scaling.py --check docs/scaling.md ends with 1 if other tables stand there
    bench/scaling.py --country FILE          another country than bench/country.toml
    bench/scaling.py --results FILE...       results of bench/run, kafka.py or sftp.py (--json), besides bench/measured/

Costs are those measured (of two figures of a name, the newer counts); numbers of commits and files come from a day that
is simulated by the ledger's own rules (scaling_day.py); the rest is arithmetic, one line for each number.
"""

import argparse
import json
import math
import sys
import tomllib
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

from scaling_day import HOUR, Rules, deliveries, messages

HERE = Path(__file__).resolve().parent
SCALES = (1, 10, 100)
DAYS, MONTH = 365, 365 / 12
MB, GB, TB, GIB = 1e6, 1e9, 1e12, 2**30
# The largest file that the specification of revision logs allows.
DELIVERY = 2 << 30
# A look-up opens a key index with HEAD and a read of the footer, and reads a page of each of two columns at once.
INDEX_REQUESTS, INDEX_ROUNDS = 4, 3
# The identities in an index are three columns.
COMPARE_REQUESTS = 5
# What a backup holds of each object in memory: its name in three collections.
NAME_BYTES = 250
ENTRY, HASH = 34, 32
GROUP_ROWS = 64 << 10
BEGIN, END = "<!-- bench/scaling.py: begin -->", "<!-- bench/scaling.py: end -->"


class Figures:
    """Measured figures by name, each with the run that it comes from."""

    def __init__(self, files):
        self.found, self.used = {}, {}
        for file in files:
            results = json.loads(file.read_text(encoding="utf-8"))
            for figure in results["figures"]:
                about = self.found.get(figure["name"], ({}, {}))[1]
                if results["about"]["date"] >= about.get("date", ""):
                    self.found[figure["name"]] = figure, results["about"]

    def __call__(self, name, key="sporlog"):
        if name not in self.found:
            raise SystemExit(f"scaling: no results file has the figure '{name}': see --results")
        figure, _ = self.used[name] = self.found[name]
        return figure[key]

    def rows(self, name, key="rows"):
        return self.found[name][1][key]


class Costs:
    """What a record costs, from the figures."""

    def __init__(self, figures, rules):
        rows = figures.rows("size-csv")
        csv, log = figures("size-csv", "peer_value") * MB / rows, figures("size-csv") * MB / rows
        self.import_seconds = figures("import-duckdb") / figures.rows("import-duckdb")
        self.post_per_second = figures("serve-post")
        self.kafka_per_second = figures("throughput")
        self.verify_per_second = figures("verify")
        self.collect_seconds = figures("collect") / figures.rows("collect")
        files = math.ceil(figures.rows("find", "large") / rules.file_rows)
        self.find_seconds = figures("find") / 1_000 / files
        self.delivery_rows = int(DELIVERY / csv)
        # An entry and a hash for each record, and the levels above.
        self.tlog_bytes = ENTRY + HASH * rules.tile / (rules.tile - 1)
        self.tiles = (1 + rules.tile / (rules.tile - 1)) / rules.tile
        self.index_bytes = [figures(f"index-{kind}") / figures.rows(f"index-{kind}") for kind in ("revision", "disclosure")]
        revision = log - self.tlog_bytes - self.index_bytes[0]
        self.table_bytes = [revision, figures("table-disclosure") / figures.rows("table-disclosure")]


class Country:
    """All that is reckoned of a country whose volume is `scale` times that in its file."""

    def __init__(self, given, costs, rules, scale, seed):
        country, day, self.limits, bucket, assumed = (given[name] for name in ("country", "day", "limits", "bucket", "assumed"))
        self.costs, self.rules, self.scale = costs, rules, scale
        self.put, self.get = bucket["put_ms"] / 1_000, bucket["get_ms"] / 1_000
        self.rows = country["rows_per_year"] * scale / DAYS
        by_message = self.rows * country["share_by_message"]
        self.parts = [self.rows - by_message, by_message]
        self.kept_days = country["years_kept"] * DAYS
        self.kept = self.rows * self.kept_days
        self.audits = country["audits_per_month"]
        self.publish = bucket["publish_seconds"]
        hours = day["lookups"]
        self.lookups = country["citizens"] * country["lookups_per_citizen_month"] * scale / MONTH
        self.lookup_peak = self.lookups * max(hours) / sum(hours) / HOUR

        night = (seed, country["suppliers"], self.parts[0], day["sizes_sigma"], day["deliver_between"], costs.delivery_rows)
        # Each delivery is compared with the identities of all rows of these days.
        self.compared = self.parts[0] * assumed["overlap_days"]
        compare = self.compare = self.compared / assumed["identities_per_second"]
        self.disk = deliveries(rules, *night, lambda rows: compare + rows * costs.import_seconds)
        # Tiles are put after the commit; commit, index, checkpoint and note one after the other.
        tiles = costs.tiles * self.put / rules.parallel
        in_bucket = lambda rows: compare + rows * (costs.import_seconds + tiles) + 8 * self.put
        self.bucket = deliveries(rules, *night, in_bucket)
        self.posted = messages(rules, seed, self.parts[1], day["messages"], costs.post_per_second, self.put)
        logs = (self.disk.left, self.posted.left)
        self.uncompacted = [len(log.rows) for log in logs]
        self.commits = [log.commits for log in logs]
        self.merged = sum(log.rewritten for log in logs)
        for log in logs:
            log.compact()
        self.files = [len(log.rows) for log in logs]
        self.compacted = sum(log.rewritten for log in logs)

        self.table = sum(rows * each for rows, each in zip(self.parts, costs.table_bytes)) * self.kept_days
        self.index = sum(rows * each for rows, each in zip(self.parts, costs.index_bytes)) * self.kept_days
        self.tlog = self.kept * costs.tlog_bytes
        self.tiles = self.kept * costs.tiles
        self.data_files = sum(self.files) * self.kept_days
        self.commit_files = sum(self.commits) * self.kept_days
        self.objects = self.tiles + 2 * self.data_files + self.commit_files

    def lookup_seconds(self, files):
        return files * self.kept_days * self.costs.find_seconds

    def bucket_lookup_seconds(self):
        return self.data_files * INDEX_ROUNDS * self.get / self.rules.find_at_once

    def monthly_index_seconds(self):
        """If one index covered the files of a month in each of the two logs."""
        return 2 * self.kept_days / MONTH * self.costs.find_seconds

    def loads(self):
        """Each part's share of what it can do: the part, its limit, the share. Above 1 it is too slow."""
        costs, limits = self.costs, self.limits
        night, collect, backup = (limits[f"{name}_hours"] * HOUR for name in ("delivery", "collection", "backup"))
        audit, answer = limits["audit_hours"] * HOUR, limits["answer_seconds"]
        verify = self.kept / costs.verify_per_second
        files = sum(self.files)
        return [
            ("deliveries, disk", f"{limits['delivery_hours']} hours", self.disk.busy / night),
            ("deliveries, bucket", f"{limits['delivery_hours']} hours", self.bucket.busy / night),
            ("messages from Kafka, six logs", "the busiest hour", self.posted.peak / costs.kafka_per_second),
            ("messages posted one by one, one log", "the busiest hour", self.posted.peak / costs.post_per_second),
            ("merges, a nightly `compact` included", "24 hours", self.compacted * costs.import_seconds / 24 / HOUR),
            ("municipalities' files", f"{limits['collection_hours']} hours", self.parts[0] * costs.collect_seconds / collect),
            ("one look-up, disk", f"{answer} s", self.lookup_seconds(files) / answer),
            ("one look-up, disk, never compacted", f"{answer} s", self.lookup_seconds(sum(self.uncompacted)) / answer),
            ("one look-up, disk, with an index a month (not built)", f"{answer} s", self.monthly_index_seconds() / answer),
            ("one look-up, bucket, nothing kept locally", f"{answer} s", self.bucket_lookup_seconds() / answer),
            ("all look-ups, disk", "the busiest hour", self.lookup_peak * self.lookup_seconds(files)),
            ("audit of all records, disk", f"{limits['audit_hours']} hours", verify / audit),
            ("audit of all records, bucket", f"{limits['audit_hours']} hours", (verify + self.tiles * self.get / self.rules.verify_at_once) / audit),
            ("backup, disk: the copy is verified whole", f"{limits['backup_hours']} hours", verify / backup),
            ("backup: names of objects in memory", f"{limits['memory_gb']} GB", self.objects * NAME_BYTES / limits["memory_gb"] / GB),
        ]  # fmt: skip

    def machines(self):
        """How many machines of two processors, or logs, do what one cannot, where more of them help."""
        costs, night = self.costs, self.limits["delivery_hours"] * HOUR
        # Of so many exchanges each has that share of the deliveries, and compares with that share of the rows.
        shared = lambda count: (self.disk.files * self.compare / count + self.parts[0] * costs.import_seconds) / count
        exchanges = next(count for count in range(1, 10_000) if shared(count) <= night)
        loads = {part: load for part, _, load in self.loads()}
        return [
            ("exchanges, each with a log and its share of the suppliers", exchanges),
            ("servers with a log each, where messages are posted", math.ceil(loads["messages posted one by one, one log"])),
            ("instances for Kafka, six logs each", math.ceil(loads["messages from Kafka, six logs"])),
            ("machines that write municipalities' files", math.ceil(loads["municipalities' files"])),
            ("machines that verify for an audit, logs shared out", math.ceil(loads["audit of all records, disk"])),
            ("machines for look-ups, with an index a month (not built)", math.ceil(self.lookup_peak * self.monthly_index_seconds())),
        ]  # fmt: skip

    def requests(self):
        """Requests a month to a bucket: the part, puts and lists, gets."""
        costs, rules = self.costs, self.rules
        levels = math.ceil(math.log(max(self.kept, 2), rules.tile))
        # Checkpoint and note on the table are read and put; unfinished tiles of each level, and a bundle.
        unfinished, notes = levels + 1, 2
        row_parts = [each / rules.part for each in costs.table_bytes]
        new_parts = sum(rows * each for rows, each in zip(self.parts, row_parts))
        merged_parts = self.compacted * max(row_parts)
        publications = self.posted.active / self.publish
        groups = self.rows / GROUP_ROWS
        per_day = [
            ("deliveries", self.parts[0] * row_parts[0] + self.disk.files * (4 + notes + unfinished), self.disk.files * notes),
            ("frames of the journal", self.posted.frames, 0),
            ("the journal into the table", self.parts[1] * row_parts[1] + self.posted.flushes * (4 + notes), self.posted.flushes * notes),
            ("checkpoints while messages come", publications * (1 + unfinished), publications),
            ("tiles and bundles", self.rows * costs.tiles, 0),
            ("merges", merged_parts + sum(self.files) * 4 + self.objects / 1_000, self.compacted / GROUP_ROWS + sum(self.uncompacted)),
            ("look-ups, nothing kept on a local disk", 0, self.lookups * self.data_files * INDEX_REQUESTS),
            ("comparing deliveries", 0, self.disk.files * self.compared / rules.file_rows * COMPARE_REQUESTS),
            ("municipalities' files", 0, groups),
            ("audits", 0, (self.tiles + self.kept / GROUP_ROWS + 2 * self.data_files) * self.audits / MONTH),
            ("backup", 0, self.rows * costs.tiles + new_parts + merged_parts),
        ]  # fmt: skip
        return [(name, puts * MONTH, gets * MONTH) for name, puts, gets in per_day]


def money(prices, puts, gets):
    return puts / 1_000 * prices["put_1000"] + gets / 1_000 * prices["get_1000"]


def storage_money(prices, stored):
    cost, below, left = 0, 0, stored / GIB
    for upto, each in prices["storage"]:
        cost += max(0, min(left, upto) - below) * each
        below = upto
    return cost


def short(value):
    """Three digits that count: 27.4 M, 1.2 bn, 0.4."""
    for size, name in ((1e12, " tn"), (1e9, " bn"), (1e6, " M")):
        if value >= size:
            return short(value / size) + name
    digits = 0 if value >= 100 or value == round(value) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def span(seconds):
    for size, name in ((DAYS * 24 * HOUR, "years"), (24 * HOUR, "days"), (HOUR, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{short(seconds / size)} {name}"
    return f"{short(seconds)} s" if seconds >= 1 else f"{seconds * 1_000:.0f} ms"


def share(value):
    """Of a limit: a percentage below it, bold and so many times as much above it."""
    return f"**{short(value)}×**" if value > 1 else f"{value * 100:.0f} %" if value >= 0.01 else "< 1 %"


def size(count):
    return f"{short(count / TB)} TB" if count >= TB else f"{short(count / GB)} GB"


def table(head, rows):
    rows = [head, *rows]
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]


def report(given, figures, rules, seed):
    costs = Costs(figures, rules)
    countries = [Country(given, costs, rules, scale, seed) for scale in SCALES]
    head = ["", *(f"{scale}×" for scale in SCALES)]
    of = lambda name, value: [name, *(value(country) for country in countries)]
    country, prices, flat = given["country"], given["bucket"]["prices"], given["flat"]["prices"]

    lines = [
        f"{short(country['rows_per_year'])} records a year, kept for {country['years_kept']} years; "
        f"{country['municipalities']} municipalities, {country['suppliers']} suppliers of files, "
        f"{share(country['share_by_message'])} of the records as single messages; {short(country['citizens'])} citizens "
        f"who look {country['lookups_per_citizen_month']} time a month.",
        "",
        *table(head, [
            of("records a day", lambda c: short(c.rows)),
            of("deliveries a night", lambda c: short(c.disk.files)),
            of("messages a second in the busiest hour", lambda c: short(c.posted.peak)),
            of("look-ups a second in the busiest hour", lambda c: short(c.lookup_peak)),
            of("records that are kept", lambda c: short(c.kept)),
        ]),
        "",
        "### What is stored",
        "",
        *table(head, [
            of("tables", lambda c: size(c.table)),
            of("key indexes", lambda c: size(c.index)),
            of("transparency logs", lambda c: size(c.tlog)),
            of("all", lambda c: size(c.table + c.index + c.tlog)),
            of("tiles and bundles", lambda c: short(c.tiles)),
            of("data files, each with an index", lambda c: short(c.data_files)),
            of("commits of the tables", lambda c: short(c.commit_files)),
        ]),
        "",
        "### A day",
        "",
        *table(head, [
            of("deliveries taken in, disk: at work", lambda c: span(c.disk.busy)),
            of("… longest queue, longest wait", lambda c: f"{c.disk.longest_queue}, {span(c.disk.longest_wait)}"),
            of("deliveries taken in, bucket: at work", lambda c: span(c.bucket.busy)),
            of("… longest queue, longest wait", lambda c: f"{c.bucket.longest_queue}, {span(c.bucket.longest_wait)}"),
            of("files of the day, merged in the background only", lambda c: short(c.uncompacted[0])),
            of("… after a `compact`", lambda c: short(c.files[0])),
            of("messages, one by one into one log: frames", lambda c: short(c.posted.frames)),
            of("… flushes", lambda c: short(c.posted.flushes)),
            of("… longest queue, in records", lambda c: short(c.posted.longest_queue)),
            of("… longest wait for an answer beyond a put", lambda c: span(c.posted.longest_wait) if c.posted.longest_queue else "–"),
            of("… files of the day, merged in the background only", lambda c: short(c.uncompacted[1])),
            of("… after a `compact`", lambda c: short(c.files[1])),
            of("how often a record is rewritten by merges", lambda c: short(c.compacted / c.rows)),
        ]),
        "",
        "### Which part breaks first",
        "",
        "The share of what one machine of two processors, or one log, can do, or of the time within which an answer is due.",
        "",
    ]  # fmt: skip
    loads = sorted(zip(*(country.loads() for country in countries)), key=lambda each: -each[0][2])
    lines += table(["part", "limit", *head[1:]], [[*each[0][:2], *(share(load[2]) for load in each)] for each in loads])
    needed = zip(*(country.machines() for country in countries))
    lines += [
        "",
        "### How many logs and machines",
        "",
        "Without a reserve for a machine that fails.",
        "",
        *table(head, [[each[0][0], *(short(count) for _, count in each)] for each in needed]),
    ]
    spent = list(zip(*(country.requests() for country in countries)))
    cost = lambda parts: [money(prices, puts, gets) for _, puts, gets in parts]
    totals = [sum(money(prices, puts, gets) for _, puts, gets in each) for each in zip(*spent)]
    stored = [storage_money(prices, c.table + c.index + c.tlog) for c in countries]
    currency = prices["currency"]
    lines += [
        "",
        "### Requests and money a month",
        "",
        *table(["", "put, list: 1×", "get: 1×", *(f"{currency}: {scale}×" for scale in SCALES)], [
            *([part[0][0], short(part[0][1]), short(part[0][2]), *map(short, cost(part))] for part in spent),
            ["all requests", *(short(sum(part[0][n] for part in spent)) for n in (1, 2)), *map(short, totals)],
            ["storage", "", "", *map(short, stored)],
            ["**all**", "", "", *(short(a + b) for a, b in zip(totals, stored))],
            [f"without prices for requests, {flat['currency']}", "", "",
             *(short((c.table + c.index + c.tlog) / TB * flat["tb"]) for c in countries)],
        ]),
        "",
        f"Prices: {prices['source']}; without prices for requests: {flat['source']}.",
        "",
        "### Figures that went in",
        "",
        *table(["figure", "value", "measured"], [
            [figure["what"], f"{figure['sporlog']:,} {figure['unit']}", f"{about['date'][:10]}, {about.get('commit') or '–'}"]
            for figure, about in figures.used.values()
        ]),
        "",
        f"Assumed, not measured: in a bucket, a put takes {given['bucket']['put_ms']} ms and a get {given['bucket']['get_ms']} ms; "
        f"{short(given['assumed']['identities_per_second'])} identities of earlier rows are compared a second.",
    ]  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="bench/scaling.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--country", type=Path, default=HERE / "country.toml")
    parser.add_argument("--results", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--check", type=Path, metavar="PAGE")
    args = parser.parse_args()
    given = tomllib.loads(args.country.read_text(encoding="utf-8"))
    figures = Figures([*sorted((HERE / "measured").glob("*.json")), *args.results])
    text = report(given, figures, Rules(), args.seed)
    page = args.write or args.check
    if not page:
        print(text)
        return 0
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    there, _, after = rest.partition(END)
    if not after:
        sys.exit(f"scaling: {page} has not the marks {BEGIN} and {END}")
    if args.write:
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    elif there.strip() != text:
        sys.exit(f"scaling: other tables stand in {page}: bench/scaling.py --write {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
