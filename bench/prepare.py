"""What has to be there before anything is measured: the builds, Python packages, PostgreSQL."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = Path.home() / ".cache/sporlog-bench"
POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
# Tells Debian's packages not to make and start a database of their own.
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/sporlog-bench.conf")


class CannotBegin(Exception):
    """Something is missing; the text says what to do."""


def enter_environment():
    """Goes on in the Python environment that has the packages of requirements.txt."""
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        return
    try:
        python = environment()
    except CannotBegin as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
    os.execv(python, [str(python), *sys.argv])


def environment():
    requirements = HERE / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python, stamp = ENVIRONMENT / "bin/python", ENVIRONMENT / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == digest and python.exists():
        return python
    print(f"bench: installing {', '.join(requirements.read_text().split())} into {ENVIRONMENT}", file=sys.stderr)
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], **quiet)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", requirements], **quiet)
    except subprocess.CalledProcessError as error:
        raise CannotBegin(f"the Python packages could not be installed ({error}); is python3-venv there?") from None
    stamp.write_text(digest)
    return python


def target_folder(target):
    return target or Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache/sporlog-target")


def binaries(target):
    """The program and the tool that measures within one process, both as `make release` builds them."""
    target = target_folder(target)
    found = [target / "release/sporlog", target / "release/examples/measure"]
    for path in found:
        if not os.access(path, os.X_OK):
            raise CannotBegin(f"{path} is missing; `make release` builds it")
    return found


def baseline(target):
    """The server before PostgreSQL that Sporlog's is measured against, built here."""
    folder = target_folder(target).resolve() / "bench-baseline"
    print(f"bench: building the baseline's server in {folder}", file=sys.stderr)
    manifest = HERE / "baseline/Cargo.toml"
    argv = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", manifest, "--target-dir", folder]
    try:
        subprocess.run(argv, stdout=sys.stderr, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBegin(f"the baseline's server could not be built: {error}") from None
    return folder / "release/sporlog-bench-baseline"


def wrk():
    """The load generator, installed where it is missing."""
    if not shutil.which("wrk"):
        install("wrk", "wrk is not there")


def postgresql():
    """PostgreSQL 15, installed where it is missing. Nothing of an existing one is used or changed."""
    if (POSTGRES_BIN / "initdb").exists():
        return
    try:
        if os.geteuid() == 0:
            NO_CLUSTER.parent.mkdir(parents=True, exist_ok=True)
            NO_CLUSTER.write_text("create_main_cluster = false\n")
        install("postgresql-15", f"PostgreSQL 15 is not in {POSTGRES_BIN}")
    finally:
        NO_CLUSTER.unlink(missing_ok=True)


def install(package, missing):
    """A package of Debian's."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise CannotBegin(f"{missing}; on Debian: apt-get install {package}")
    print(f"bench: installing {package}", file=sys.stderr)
    try:
        for command in (["update"], ["install", "-y", package]):
            environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", "-qq", *command], env=environ, stdout=sys.stderr, check=True)
    except subprocess.CalledProcessError as error:
        raise CannotBegin(f"{package} could not be installed: {error}") from None
