"""Directories of this checkout's private servers and tools."""

import hashlib
import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def data_dir() -> Path:
    """Returns the directory of instances and tools: in the checkout or, for root, where the servers' user can read."""
    if os.geteuid() != 0:
        return CHECKOUT / ".services"
    return Path("/var/tmp") / ("testshop-" + hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12])


def instances_dir() -> Path:
    """Returns the directory that contains one directory per instance."""
    return data_dir() / "instances"


def tools_dir() -> Path:
    """Returns the directory that contains one virtual environment per group of PyPI packages."""
    return data_dir() / "tools"


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
