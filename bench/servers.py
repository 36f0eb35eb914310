"""The servers that are asked over HTTP: Sporlog's, and a handler of three lines before PostgreSQL."""

import json
import os
import re
import subprocess
import time
import urllib.request
from pathlib import Path

from sporlog import options

LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """A process that listens on a free port, which it says on standard error."""

    def __init__(self, place, name, argv, headers=()):
        self.place, self.name, self.argv = place, name, argv
        # Which every request has.
        self.headers = headers

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.place.processes += 1
        self.err = self.place / f"{self.place.processes}-{self.name}.err"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SPORLOG_")}
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                list(map(str, self.argv)), cwd=self.place.path, env=environ,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
        try:
            self.url = self.wait_for_url()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_for_url(self):
        for _ in range(600):
            told = self.err.read_text(errors="replace")
            if found := LISTENING.search(told):
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not listen: {told[-2000:]}")

    def get(self, path):
        """What is answered there, read as JSON."""
        request = urllib.request.Request(self.url + path, headers=dict(h.split(": ") for h in self.headers))
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def cpu_seconds(self):
        """Processor time that the process has taken so far."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / TICK

    def memory(self):
        """Bytes that are resident now, and the most that ever were."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return tuple(1024 * int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) for name in ("VmRSS", "VmHWM"))

    def rest(self, limit=60):
        """Waits until nothing goes on in the background any more, so that nobody else pays for it."""
        deadline, before = time.monotonic() + limit, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self.cpu_seconds()
            if now - before < 0.05:
                return
            before = now


def sporlog(place, program, store, settings=""):
    """With its defaults but for these settings, and a key for all that there is."""
    config = place / f"sporlog-{place.processes}.toml"
    config.write_text(settings)
    key = json.loads(program.command(place, store, "apikey", "create", "--name", "bench", "--role", "admin").stdout)
    argv = [program.path, *options(store), "--config", config, "serve", "--listen", "127.0.0.1:0"]
    return Server(place, "sporlog", argv, (f"ApiKey: {key['key']}",))


def baseline(place, program, postgres, pool, page, headers):
    """`headers` are Sporlog's, so that both have the same to read."""
    return Server(place, "baseline", [program, postgres.home, pool, page], headers)
