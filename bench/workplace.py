"""Where measuring takes place: a folder of its own, processes with their time and memory, turns."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from prepare import HERE, CannotBegin

MB = 1_000_000
GB = 1_000 * MB


def say(text):
    print(text, file=sys.stderr, flush=True)


def end_with(main):
    """Ends this program as `main` says: 2 if it could not begin, 130 after Ctrl-C."""
    try:
        sys.exit(main())
    except CannotBegin as error:
        say(f"bench: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass
class Ran:
    """What a process took."""

    seconds: float
    peak_bytes: int
    stdout: str


class Workplace:
    """A new folder, gone at the end. Nothing is deleted in between: file systems are slow at making
    files for a while after many were removed, and whoever is measured next would pay for it."""

    def __init__(self, parent):
        self.parent = parent.resolve() if parent else Path(tempfile.gettempdir())

    def __enter__(self):
        self.parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="sporlog-bench-", dir=self.parent))
        self.path.chmod(0o755)  # PostgreSQL's user has to get in
        self.processes = 0
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def __truediv__(self, name):
        return self.path / name

    def run(self, argv, codes=(0,)):
        """Runs to the end; the time is from starting the process until it has ended."""
        self.processes += 1
        out, err = (self.path / f"{self.processes}.{end}" for end in ("out", "err"))
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SPORLOG_")}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started = time.perf_counter()
            process = subprocess.Popen(argv, cwd=self.path, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:  # we are told to stop: so is it
                process.kill()
                process.wait()
                raise
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            told = err.read_text(errors="replace").strip()[-2000:]
            raise RuntimeError(f"{' '.join(map(str, argv))} ended with {process.returncode}: {told}")
        return Ran(seconds, usage.ru_maxrss * 1024, out.read_text())

    def free(self):
        return shutil.disk_usage(self.path).free

    def file_system(self):
        """Of the mount that the folder is on."""
        mounts = (line.split()[:3] for line in Path("/proc/mounts").read_text().splitlines())
        within = [(len(at), device, kind) for device, at, kind in mounts if self.path.is_relative_to(at)]
        _, device, kind = max(within)
        return f"{kind} on {device}"

    def fsync_ms(self):
        """What the disk takes to make 4 KB durable, at the median."""
        times = []
        with (self.path / "fsync").open("wb", buffering=0) as file:
            for _ in range(100):
                started = time.perf_counter()
                file.write(bytes(4096))
                os.fsync(file.fileno())
                times.append(time.perf_counter() - started)
        return sorted(times)[len(times) // 2] * 1e3

    def machine(self, program):
        cpus = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False)
        return {
            "cpu": cpus[0] if cpus else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB, 1),
            "kernel": platform.release(),
            "file_system": self.file_system(),
            "fsync_4k_ms": round(self.fsync_ms(), 3),
            "load_average_before": os.getloadavg()[0],
            "sporlog": self.run([program.path, "--version"]).stdout.strip(),
            "commit": git.stdout.strip() or None,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def settle():
    """Nobody has to write out what somebody else has left behind."""
    os.sync()


def read_once(path):
    """Has the file, or all files of the folder, in the page cache."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    buffer = bytearray(8 << 20)
    for name in files:
        with name.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def take_turns(runs, contenders):
    """Runs each contender `runs` times, in turns, and never the same one first twice in a row.

    A contender is called with the number of the run. Gives each one's list of results.
    """
    names = list(contenders)
    results = {name: [] for name in names}
    for run in range(runs):
        first = run % len(names)
        for name in names[first:] + names[:first]:
            settle()
            results[name].append(contenders[name](run))
    return results


def size_of(folder):
    """The apparent size of all files in it."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
