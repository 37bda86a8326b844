"""Messages on standard error."""

import sys
from typing import NoReturn


def log(message: str) -> None:
    print(f"services: {message}", file=sys.stderr, flush=True)


def fail(message: str) -> NoReturn:
    """Exits with status 1 and a message."""
    sys.exit(f"services: {message}")
