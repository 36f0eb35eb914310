"""Load from outside: wrk, which asks both servers for the same in the same way."""

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

from prepare import HERE


@dataclass
class Load:
    """What is asked for by so many clients at once, each of whom waits for its answer."""

    path: str
    clients: int
    # Of wrk's: each takes its share of the clients.
    threads: int
    # What load.lua is told.
    what: tuple = ("one",)
    headers: tuple = ()
    # The share of answers that may be refusals.
    refused: float = 0

    @contextmanager
    def begin(self, server, seconds):
        """Gives the process, which ends by itself; if we are stopped, so is it."""
        argv = ["wrk", "-t", self.threads, "-c", self.clients, "-d", f"{seconds}s", "--timeout", "30s"]
        for header in (*server.headers, *self.headers):
            argv += ["-H", header]
        argv += ["-s", HERE / "load.lua", server.url + self.path, "--", *self.what]
        process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def put_on(self, server, seconds):
        """For so long; gives what wrk says, and what a request took of the server's processor time."""
        before = server.cpu_seconds()
        with self.begin(server, seconds) as process:
            told = result(process, self.refused)
        told["cpu_us"] = (server.cpu_seconds() - before) / told["answers"] * 1e6
        return told


def result(process, refused=0):
    """What wrk counted. More answers other than 200 than may be `refused` are a failure of the measurement: these cost
    less."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"wrk ended with {process.returncode}: {out[-2000:]}")
    told = json.loads(out[out.rindex("\n{") :])
    if told["failed"] > refused * told["answers"] or not told["answers"]:
        raise RuntimeError(f"{told['failed']} requests failed, {told['answers']} were answered: {out[-2000:]}")
    told["per_second"] = told["answers"] / told["seconds"]
    return told
