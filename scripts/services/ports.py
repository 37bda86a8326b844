"""TCP ports for private servers.

A port that was free when it was chosen may be taken before the server binds it. Servers are therefore started in a loop
that chooses another port after a conflict.
"""

import contextlib
import secrets
import socket
from collections.abc import Callable

# Below the ports that the kernel assigns to clients (from 32768): a client that reconnects while its server restarts
# could otherwise be assigned the server's own port and connect to itself.
FIRST_PORT, LAST_PORT = 15000, 29999
MAX_ATTEMPTS = 10


def free_port() -> int:
    """Returns a random port of the loopback address on which no socket listens."""
    while True:
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT + 1)
        if is_port_free(port):
            return port


def is_port_free(port: int) -> bool:
    """Returns whether no socket listens on a port of the loopback address.

    The probe sets SO_REUSEADDR and does not listen, so it does not disturb a server that starts at the same moment.
    """
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def start_on_port(port: int, start: Callable[[int], bool]) -> int | None:
    """Starts a server on `port` (0: any), or on another port after a conflict, and returns the port.

    Returns `None` when the server fails to start although its port is free.
    """
    for _ in range(MAX_ATTEMPTS):
        port = port or free_port()
        if start(port):
            return port
        if is_port_free(port):
            break
        port = 0
    return None
