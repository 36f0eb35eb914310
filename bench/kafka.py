#!/usr/bin/env python3
"""Measures how fast Sporlog takes a topic in, against kcat and PostgreSQL; see kafka.md.

Exits with 0 when everything was measured (whether or not the goals are met: the table says that),
with 1 when a measurement failed, with 2 when it could not begin.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

import prepare

prepare.enter_environment()

from figures import Figure, measure_all
from postgres import Postgres
from sporlog import Sporlog
from workplace import GB, MB, Workplace, end_with, free_ports, read_once, say, take_turns

TOPIC, PARTITIONS = "disclosures", 6
ALL = ("throughput", "single", "transactions", "memory")


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/kafka.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--messages", type=int, help="messages of the smaller backlog (default: 1000000)")
    parser.add_argument("--backlog", type=float, help="the larger backlog in GB (default: 5)")
    parser.add_argument("--quick", action="store_true", help="see that it works: 50000 messages, 0.2 GB")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="just these of " + ", ".join(ALL))
    parser.add_argument("--dir", type=Path, help="work below this folder (default: $TMPDIR or /tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file, too")
    parser.add_argument("--program", type=Path, help="the program (default: the release build)")
    args = parser.parse_args()
    args.messages = args.messages or (50_000 if args.quick else 1_000_000)
    args.backlog = args.backlog or (0.2 if args.quick else 5.0)
    args.runs = 3
    args.only = args.only.split(",") if args.only else list(ALL)
    for name in args.only:
        if name not in ALL:
            parser.error(f"there is no measurement '{name}': {', '.join(ALL)}")
    return args


class Broker:
    """One broker of Apache Kafka, in the workplace; its settings are those of its own quick start."""

    def __init__(self, place, jars):
        self.classpath = f"{jars}/*"
        self.home = place / "kafka"
        self.home.mkdir()
        self.port, controller = free_ports(2)
        self.properties = self.home / "server.properties"
        self.properties.write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={self.home}/data
num.partitions={PARTITIONS}
auto.create.topics.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
""")
        subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", "c3Bvcmxvdy1iZW5jaC0wMQ", "-c"), check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def java(self, main, *args):
        return ["java", "-Xms1g", "-Xmx1g", "-cp", self.classpath, main, *args, str(self.properties)]

    def __enter__(self):
        log = (self.home / "log").open("wb")
        self.process = subprocess.Popen(self.java("kafka.Kafka"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.1)
        self.__exit__()
        raise RuntimeError("the broker does not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def produce(self, topic, file, times):
        """A message for each line, spread over the partitions, `times` times."""
        for _ in range(times):
            argv = ["kcat", "-P", "-q", "-b", self.address, "-t", topic, "-l", str(file)]
            more = ["-X", "queue.buffering.max.messages=1000000", "-X", "linger.ms=50", "-X", "partitioner=random"]
            subprocess.run([*argv, *more], check=True, stdin=subprocess.DEVNULL)


class Bench:
    def __init__(self, args, place, program, broker, stack):
        self.args, self.place, self.program, self.broker, self.stack = args, place, program, broker, stack
        self.file = place / "messages.ndjson"
        say(f"making {args.messages:,} messages")
        short = self.place / "short.ndjson"
        self.place.run([program, "sample", "disclosure", "--records", str(args.messages), "--faulty", "0", "--out", short])
        short.rename(self.file)
        self.bytes = self.file.stat().st_size
        self.each = self.bytes / args.messages
        read_once(self.file)
        broker.produce(TOPIC, self.file, 1)

    def consume(self, name, topic, log, messages, store=None):
        """A new store, in the workplace unless another is given, and a new group; the whole process, until all is durable."""
        config = self.place / f"{name}.toml"
        config.write_text(
            f'store = "{store or self.place / name}"\nkeys = "{self.place / name}-keys"\n[kafka]\nbrokers = "{self.broker.address}"\ngroup = "{name}"\n'
            f'[[kafka.topic]]\nname = "{topic}"\nlog = "{log}"\n'
        )
        ran = self.place.run([self.program, "--quiet", "--config", config, "--json", "consume", "--until-end"])
        totals = json.loads(ran.stdout)
        if totals["accepted"] != messages or totals["refused"]:
            raise RuntimeError(f"of {messages} messages, {totals} were taken in")
        return ran

    def kcat(self, topic, format_args=()):
        argv = ["kcat", "-C", "-q", "-e", "-o", "beginning", "-b", self.broker.address, "-t", topic, *format_args]
        return argv

    def drain(self):
        """kcat reads the same topic, and its output goes nowhere."""
        started = time.perf_counter()
        with open(os.devnull, "wb") as nowhere:
            subprocess.run(self.kcat(TOPIC), check=True, stdin=subprocess.DEVNULL, stdout=nowhere)
        return time.perf_counter() - started


def measure_throughput(bench, log="disclosure-{partition}", goal=0.5, name="throughput"):
    """From one broker until durable, and the same topic read by kcat."""
    messages, peaks = bench.args.messages, []

    def sporlog(run):
        ran = bench.consume(f"{name}-{run}", TOPIC, log, messages)
        peaks.append(ran.peak_bytes)
        return messages / ran.seconds

    runs = take_turns(bench.args.runs, {"sporlog": sporlog, "kcat": lambda _: messages / bench.drain()})
    for who, results in runs.items():
        say(f"  {who}: {', '.join(f'{r:,.0f}' for r in results)}")
    speed = {who: median(results) for who, results in runs.items()}
    if goal:
        bench.speed = speed["sporlog"]
    what = f"{messages:,} messages of {bench.each:,.0f} bytes, {'a log for each partition' if goal else 'one log'}"
    note = f"{speed['sporlog'] * bench.each / MB:,.0f} MB/s; at most {max(peaks) / MB:,.0f} MB resident"
    yield Figure(
        name, what, "/s", speed["sporlog"], "kcat", speed["kcat"], speed["sporlog"] / speed["kcat"], "as fast",
        goal, of_ratio=True, at_least=True, runs=runs, note=note,
    )  # fmt: skip


def measure_single(bench):
    """The same with one log for all partitions; there is no goal."""
    yield from measure_throughput(bench, "disclosure", None, "single")


def measure_transactions(bench):
    """A message at a time, each in its own transaction of PostgreSQL's."""
    import psycopg  # noqa: F401  it has to be there

    if not hasattr(bench, "speed"):
        list(measure_throughput(bench))
    postgres = bench.stack.enter_context(Postgres(bench.place))
    count = min(bench.args.messages, 20_000)
    fields = ("person", "mottaker", "tema", "behandlingsGrunnlag", "uthentingsTidspunkt", "leverteData")
    columns = ", ".join(f'"{field}" text' for field in fields)
    postgres.execute(f"CREATE TABLE disclosure (id bigserial PRIMARY KEY, {columns})")
    postgres.execute('CREATE INDEX ON disclosure ("person")')
    names = ", ".join(f'"{field}"' for field in fields)
    insert = f"INSERT INTO disclosure ({names}) VALUES ({', '.join(['%s'] * len(fields))})"
    argv = bench.kcat(TOPIC, ["-u", "-c", str(count), "-X", "queued.min.messages=1"])
    started = time.perf_counter()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            record = json.loads(line)
            # The connection commits each statement by itself.
            postgres.connection.execute(insert, [record[field] for field in fields], prepare=True)
    theirs = count / (time.perf_counter() - started)
    if postgres.rows("disclosure") != count:
        raise RuntimeError(f"{postgres.rows('disclosure')} of {count} rows")
    what = f"the same, against a transaction for each of {count:,} messages"
    yield Figure(
        "transactions", what, "/s", bench.speed, "PostgreSQL", theirs, bench.speed / theirs, "as fast", 50,
        of_ratio=True, at_least=True,
    )  # fmt: skip


def measure_memory(bench):
    """The most memory resident at once while a large backlog is taken in."""
    times = max(1, round(bench.args.backlog * GB / bench.bytes))
    say(f"  making a backlog of {times * bench.bytes / GB:.1f} GB")
    bench.broker.produce("backlog", bench.file, times)
    runs = {}
    for log in ("disclosure-{partition}", "disclosure"):
        ran = bench.consume(f"memory-{len(runs)}", "backlog", log, times * bench.args.messages)
        runs[log] = [ran.peak_bytes / MB]
        say(f"  {log}: {ran.peak_bytes / MB:,.0f} MB in {ran.seconds:,.0f} s")
    what = f"peak memory, a backlog of {times * bench.bytes / GB:.1f} GB"
    note = ", ".join(f"{log}: {peak[0]:,.0f} MB" for log, peak in runs.items())
    yield Figure("memory", what, "MB", max(peak[0] for peak in runs.values()), goal=512, runs=runs, note=note)


def main():
    args = parse_args()
    program = (args.program or prepare.target_folder(None) / "release/sporlog").resolve()
    if not os.access(program, os.X_OK):
        raise prepare.CannotBegin(f"{program} is missing; `make release` builds it")
    if not shutil.which("kcat"):
        prepare.install("kcat", "kcat is not there")
    if "transactions" in args.only:
        prepare.postgresql()
    fetched = subprocess.run([prepare.HERE.parent / "tests/kafka/fetch"], check=True, stdout=subprocess.PIPE, text=True)
    jars = fetched.stdout.strip().splitlines()[-1]
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(130))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Workplace(args.dir))
        about = place.machine(Sporlog(program, None))
        broker = stack.enter_context(Broker(place, jars))
        measures = {
            "throughput": measure_throughput,
            "single": measure_single,
            "transactions": measure_transactions,
            "memory": measure_memory,
        }
        at_scale = args.messages >= 1_000_000 and args.backlog >= 5
        return measure_all(Bench(args, place, program, broker, stack), measures, about, at_scale)


if __name__ == "__main__":
    end_with(main)
