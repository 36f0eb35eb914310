"""Tessera's server for a folder (its conformance server `posix`): a transparency log and nothing else, which keeps what
it is sent and proves that. Built from Go's module proxy, with a key made for the run."""

import base64
import hashlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from prepare import HERE, CannotBegin
from servers import Server

VERSION = "v1.0.4"
MODULE = "github.com/transparency-dev/tessera/cmd/conformance/posix"


def program():
    """Where the server is, built if it is not there."""
    folder = Path.home() / f".cache/sporlog-bench/tessera-{VERSION}"
    if not (folder / "posix").exists():
        try:
            subprocess.run([HERE.parent / "scripts/need", "go"], stdout=sys.stderr, check=True)
            environ = {**os.environ, "GOBIN": str(folder)}
            subprocess.run(["go", "install", f"{MODULE}@{VERSION}"], env=environ, stdout=sys.stderr, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CannotBegin(f"Tessera's server could not be built: {error}") from None
    return folder / "posix"


def server(place):
    """The server, with an empty log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    key = place / "tessera-key"
    key.write_text(make_key("bench"))
    argv = [program(), f"--storage_dir={place / 'tessera'}", f"--listen={address}", f"--private_key={key}"]
    return Tessera(place, "tessera", argv, address)


class Tessera(Server):
    """It does not say that it listens."""

    def __init__(self, place, name, argv, address):
        super().__init__(place, name, argv)
        self.address = address

    def wait_for_url(self):
        host, port = self.address.split(":")
        for _ in range(100):
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return f"http://{self.address}"
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not listen: {self.err.read_text(errors='replace')[-2000:]}")


def make_key(name):
    """A private key in the form of Go's signed notes: `PRIVATE+KEY+<name>+<hash>+<key>`."""

    def openssl(*args, of=None):
        return subprocess.run(["openssl", *args, "-outform", "DER"], input=of, capture_output=True, check=True).stdout

    pair = openssl("genpkey", "-algorithm", "ed25519")
    public, private = (b"\x01" + der[-32:] for der in (openssl("pkey", "-inform", "DER", "-pubout", of=pair), pair))
    key_hash = hashlib.sha256(name.encode() + b"\n" + public).hexdigest()[:8]
    return f"PRIVATE+KEY+{name}+{key_hash}+{base64.b64encode(private).decode()}"
