"""OpenSSH: its client, which everybody is measured with, and a server of its own as the peer.

The server is the one that the tests fetch, which is not installed. It runs as root in a mount namespace
of its own, in which alone there is the user that it wants to have.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from prepare import HERE, CannotBegin

# sshd gives up its rights before somebody has signed in, for those of this user.
USER = "sshd:x:22222:65534::/run/sshd:/usr/sbin/nologin"
IN_NAMESPACE = """
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/sshd
exec "$2" -D -e -f "$1/config"
"""


def fetch():
    """A folder with the client and the server."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise CannotBegin("an sshd of its own needs root, and unshare(1) for a namespace of its own")
    try:
        fetched = subprocess.run([HERE.parent / "tests/sftp/fetch"], check=True, stdout=subprocess.PIPE, text=True)
    except subprocess.CalledProcessError as error:
        raise CannotBegin(f"OpenSSH's server could not be fetched: {error}") from None
    return Path(fetched.stdout.strip().splitlines()[-1])


def version(tool):
    """What it calls itself; by some versions of the server with an error."""
    ran = subprocess.run([tool, "-V"], capture_output=True, text=True, check=False)
    return next((line.split(",")[0] for line in ran.stderr.splitlines() if line.startswith("OpenSSH")), "")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(port, process, log, seconds=30):
    """Until somebody answers there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody answers at port {port}: {log.read_text(errors='replace')[-2000:]}")


class Sshd:
    """OpenSSH's server, serving `folder` with its own `internal-sftp`."""

    def __init__(self, place, tools, folder, keys):
        self.home, self.tools, self.port, self.user = place / "sshd", tools, free_port(), "root"
        self.home.mkdir()
        make_key(tools, self.home / "host")
        (self.home / "passwd").write_text(f"{Path('/etc/passwd').read_text().rstrip()}\n{USER}\n")
        # Defaults otherwise, of ciphers above all.
        (self.home / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.home}/host\nPidFile none\nUsePAM no\n"
            f"StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            f"AuthorizedKeysFile {' '.join(f'{key}.pub' for key in keys)}\n"
            f"Subsystem sftp internal-sftp\nForceCommand internal-sftp -d {folder}\n"
        )

    def __enter__(self):
        log = self.home / "log"
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", IN_NAMESPACE, "sh", self.home, self.tools / "sshd"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )  # fmt: skip
        try:
            wait_for(self.port, self.process, log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


class Client:
    """OpenSSH's `sftp`, with its defaults."""

    def __init__(self, place, tools, key):
        self.place, self.tools, self.key, self.batches = place, tools, key, 0

    def argv(self, port, user, commands, *options):
        self.batches += 1
        batch = self.place / f"batch-{self.batches}"
        batch.write_text("".join(f"{command}\n" for command in commands))
        trusting = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes"]
        told = [word for option in trusting for word in ("-o", option)]
        # Nothing of whoever runs this.
        argv = [self.tools / "sftp", "-S", self.tools / "ssh", "-F", "none", *told, "-i", self.key, "-P", port]
        return list(map(str, [*argv, *options, "-b", batch, f"{user}@127.0.0.1"]))

    def run(self, port, user, commands, cipher=None):
        """The whole process, from its start to its end."""
        options = ["-q", *(["-c", cipher] if cipher else [])]
        return self.place.run(self.argv(port, user, commands, *options))

    def cipher(self, port, user):
        """The one that the two agree on."""
        ran = subprocess.run(self.argv(port, user, ["pwd"], "-v"), capture_output=True, text=True, check=False)
        said = [line for line in ran.stderr.splitlines() if "kex: client->server cipher:" in line]
        if ran.returncode or not said:
            raise RuntimeError(f"no connection to {user} at port {port}: {ran.stderr[-2000:]}")
        return said[-1].split("cipher: ")[1].split()[0]


def make_key(tools, file):
    subprocess.run([tools / "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", file.name, "-f", file], check=True)
    return file
