"""A day of a country, simulated: suppliers' files one after another, and messages one by one into one log.

Formulas would be wrong about three things: how long the queue of deliveries becomes, how many commits the rules for the
journal lead to, and how many files the rules for merging leave. The rules' numbers are read from the ledger's source.
The same seed gives the same day.
"""

import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

LEDGER = Path(__file__).resolve().parent.parent / "crates/sporlog-ledger/src"
HOUR, DAY = 3_600, 86_400
# A disclosure as the bench has them, in a frame of the journal.
MESSAGE_BYTES = 1_900


def rule(file, name):
    """A constant of the ledger; durations in seconds."""
    found = re.search(rf"\bconst {name}: \w+ = (.+);", (LEDGER / file).read_text(encoding="utf-8"))
    if not found:
        raise LookupError(f"{LEDGER / file} has no constant {name}: is it another one by now? Mend scaling_day.py")
    value = found.group(1)
    units = {"millis": 0.001, "secs": 1, "mins": 60, "hours": HOUR}
    if duration := re.fullmatch(r"Duration::from_(\w+)\(([\d_]+)\)", value):
        return units[duration.group(1)] * int(duration.group(2))
    product = re.fullmatch(r"([\d_]+)(?: (<<|\*) ([\d_]+))?", value)
    if not product:
        raise LookupError(f"{name} is {value!r}, which is no number that is understood here")
    first, operator, second = product.groups()
    return int(first) if not operator else int(first) << int(second) if operator == "<<" else int(first) * int(second)


class Rules:
    """When the ledger flushes, merges, and how much it does at once."""

    def __init__(self):
        most_bytes = rule("sequencer/flushing.rs", "MOST_BYTES")
        self.most = min(rule("sequencer/flushing.rs", "MOST_RECORDS"), most_bytes // MESSAGE_BYTES)
        self.many = rule("sequencer/flushing.rs", "MANY_RECORDS")
        self.keep_many = rule("sequencer/flushing.rs", "KEEP_MANY")
        self.keep_few = rule("sequencer/flushing.rs", "KEEP_FEW")
        self.merge_every = rule("sequencer.rs", "MERGE_EVERY")
        self.merged_rows = rule("compact.rs", "MERGED_ROWS")
        self.neighbours = rule("compact.rs", "NEIGHBOURS")
        self.file_rows = rule("bulk.rs", "FILE_ROWS")
        self.part = rule("bulk.rs", "PART")
        self.parallel = rule("storage.rs", "SMALL_PARALLEL")
        self.tile = rule("tree.rs", "TILE_WIDTH")
        self.find_at_once = rule("locate.rs", "AT_ONCE")
        self.verify_at_once = rule("rebuild.rs", "AT_ONCE_IN_BUCKET")


class Files:
    """The data files of a log, by their rows, as the ledger merges them."""

    def __init__(self, rules):
        self.rules, self.rows, self.commits, self.rewritten = rules, [], 0, 0
        # For each tier, where the last neighbours of no more rows begin. Before them, nothing changes any more.
        self.begin, tier = {}, 64
        while tier < rules.merged_rows:
            self.begin[tier] = 0
            tier *= 8

    def commit(self, *rows):
        self.rows += rows
        self.commits += 1
        if self.commits % self.rules.merge_every == 0:
            while run := self._tier_run():
                self._merge(*run)

    def compact(self):
        """Merges all that fits, as `sporlog compact` does."""
        start = 0
        while start < len(self.rows):
            if (end := self._fitting(start, len(self.rows))) > start + 1:
                self._merge(start, end)
            else:
                start += 1

    def _merge(self, start, end):
        merged = sum(self.rows[start:end])
        self.rows[start:end] = [merged]
        self.rewritten += merged
        self.commits += 1
        for tier, begin in self.begin.items():
            if begin > start:
                self.begin[tier] = max(start, begin - (end - start - 1))

    def _fitting(self, start, end):
        """The end of as many files from `start` on as fit into one."""
        rows = 0
        for at in range(start, end):
            rows += self.rows[at]
            if rows > self.rules.merged_rows:
                return at
        return end

    def _tier_run(self):
        """Neighbours that are merged in the background: many of about one size, or as many as fill one file."""
        half = self.rules.merged_rows / 2
        for tier, start in self.begin.items():
            while start < len(self.rows):
                end = start
                while end < len(self.rows) and self.rows[end] <= tier:
                    end += 1
                fits = self._fitting(start, end)
                fills_one = fits - start > 1 and fits < end and max(self.rows[start:fits]) <= half
                if fits - start >= self.rules.neighbours or fills_one:
                    return start, fits
                if fits == len(self.rows):
                    break
                start = max(fits, start + 1)
            self.begin[tier] = start
        return None


@dataclass
class Delivered:
    """What became of a night's deliveries, taken one after another."""

    files: int
    rows: int
    busy: float
    longest_queue: int
    longest_wait: float
    done: float
    left: Files


def deliveries(rules, seed, suppliers, rows, sigma, between, most_rows, seconds_of):
    """Files of `suppliers` with `rows` in all; `seconds_of` says how long a file takes."""
    chance = random.Random(seed)
    sizes = [chance.lognormvariate(0, sigma) for _ in range(suppliers)]
    arrivals = []
    for size in sizes:
        left, at = round(size / sum(sizes) * rows), chance.uniform(*between) * HOUR
        while left > 0:
            arrivals.append((at, min(left, most_rows)))
            left -= most_rows
    arrivals.sort()
    files, free, waits, ends = Files(rules), 0.0, [], []
    for at, count in arrivals:
        free = max(free, at) + seconds_of(count)
        ends.append(free)
        waits.append(free - at)
        whole, rest = divmod(count, rules.file_rows)
        files.commit(*[rules.file_rows] * whole, *[rest] * (rest > 0))
    longest, begun = 0, 0
    for n, (at, _) in enumerate(arrivals):
        while ends[begun] <= at:
            begun += 1
        longest = max(longest, n + 1 - begun)
    busy = sum(seconds_of(count) for _, count in arrivals)
    return Delivered(len(arrivals), sum(count for _, count in arrivals), busy, longest, max(waits), ends[-1], files)


@dataclass
class Messages:
    """What became of a day's messages, appended one by one to one log."""

    records: int
    frames: int
    flushes: int
    active: int  # seconds in which something came in
    peak: float  # messages a second
    longest_queue: int
    longest_wait: float
    left_over: int
    left: Files


def _poisson(chance, expected):
    """How many come where so many are expected."""
    if expected > 50:
        return max(0, round(chance.gauss(expected, math.sqrt(expected))))
    left, come, product = math.exp(-expected), 0, chance.random()
    while product > left:
        product *= chance.random()
        come += 1
    return come


def messages(rules, seed, records, hours, capacity, put_seconds):
    """A day in steps of a second: what waits becomes frames, as many as puts fit into the second, and `capacity` records."""
    chance = random.Random(seed)
    files, share = Files(rules), [hour / sum(hours) * records / HOUR for hour in hours]
    queue = journal = taken = frames = flushes = active = longest = 0
    since = 0
    for second in range(DAY):
        queue += _poisson(chance, share[second // HOUR])
        now = min(queue, round(capacity))
        queue -= now
        longest = max(longest, queue)
        if now:
            active += 1
            taken += now
            frames += min(now, round(1 / put_seconds))
            since = since if journal else second
            journal += now
        age = second + 1 - since
        due = journal >= rules.most or journal >= rules.many and age >= rules.keep_many
        if due or journal and age >= rules.keep_few:
            files.commit(journal)
            flushes += 1
            journal = 0
    return Messages(taken, frames, flushes, active, max(share), longest, longest / capacity, queue, files)
