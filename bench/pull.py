#!/usr/bin/env python3
"""Measures how fast Sporlog mirrors an audit log, against curl fetching the same pages; see README.md.

Exits with 0 when everything was measured (whether or not the goals are met: the table says that),
with 1 when a measurement failed, with 2 when it could not begin.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

import prepare
import servers
from figures import Figure, number
from sporlog import Sporlog
from workplace import Workplace, end_with, say, settle, take_turns

PAGE = 100


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/pull.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--records", type=int, help="records of the first read (default: 1000000)")
    parser.add_argument("--upstreams", type=int, default=100, help="upstreams with nothing new (default: 100)")
    parser.add_argument("--quick", action="store_true", help="see that it works: 20000 records")
    parser.add_argument("--dir", type=Path, help="work below this folder (default: $TMPDIR or /tmp)")
    parser.add_argument("--program", type=Path, help="the program (default: the release build)")
    args = parser.parse_args()
    args.records = args.records or (20_000 if args.quick else 1_000_000)
    args.runs = 3
    return args


def configured(place, name, server, pulls):
    """A configuration with so many pulls from the server."""
    (place / "up.key").write_text(server.headers[0].split(": ")[1])
    text = "".join(
        f'[[pull]]\nname = "up{n}"\nurl = "{server.url}"\nkey_file = "up.key"\nlog = "mirror{n}"\n' for n in range(pulls)
    )
    config = place / f"{name}.toml"
    config.write_text(text)
    return config


def measure_first_read(place, program, server, args):
    """A first read until it is durable, against curl with one connection that it keeps."""
    config = configured(place, "first", server, 1)
    urls = place / "pages"
    offsets = range(0, args.records, PAGE)
    urls.write_text("".join(f'url = "{server.url}/api/auditlog/read?offset={at}"\noutput = /dev/null\n' for at in offsets))

    def sporlog(run):
        server.rest()
        argv = [program.path, "--quiet", "--json", "--config", config, "--store", place / f"mirror-{run}", "pull", "up0", "--until-head"]
        ran = place.run(argv)
        if (told := json.loads(ran.stdout))["accepted"] != args.records:
            raise RuntimeError(f"of {args.records} records, {told['accepted']} were stored")
        if run == 0:
            program.verify(place, place / "mirror-0", "mirror0", args.records)
        return args.records / ran.seconds

    def curl(_):
        server.rest()
        ran = place.run(["curl", "--silent", "--show-error", "--fail", "--header", server.headers[0], "--config", urls])
        return args.records / ran.seconds

    runs = take_turns(args.runs, {"sporlog": sporlog, "curl": curl})
    speed = {who: median(each) for who, each in runs.items()}
    yield Figure(
        "pull-first", f"first read of {args.records:,} records from our own server, until durable", "/s", speed["sporlog"],
        "curl, to /dev/null", speed["curl"], speed["sporlog"] / speed["curl"], "as many", 0.8, of_ratio=True, at_least=True, runs=runs,
    )  # fmt: skip


def measure_steady(place, program, server, args):
    """What it takes to ask many upstreams that have nothing new, as `sporlog serve` does."""
    config = configured(place, "steady", server, args.upstreams)
    argv = [program.path, "--config", config, "--store", place / "steady", "serve", "--listen", "127.0.0.1:0"]
    seconds = 30 if args.quick else 120
    with servers.Server(place, "mirror", argv) as mirror:
        # Until all have been read, and looked back at.
        mirror.rest(600)
        before, began = mirror.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        share = 100 * (mirror.cpu_seconds() - before) / (time.monotonic() - began)
    yield Figure("pull-steady", f"{args.upstreams} upstreams every 5 s, nothing new", "% of a core", share, goal=2.0)


def main():
    args = parse_args()
    program = (args.program or prepare.target_folder(None) / "release/sporlog").resolve()
    if not os.access(program, os.X_OK):
        raise prepare.CannotBegin(f"{program} is missing; `make release` builds it")
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(130))
    failed = False
    with contextlib.ExitStack() as stack:
        place, ours = stack.enter_context(Workplace(args.dir)), Sporlog(program, None)
        say(f"making {args.records:,} audit records")
        # The second upstream is small: what is measured there is asking, and not the first read.
        for store, records, measure in (("large", args.records, measure_first_read), ("small", 1_000, measure_steady)):
            sample = place / f"{store}.ndjson"
            place.run([program, "sample", "auditlog", "--records", str(records), "--faulty", "0", "--out", sample])
            ours.import_file(place, place / store, "auditlog", sample, records)
            settle()
            say(f"== {store}")
            try:
                with servers.sporlog(place, ours, place / store) as server:
                    for figure in measure(place, ours, server, args):
                        peer = f"; {figure.peer}: {number(figure.peer_value, figure.unit)}" if figure.peer else ""
                        ratio = f"; ratio {number(figure.ratio, '×')}" if figure.ratio else ""
                        met = {True: "met", False: "NOT met"}[figure.met()]
                        print(f"{figure.name}: {figure.what}: {number(figure.sporlog, figure.unit)}{peer}{ratio}; "
                              f"goal {figure.goal}: {met}", flush=True)  # fmt: skip
            except Exception:  # one that fails must not take the other's result with it
                traceback.print_exc()
                failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    end_with(main)
