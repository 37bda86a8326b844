"""Running commands, and looking at processes through /proc."""

import contextlib
import fcntl
import os
import pwd
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .output import fail

START_TIMEOUT_SECONDS = 30


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Holds the lock of this file, which is created, during the block; waits while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_captured(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command without raising an error for its exit status; its output is captured as text."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def server_user() -> dict[str, Any]:
    """Returns the `subprocess` options that run a server as an unprivileged user.

    PostgreSQL refuses to run as root, and Redis has no need to.
    """
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    fail("running as root, and neither the user postgres nor nobody exists to run the servers as")


def give_to_server_user(path: Path) -> None:
    """Changes the owner of a file or directory to the user that runs the servers."""
    if user := server_user():
        os.chown(path, user["user"], user["group"])


def owned_dir(parent: Path, name: str) -> Path:
    """Creates a directory that only the servers' user can read."""
    directory = parent / name
    directory.mkdir(mode=0o700, exist_ok=True)
    give_to_server_user(directory)
    return directory


def major_version(binary: str | Path) -> int:
    """Returns the major version that a PostgreSQL, Redis or Valkey binary prints, or 0."""
    found = re.search(r"(?:PostgreSQL\)|v=) ?(\d+)", run_captured([binary, "--version"]).stdout)
    return int(found.group(1)) if found else 0


def state_and_parent(pid: int) -> tuple[str, int] | None:
    """Returns the state and the parent of a process, or `None` when it does not exist."""
    with contextlib.suppress(OSError):
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return state, int(parent)
    return None


def children_of(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if (found := state_and_parent(pid)) and found[1] == parent]


def is_alive(pid: int) -> bool:
    """Returns whether a process exists and is not a zombie."""
    found = state_and_parent(pid)
    return found is not None and found[0] not in "ZX"
