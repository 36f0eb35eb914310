#!/usr/bin/env python3
"""Measures the exchange over SFTP against OpenSSH's own server and DuckDB; see sftp.md.

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
import tempfile
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True  # nothing is to be left in the checkout

import prepare

prepare.enter_environment()

import openssh
from data import rows_of
from duck import DuckDB
from figures import Figure, measure_all
from servers import Server
from sporlog import Sporlog
from workplace import GB, MB, Workplace, end_with, read_once, say, settle, take_turns

# None is what the client takes by itself.
CIPHERS = {"upload": None, "upload-gcm": "aes128-gcm@openssh.com", "download": None, "download-gcm": "aes128-gcm@openssh.com"}
ALL = (*CIPHERS, "delivery", "collect", "memory")
SUPPLIER, MUNICIPALITY, CVR = "leverandoer", "kommune", "64942212"
# Bytes of a row, about.
ROW = 724
# How often it is looked whether the receipt is there.
POLL = 0.01


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/sftp.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bytes", type=int, help="of the file that is moved (default: 1000000000)")
    parser.add_argument("--delivery", type=int, help="bytes of the file that is delivered (default: just below 2147483648)")
    parser.add_argument("--rows", type=int, help="rows that are collected from (default: 10000000)")
    parser.add_argument("--quick", action="store_true", help="see that it works: 50 MB, 100 MB, 300000 rows")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="just these of " + ", ".join(ALL))
    parser.add_argument("--dir", type=Path, help="work below this folder (default: $TMPDIR or /tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file, too")
    parser.add_argument("--program", type=Path, help="the program (default: the release build)")
    args = parser.parse_args()
    args.bytes = args.bytes or (50 * MB if args.quick else GB)
    args.delivery = args.delivery or (100 * MB if args.quick else 2 << 30)
    args.rows = args.rows or (300_000 if args.quick else 10_000_000)
    args.runs = 3
    args.only = args.only.split(",") if args.only else list(ALL)
    for name in args.only:
        if name not in ALL:
            parser.error(f"there is no measurement '{name}': {', '.join(ALL)}")
    return args


def room_needed(args):
    """Bytes on the disk: the file and a copy, a delivery and the log of all of them, the store and what is collected
    of it, by one at a time."""
    return 4 * args.bytes + 5 * args.delivery + args.rows * 1_200 + GB


class Bench:
    def __init__(self, args, place, program, tools, stack):
        self.args, self.place, self.program, self.stack = args, place, program, stack
        self.duckdb = DuckDB(place)
        self.openssh = tools
        self.keys = {name: openssh.make_key(tools, place / name) for name in (SUPPLIER, MUNICIPALITY)}
        # The most memory that each process had resident, by what it did.
        self.peaks = {}

    @contextlib.contextmanager
    def serve(self, name, more=""):
        """`sporlog serve` with a new store, a supplier and a municipality."""
        port, store = openssh.free_port(), self.place / name
        config = self.place / f"{name}.toml"
        text = f'store = "{store}"\n[sftp]\nlisten = "127.0.0.1:{port}"\ncollect_at = "never"\n{more}\n'
        for account, role in ((SUPPLIER, 'role = "supplier"'), (MUNICIPALITY, f'role = "municipality"\ncvr = ["{CVR}"]')):
            key = self.keys[account].with_suffix(".pub").read_text().strip()
            text += f'[[sftp.account]]\nname = "{account}"\n{role}\nkeys = ["{key}"]\n'
        config.write_text(text)
        argv = [self.program.path, "--config", config, "serve", "--listen", "127.0.0.1:0"]
        with Server(self.place, name, argv) as server:
            server.port, server.accounts = port, store / "exchange/accounts"
            openssh.wait_for(port, server.process, server.err)
            try:
                yield server
            finally:
                self.peaks[name] = max(self.peaks.get(name, 0), server.memory()[1] / MB)
        if "panicked" in server.err.read_text(errors="replace"):
            raise RuntimeError(f"{name} panicked: {server.err.read_text(errors='replace')[-2000:]}")

    def sample(self, size, name, seed=1):
        """A file of valid rows, just below so many bytes, and how many rows it has."""
        # Rows differ a little from sample to sample.
        rows, csv = int(size * 0.998 / ROW), self.place / name
        while True:
            argv = [self.program.path, "sample", "revision", "--records", str(rows), "--faulty", "0"]
            self.place.run([*argv, "--seed", str(seed), "--out", csv, "--force"])
            if csv.stat().st_size < size:
                read_once(csv)
                return csv, rows
            rows = int(rows * 0.995 * size / csv.stat().st_size)

    def client(self, account):
        return openssh.Client(self.place, self.openssh, self.keys[account])

    def turns(self, **contenders):
        runs = take_turns(self.args.runs, contenders)
        for name, results in runs.items():
            say(f"  {name}: {', '.join(f'{r:.4g}' for r in results)}")
        return runs, {name: median(results) for name, results in runs.items()}

    @property
    def moved(self):
        """The file that is moved, and both servers with it in their folders."""
        if not hasattr(self, "_moved"):
            say(f"making a file of {self.args.bytes / GB:.2f} GB")
            file, _ = self.sample(self.args.bytes, "moved.csv")
            folder = self.place / "openssh"
            # Nothing is taken while others are timed.
            ours = self.stack.enter_context(self.serve("transfers", "settle_seconds = 86400"))
            (folder / "ind").mkdir(parents=True)
            month = "ud/" + time.strftime("%Y-%m")
            name = f"{month}/revisionslog_{CVR}_{time.strftime('%Y-%m')}-01_01.csv"
            for home in (folder, ours.accounts / MUNICIPALITY):
                (home / month).mkdir(parents=True, exist_ok=True)
                # The very same file, so that both have it in the page cache.
                os.link(file, home / name)
            theirs = self.stack.enter_context(openssh.Sshd(self.place, self.openssh, folder, self.keys.values()))
            self._moved = file, name, ours, theirs
        return self._moved


def peers(bench, account):
    """Where the two are reached: port, user, and the account's folder."""
    _, _, ours, theirs = bench.moved
    return {
        "sporlog": (ours.port, account, ours.accounts / account),
        "OpenSSH": (theirs.port, theirs.user, bench.place / "openssh"),
    }


def measure_transfer(bench, name):
    """A file moved by OpenSSH's client: the whole process."""
    file, remote, ours, _ = bench.moved
    size, cipher = file.stat().st_size, CIPHERS[name]
    up = name.startswith("upload")
    account = SUPPLIER if up else MUNICIPALITY
    client, servers = bench.client(account), peers(bench, account)
    agreed = {who: client.cipher(port, user) for who, (port, user, _) in servers.items()}
    if cipher is None and len(set(agreed.values())) != 1:
        raise RuntimeError(f"the ciphers differ: {agreed}")
    cpu = []

    def put(who, run):
        port, user, home = servers[who]
        target = home / f"ind/{name}-{run}.csv"
        ran = client.run(port, user, [f"put {file} ind/{target.name}"], cipher)
        arrived = next((found for found in home.rglob(target.name) if found.is_file()), None)
        if arrived is None or arrived.stat().st_size != size:
            raise RuntimeError(f"{who} has not got all of {target.name}")
        arrived.unlink()
        return ran.seconds

    def get(who, run):
        port, user, _ = servers[who]
        target = bench.place / f"fetched-{run}.csv"
        ran = client.run(port, user, [f"get {remote} {target}"], cipher)
        if target.stat().st_size != size:
            raise RuntimeError(f"{who} has not sent all of {remote}")
        target.unlink()
        return ran.seconds

    def contender(who):
        def run(number):
            before = ours.cpu_seconds()
            seconds = (put if up else get)(who, number)
            if who == "sporlog":
                cpu.append(ours.cpu_seconds() - before)
            return size / MB / seconds

        return run

    runs, speed = bench.turns(**{("sporlog" if who == "sporlog" else "openssh"): contender(who) for who in servers})
    ratio = speed["sporlog"] / speed["openssh"]
    what = f"{'upload' if up else 'download'} of {size / GB:.2f} GB, {(cipher or agreed['sporlog']).split('@')[0]}"
    note = f"{median(cpu):.2f} s of the server's processor time at the median"
    if up:
        note += "; the file is taken only after the measurement"
    yield Figure(
        name, what, "MB/s", speed["sporlog"], "internal-sftp", speed["openssh"], ratio, "as fast", 0.8,
        of_ratio=True, at_least=True, runs=runs, note=note,
    )  # fmt: skip


def deliver(bench, server, client, csv, name, by_rename):
    """Seconds from the last byte to the receipt, and from the client's end to it."""
    home = server.accounts / SUPPLIER
    receipt = home / f"kvittering/{name}.kvittering.json"
    commands = [f"put {csv} ind/{name}"]
    if by_rename:
        commands = [f"put {csv} ind/{name}.part", f"rename ind/{name}.part ind/{name}"]
    settle()
    size, written, ended = csv.stat().st_size, None, None
    argv = client.argv(server.port, SUPPLIER, commands, "-q")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 900
        while not receipt.exists():
            if time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"{name} has no receipt")
            if ended is None and process.poll() is not None:
                ended = time.time()
                if process.returncode:
                    raise RuntimeError(f"{name} was not delivered")
            if (last := last_write(home, size)) is not None:
                written = last
            time.sleep(POLL)
        seen = time.time()
    ended = ended or seen
    # What is done between the last byte and the answer to it counts, too.
    return seen - min(written or ended, ended), seen - ended, json.loads(receipt.read_text())


def last_write(home, size):
    """When the last byte of a file that is all there was written, wherever it lies by now."""
    for folder in ("ind", ".sporlog/uploads", ".sporlog/taken"):
        for path, _, names in os.walk(home / folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(os.path.join(path, name))
                    if status.st_size == size:
                        return status.st_mtime
    return None


def measure_delivery(bench):
    """A file as large as may be: from its last byte to the receipt."""
    seconds, after, parts = {}, {}, {}
    with bench.serve("deliveries") as server:
        client = bench.client(SUPPLIER)
        for run in range(bench.args.runs):
            for at, way in enumerate(("put", "rename")):
                # Another one each time: the same would be a repeated delivery.
                csv, rows = bench.sample(bench.args.delivery, "delivered.csv", seed=100 + 2 * run + at)
                took, ended, receipt = deliver(bench, server, client, csv, f"{way}-{run}.csv", way == "rename")
                if receipt["outcome"] != "accepted" or receipt["accepted"] != rows or receipt["quarantined"]:
                    raise RuntimeError(f"of {rows} rows, {receipt['accepted']} were accepted: {receipt['outcome']}")
                say(f"  {way}: {took:.2f} s, {ended:.2f} s after the client's end, {receipt['seconds']:.2f} s by the receipt")
                seconds.setdefault(way, []).append(took)
                after.setdefault(way, []).append(ended)
                parts.setdefault(way, []).append(receipt["seconds"])
                # So that nobody pays for merging what came before.
                server.rest()
        size = csv.stat().st_size
    for way, says in (("put", "put, settling as by default"), ("rename", "put as .part, then renamed")):
        note = (
            f"{median(after[way]):.2f} s after the client's end, {median(parts[way]):.2f} s after it was taken "
            f"(medians); {', '.join(f'{s:.2f}' for s in seconds[way])} s"
        )
        yield Figure(
            f"delivery-{way}", f"{size / GB:.2f} GB {says}: from the last byte to the receipt", "s",
            median(seconds[way]), goal=10, runs={way: seconds[way]}, note=note,
        )  # fmt: skip


def large_store(bench):
    """A store with the rows that are collected, and the day that they were received on."""
    args, store, parts = bench.args, bench.place / "collected", 10
    say(f"making and importing {args.rows:,} rows, in {parts} files")
    # All of them have to be received on one day.
    if time.gmtime().tm_hour == 23 and not args.quick:
        raise RuntimeError("it is shortly before midnight (UTC), and all rows have to be received on one day: begin later")
    argv = [bench.program.path, *bench.program.sample_args(args.rows, days=parts)]
    days = set()
    with subprocess.Popen(argv, cwd=bench.place.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as sample:
        header, rows = sample.stdout.readline(), rows_of(sample.stdout)
        each = -(-args.rows // parts)
        left = args.rows
        while left:
            part, csv = min(each, left), bench.place / "part.csv"
            with csv.open("wb") as file:
                file.write(header)
                for _ in range(part):
                    file.write(next(rows))
            _, receipt = bench.program.import_revision(bench.place, store, csv, part)
            days.add(receipt["receivedAt"][:10])
            left -= part
    if len(days) != 1:
        raise RuntimeError(f"the rows were received on several days: {days}")
    return store, days.pop()


def measure_collect(bench):
    """Every municipality's files of one day: the whole process, against DuckDB's statement alone."""
    store, day = large_store(bench)
    parquet = store / "logs/revision/table"
    told, _ = bench.duckdb.ask("organisations", table=parquet)
    numbers = told["organisations"]
    read_once(parquet)
    columns = None

    def sporlog(run):
        nonlocal columns
        root, config = bench.place / f"collected-{run}", bench.place / f"collected-{run}.toml"
        text = f'store = "{store}"\n[sftp]\nroot = "{root}"\n'
        for cvr in numbers:
            text += f'[[sftp.account]]\nname = "kommune-{cvr}"\nrole = "municipality"\ncvr = ["{cvr}"]\n'
        config.write_text(text)
        ran = bench.place.run([bench.program.path, "--quiet", "--json", "--config", config, "collect", "--date", day])
        bench.peaks["collect"] = max(bench.peaks.get("collect", 0), ran.peak_bytes / MB)
        files = sorted(root.rglob("revisionslog_*.csv"))
        if len({file.name.split("_")[1] for file in files}) != len(numbers):
            raise RuntimeError(f"there are files of {len(files)} municipalities, and {len(numbers)} have rows")
        with files[0].open("rb") as file:
            columns = [name.strip('"') for name in file.readline().decode().strip().split(",")]
        if run == 0:
            told, _ = bench.duckdb.ask("count", files=f"{root}/**/revisionslog_*.csv")
            if told["rows"] != bench.args.rows:
                raise RuntimeError(f"{told['rows']} of {bench.args.rows} rows were collected")
        shutil.rmtree(root)
        return ran.seconds

    def duckdb(run):
        out = bench.place / f"copied-{run}"
        told, _ = bench.duckdb.ask("partitions", table=parquet, columns=json.dumps(columns), out=out)
        if told["rows"] != bench.args.rows:
            raise RuntimeError(f"DuckDB copied {told['rows']} of {bench.args.rows} rows")
        bench.copied = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        shutil.rmtree(out)
        return told["seconds"]

    # The first run is ours, and says which columns it writes.
    runs, took = bench.turns(sporlog=sporlog, duckdb=duckdb)
    ratio = took["sporlog"] / took["duckdb"]
    what = f"collection of a day, {len(numbers)} municipalities, {bench.args.rows:,} rows"
    note = f"{bench.copied / GB:.2f} GB by DuckDB; at most {bench.peaks['collect']:,.0f} MB resident in ours"
    yield Figure(
        "collect", what, "s", took["sporlog"], "DuckDB", took["duckdb"], ratio, "the time", 3.0, of_ratio=True,
        runs=runs, note=note,
    )  # fmt: skip


def measure_memory(bench):
    """The most that any of the processes above had resident at once."""
    if hasattr(bench, "_moved"):
        bench.peaks["transfers"] = bench._moved[2].memory()[1] / MB
    if not bench.peaks:
        raise RuntimeError("nothing has been measured yet, so there is no memory to tell of")
    note = ", ".join(f"{name}: {peak:,.0f} MB" for name, peak in bench.peaks.items())
    yield Figure("memory", "peak memory during all of it", "MB", max(bench.peaks.values()), goal=512, note=note)


def main():
    args = parse_args()
    program = (args.program or prepare.target_folder(None) / "release/sporlog").resolve()
    if not os.access(program, os.X_OK):
        raise prepare.CannotBegin(f"{program} is missing; `make release` builds it")
    tools = openssh.fetch()
    parent = args.dir or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(parent).free, room_needed(args)
    if free < needed:
        raise prepare.CannotBegin(f"{parent} has {free / GB:.0f} GB free, and {needed / GB:.0f} GB are needed: use --dir")
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: sys.exit(130))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Workplace(args.dir))
        ours = Sporlog(program, None)
        about = place.machine(ours) | {end: openssh.version(tools / end) for end in ("sshd", "ssh")} | {"rows": args.rows}
        measures = {name: (lambda bench, name=name: measure_transfer(bench, name)) for name in CIPHERS}
        measures |= {"delivery": measure_delivery, "collect": measure_collect, "memory": measure_memory}
        at_scale = args.bytes >= GB and args.delivery >= 2 * GB and args.rows >= 10_000_000
        peers = f"{about['sshd']} and its client ({about['ssh']})"
        code = measure_all(Bench(args, place, ours, tools, stack), measures, about, at_scale, peers)
        say("clearing up")
    return code


if __name__ == "__main__":
    end_with(main)
