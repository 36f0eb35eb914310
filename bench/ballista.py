#!/usr/bin/env python3
"""Measures searches by a Ballista cluster on this machine against the same searches by `sporlog` alone; see README.md.

Exits with 0 when everything was measured (whether or not the goals are met: the table says that),
with 1 when a measurement failed, with 2 when it could not begin.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

import prepare
from figures import Figure, measure_all
from sporlog import Sporlog
from workplace import Workplace, end_with, free_ports, say, take_turns

QUESTIONS = prepare.HERE.parent / "docs/questions.sql"
# The person whom one municipality looked up the most.
SOMEBODY = """SELECT organisation, subject FROM events WHERE log = 'revision' AND subject IS NOT NULL
    GROUP BY organisation, subject ORDER BY count(*) DESC, organisation, subject LIMIT 1"""
LOOK_UPS = """SELECT id, occurred_at, actor FROM events WHERE log = 'revision' AND organisation = '{organisation}'
    AND subject = '{subject}' ORDER BY id"""


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/ballista.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, help="rows of the log (default: 1000000)")
    parser.add_argument("--quick", action="store_true", help="see that it works: 20000 rows")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="just these of " + ", ".join(MEASURES))
    parser.add_argument("--dir", type=Path, help="work below this folder (default: $TMPDIR or /tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file, too")
    parser.add_argument("--program", type=Path, help="the program, built with `ballista` (default: the release build)")
    parser.add_argument("--ballista", type=Path, help="Ballista's servers (default: `examples/ballista` beside the program)")
    args = parser.parse_args()
    args.rows = args.rows or (20_000 if args.quick else 1_000_000)
    args.only = args.only.split(",") if args.only else list(MEASURES)
    for name in args.only:
        if name not in MEASURES:
            parser.error(f"there is no measurement '{name}': {', '.join(MEASURES)}")
    return args


def cluster(stack, place, ballista):
    """Starts a scheduler and two executors, which share the processors; gives the scheduler's address."""
    scheduler, *ports = map(str, free_ports(5))
    address = ["--bind-host", "127.0.0.1", "--external-host", "127.0.0.1", "--bind-port"]
    vcores = str(max(2, len(os.sched_getaffinity(0)) // 2))

    def start(name, *argv):
        with (place / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([ballista, *argv], cwd=place.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)

    start("scheduler", "scheduler", *address, scheduler)
    for name, flight, grpc in (("one", *ports[:2]), ("two", *ports[2:])):
        (place / name).mkdir()
        more = ["--scheduler-host", "127.0.0.1", "--scheduler-port", scheduler, "--scheduler-connect-timeout-seconds", "20"]
        start(name, "executor", *address, flight, "--bind-grpc-port", grpc, "--vcores", vcores, "--work-dir", place / name, *more)
    # An executor takes connections there once the scheduler knows it.
    for port in ports[::2]:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", int(port))):
            if time.monotonic() > deadline:
                raise RuntimeError("an executor does not start")
            time.sleep(0.1)
    return f"df://127.0.0.1:{scheduler}"


class Bench:
    def __init__(self, args, place, program, address):
        self.args, self.place, self.program, self.address = args, place, program, address

    def ask(self, sql, *more):
        return self.program.command(self.place, self.place / "store", "sql", "--format", "ndjson", sql, *more)

    def compare(self, name, what, sql):
        on_cluster = ("--cluster", self.address)
        # Each has asked once before it counts.
        alone, together = self.ask(sql).stdout, self.ask(sql, *on_cluster).stdout
        if not alone or alone != together:
            raise RuntimeError(f"the cluster has another answer, {together[:200]!r}, than {alone[:200]!r}")
        runs = take_turns(3, {"cluster": lambda _: self.ask(sql, *on_cluster).seconds, "alone": lambda _: self.ask(sql).seconds})
        took = {who: median(each) for who, each in runs.items()}
        yield Figure(
            f"ballista-{name}", f"{what}, of {self.args.rows:,} rows, by Ballista", "s", took["cluster"], "sporlog alone",
            took["alone"], took["cluster"] / took["alone"], "the time", 2.0, of_ratio=True, runs=runs,
        )  # fmt: skip


def measure_person(bench):
    """A search that reads one column of each record and finds few."""
    somebody = json.loads(bench.ask(SOMEBODY).stdout)
    yield from bench.compare("person", "one municipality's look-ups of a person", LOOK_UPS.format(**somebody))


def measure_users(bench):
    """Who looked the most people up without a case: all records are grouped."""
    question = re.search(r"^-- 3\..*\n([^;]*)", QUESTIONS.read_text(), re.M)[1]
    yield from bench.compare("users", "question 3 of docs/questions.sql", question)


MEASURES = {"person": measure_person, "users": measure_users}


def main():
    args = parse_args()
    program = (args.program or prepare.target_folder(None) / "release/sporlog").resolve()
    ballista = (args.ballista or program.parent / "examples/ballista").resolve()
    for path in (program, ballista):
        if not os.access(path, os.X_OK):
            raise prepare.CannotBegin(f"{path} is missing; README.md says how it is built")
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(130))
    with contextlib.ExitStack() as stack:
        place, ours = stack.enter_context(Workplace(args.dir)), Sporlog(program, None)
        about = place.machine(ours) | {"rows": args.rows}
        say(f"making a log of {args.rows:,} rows")
        ours.sample(place, args.rows, place / "rows.csv")
        ours.import_revision(place, place / "store", place / "rows.csv", args.rows)
        bench = Bench(args, place, ours, cluster(stack, place, ballista))
        return measure_all(bench, MEASURES, about, args.rows >= 1_000_000, "a scheduler and two executors on the same machine")


if __name__ == "__main__":
    end_with(main)
