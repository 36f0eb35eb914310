#!/usr/bin/env python3
"""Measures a store in a bucket against one in a folder; see bucket.md.

Exits with 0 when everything was measured (whether or not the goals are met: the table says that),
with 1 when a measurement failed, with 2 when it could not begin.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

import prepare

prepare.enter_environment()

import kafka
import servers
from figures import Figure, measure_all
from load import Load, result
from sporlog import Sporlog
from workplace import Workplace, end_with, read_once, say, take_turns

TESTS = prepare.HERE.parent / "tests"
ALL = ("import", "page", "post", "kafka")
SENDERS, SERVERS, PAGE = 64, 3, 100
# Different disclosures, which are sent again and again.
DISCLOSURES = 16_384
# Seconds of load that do not count, before each run.
WARM_UP = 2


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/bucket.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, help="rows that are imported, and messages from Kafka (default: 1000000)")
    parser.add_argument("--latency", type=int, default=20, help="milliseconds by which each request is held up (default: 20)")
    parser.add_argument("--quick", action="store_true", help="see that it works: 20000 rows, shorter runs")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="just these of " + ", ".join(ALL))
    parser.add_argument("--dir", type=Path, help="work below this folder (default: $TMPDIR or /tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file, too")
    parser.add_argument("--program", type=Path, help="the program, with `examples` beside it (default: the release build)")
    args = parser.parse_args()
    args.rows = args.rows or (20_000 if args.quick else 1_000_000)
    args.runs, args.seconds = (2, 3) if args.quick else (3, 10)
    args.only = args.only.split(",") if args.only else list(ALL)
    for name in args.only:
        if name not in ALL:
            parser.error(f"there is no measurement '{name}': {', '.join(ALL)}")
    return args


@contextlib.contextmanager
def latency(place, proxy, milliseconds):
    """Puts the proxy, which holds each request up, between the bucket and all that is started from now on."""
    out, upstream = place / "proxy.out", os.environ["AWS_ENDPOINT_URL"]
    argv = [proxy, "127.0.0.1:0", upstream.removeprefix("http://"), str(milliseconds), str(milliseconds)]
    with out.open("wb") as file, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file) as process:
        try:
            while "\n" not in (told := out.read_text()):
                if process.poll() is not None:
                    raise RuntimeError("the proxy does not start")
                time.sleep(0.05)
            os.environ["AWS_ENDPOINT_URL"] = told.splitlines()[0]
            yield
        finally:
            process.kill()


class Bench:
    def __init__(self, args, place, program, stack):
        self.args, self.place, self.program, self.stack = args, place, program, stack

    def in_bucket(self, name, keys=None):
        """A store in the bucket, whose keys lie in a folder of their own."""
        return f"s3://sporlog/{name}", self.place / f"{keys or name}-keys"

    def made(self, store):
        """A store with a log in it: before its first log, a bucket is tried out, which takes a while and is done once."""
        self.program.command(self.place, store, "logs", "create", "quarantine")
        return store

    def turns(self, contenders):
        runs = take_turns(self.args.runs, contenders)
        for name, results in runs.items():
            say(f"  {name}: {', '.join(f'{r:.4g}' for r in results)}")
        return runs, {name: median(results) for name, results in runs.items()}

    def imported(self):
        """Seconds that imports into new stores took, and the last store of each kind."""
        if not hasattr(self, "_imported"):
            csv, rows, stores = self.place / "rows.csv", self.args.rows, {}
            say(f"making {rows:,} rows of CSV")
            self.program.sample(self.place, rows, csv)
            read_once(csv)

            def into(where, store):
                def run(number):
                    stores[where] = self.made(store(f"import-{number}"))
                    return self.program.import_revision(self.place, stores[where], csv, rows)[0].seconds

                return run

            contenders = {"bucket": into("bucket", self.in_bucket), "disk": into("disk", lambda name: self.place / name)}
            self._imported = *self.turns(contenders), stores
            for store in stores.values():
                self.program.verify(self.place, store, "revision", rows)
        return self._imported


def measure_import(bench):
    """A CSV file taken in: until it is durable and published, and the process has ended."""
    runs, took, _ = bench.imported()
    yield Figure(
        "bucket-import", f"import of {bench.args.rows:,} rows of CSV", "s", took["bucket"], "a folder", took["disk"],
        took["bucket"] / took["disk"], "the time", 1.3, of_ratio=True, runs=runs,
    )  # fmt: skip


def measure_page(bench):
    """Pages by id at random places: of what a local disk has, and of what nobody has read yet."""
    stores, cache = bench.imported()[2], bench.place / "cache"
    bucket = stores["bucket"][0]

    def pages(store, *more):
        return bench.program.measure(bench.place, "page", store, "revision", PAGE, 500, *more)["milliseconds"]["median"]

    read_once(stores["disk"])
    pages(bucket, cache)
    runs, took = bench.turns({"bucket": lambda _: pages(bucket, cache), "disk": lambda _: pages(stores["disk"])})
    what = f"a page of {PAGE} records by id, of {bench.args.rows:,}"
    yield Figure(
        "bucket-page", f"{what}, warm", "ms", took["bucket"], "a folder", took["disk"], took["bucket"] / took["disk"],
        "the time", 2.5, runs=runs,
    )  # fmt: skip
    told = bench.program.measure(bench.place, "cold", bucket, "revision", PAGE, 30)
    note = f"{told['milliseconds']['median']:.0f} ms at the median; {told['median_requests']} requests at the median"
    yield Figure("bucket-page-cold", f"{what}, cold", "requests", told["most_requests"], goal=6, note=note)


def measure_post(bench):
    """Disclosures one by one, each answered when it is durable: by one server, and by several over one bucket."""
    place, program, seconds = bench.place, bench.program, bench.args.seconds
    records = place / "disclosures.ndjson"
    place.run([program.path, "sample", "disclosure", "--records", str(DISCLOSURES), "--faulty", "0", "--out", records])
    logs = [f"disclosure-{n}" for n in range(SERVERS)]
    stores = {"disk": place / "posts", "bucket": bench.in_bucket("posts")}
    for store in stores.values():
        program.command(place, store, "logs", "create", "access", "quarantine")
        program.command(place, store, "logs", "create", "--kind", "disclosure", "disclosure", *logs)
    # Each server has a copy of the keys, and remembers for itself how far the logs were signed.
    for n in range(1, SERVERS):
        shutil.copytree(stores["bucket"][1], place / f"posts-{n}-keys")
    others = [bench.in_bucket("posts", f"posts-{n}") for n in range(1, SERVERS)]
    fleet = [servers.sporlog(place, program, store) for store in (stores["bucket"], *others)]
    for server in (disk := servers.sporlog(place, program, stores["disk"]), *fleet):
        bench.stack.enter_context(server)

    def post(*to):
        """Posts a second, by all clients together; each server has its share of them, and its log."""
        loads = [
            (Load(f"/api/logs/{log}/entries", SENDERS // len(to), 1, ("posts", records, 1), ("Content-Type: application/json",)), server)
            for server, log in to
        ]

        def run(_):
            for lasts in (WARM_UP, seconds):
                with contextlib.ExitStack() as stack:
                    processes = [stack.enter_context(load.begin(server, lasts)) for load, server in loads]
                    # Of several servers, one may get no turn while it warms up.
                    told = [result(process) if lasts == seconds else process.communicate() for process in processes]
            for server, _ in to:
                server.rest(10)
            waits[to[0][1], len(to), to[0][0]] = max(each["ms"]["median"] for each in told)
            return sum(each["per_second"] for each in told)

        return run

    waits = {}
    one, turns, each = (fleet[0], "disclosure"), [(server, "disclosure") for server in fleet], list(zip(fleet, logs))
    runs, speed = bench.turns({"one": post(one), "disk": post((disk, "disclosure")), "each": post(*each), "turns": post(*turns)})
    for log in ("disclosure", *logs):
        head = json.loads(program.command(place, stores["bucket"], "head", log).stdout)
        program.verify(place, stores["bucket"], log, head if isinstance(head, int) else head["head"])
    what, peer = f"disclosures posted one by one over HTTP by {SENDERS}, durable", ("one server", speed["one"])
    yield Figure(
        "bucket-post", what, "/s", speed["one"], "a folder", speed["disk"], speed["one"] / speed["disk"], "as many", 1_000,
        at_least=True, runs=runs, note=f"{waits['disclosure', 1, fleet[0]]:.0f} ms at the median",
    )  # fmt: skip

    def several(name, how, key, rate):
        note = f"{waits[key]:.0f} ms at the median"
        return Figure(f"bucket-post-{name}", f"the same {how}", "/s", rate, *peer, rate / speed["one"], "as many", note=note)

    yield several("each", f"to {SERVERS} servers with a log each", (logs[0], SERVERS, fleet[0]), speed["each"])
    yield several("turns", f"by turns of {SERVERS} servers at one log", ("disclosure", SERVERS, fleet[0]), speed["turns"])


def measure_kafka(bench):
    """A topic with a log for each partition, until durable."""
    if not shutil.which("kcat"):
        prepare.install("kcat", "kcat is not there")
    fetched = subprocess.run([TESTS / "kafka/fetch"], check=True, stdout=subprocess.PIPE, text=True)
    broker = bench.stack.enter_context(kafka.Broker(bench.place, fetched.stdout.strip().splitlines()[-1]))
    messages = bench.args.rows
    arguments = argparse.Namespace(messages=messages)
    topic = kafka.Bench(arguments, bench.place, bench.program.path, broker, bench.stack)

    def into(where, store):
        def run(number):
            name = f"kafka-{where}-{number}"
            address, _ = bench.made((store(name), bench.place / f"{name}-keys"))
            return messages / topic.consume(name, kafka.TOPIC, "disclosure-{partition}", messages, address).seconds

        return run

    runs, speed = bench.turns({"bucket": into("bucket", lambda name: bench.in_bucket(name)[0]), "disk": into("disk", lambda name: bench.place / name)})
    yield Figure(
        "bucket-kafka", f"{messages:,} messages from Kafka, a log for each of {kafka.PARTITIONS} partitions, until durable", "/s",
        speed["bucket"], "a folder", speed["disk"], speed["bucket"] / speed["disk"], "as fast", 0.7, of_ratio=True,
        at_least=True, runs=runs,
    )  # fmt: skip


MEASURES = {"import": measure_import, "page": measure_page, "post": measure_post, "kafka": measure_kafka}


def main():
    args = parse_args()
    program = (args.program or prepare.target_folder(None) / "release/sporlog").resolve()
    proxy, measure = (program.parent / "examples" / name for name in ("bucket_proxy", "measure"))
    for path in (program, proxy, measure):
        if not os.access(path, os.X_OK):
            raise prepare.CannotBegin(f"{path} is missing; `make release` builds it")
    prepare.wrk()
    # The folder of the bucket's objects: where we work is beside it.
    if "SPORLOG_TEST_BUCKET" not in os.environ:
        if args.dir:
            args.dir.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(args.dir.resolve())
        os.execv(TESTS / "bucket/with", ["with", sys.executable, *sys.argv])
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(130))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Workplace(Path(os.environ["SPORLOG_TEST_BUCKET"]).parents[1]))
        os.environ["TMPDIR"] = str(place.path)
        ours = Sporlog(program, measure)
        about = place.machine(ours) | {"rows": args.rows, "latency_ms": args.latency}
        stack.enter_context(latency(place, proxy, args.latency))
        at_scale = args.rows >= 1_000_000 and args.latency >= 20
        peers = f"versitygw on the same machine, each request held up by {args.latency} ms"
        return measure_all(Bench(args, place, ours, stack), MEASURES, about, at_scale, peers)


if __name__ == "__main__":
    end_with(main)
