#!/usr/bin/env python3
"""Starts and stops private PostgreSQL and Redis servers of this checkout.

Servers named by DATABASE_URL and REDIS_URL are used as they are. POSTGRES_MAJOR selects a major version of PostgreSQL.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from services.browser import find_or_install_axe, install_browser
from services.instance import KINDS, Instance
from services.paths import data_dir, instances_dir
from services.pooler import find_or_install_pgbouncer, find_pgbouncer


def run(name: str, command: list[str]) -> int:
    """Runs a command with a new instance, which is removed afterwards; returns the command's exit status."""
    instance = Instance(name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    try:
        environment = {**os.environ, **instance.up(), "SERVICES_INSTANCE": name}
        return subprocess.run(command, env=environment).returncode
    except KeyboardInterrupt:
        return 130
    finally:
        instance.remove()


def clean() -> None:
    """Stops every instance of this checkout and deletes all data and tools."""
    for directory in instances_dir().glob("*"):
        Instance(directory.name).down(mode="immediate")
    shutil.rmtree(data_dir(), ignore_errors=True)


def print_environment(environment: dict[str, str]) -> None:
    for variable, value in environment.items():
        print(f"{variable}={value}")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="services", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = arguments.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def add(verb: str, text: str, *, has_name: bool = True, has_kinds: bool = False) -> argparse.ArgumentParser:
        subparser = verbs.add_parser(verb, help=text, description=text)
        if has_name:
            subparser.add_argument("name", help="name of the instance")
        if has_kinds:
            subparser.add_argument("kinds", nargs="*", metavar="postgres|redis", help="servers (default: both)")
        return subparser

    add("up", "start an instance and print its settings; a running server stays as it is", has_kinds=True)
    run_parser = add("run", "start an instance, run a command with its DATABASE_URL and REDIS_URL, remove the instance")
    run_parser.usage = "services run NAME -- COMMAND..."
    replica = add("replica", "start a streaming replica of an instance's PostgreSQL and print its settings")
    replica.add_argument("replica", nargs="?", help="name of the replica's instance (default: NAME-replica)")
    for verb, text in [("restart", "stop and start servers"), ("down", "stop servers; their data stays")]:
        subparser = add(verb, text, has_kinds=True)
        mode = subparser.add_mutually_exclusive_group()
        mode.add_argument("--immediate", dest="mode", action="store_const", const="immediate", help="as in a crash")
        mode.add_argument("--kill", dest="mode", action="store_const", const="kill", help="SIGKILL to every process")
        subparser.set_defaults(mode="fast")
    add("remove", "stop an instance and delete its data")
    add(
        "browser",
        "install Chromium, ChromeDriver and axe-core when possible and print the path of axe-core",
        has_name=False,
    )
    pooler = add("pooler", "install PgBouncer for the tests when possible and print its path", has_name=False)
    pooler.add_argument("--installed", action="store_true", help="install nothing")
    add("clean", "stop every instance of this checkout and delete all data and tools", has_name=False)
    return arguments


def main() -> int:
    own, command = sys.argv[1:], []
    if "--" in own:
        end = own.index("--")
        own, command = own[:end], own[end + 1 :]
    arguments = parser().parse_args(own)
    kinds = getattr(arguments, "kinds", None) or KINDS
    if unknown := set(kinds) - set(KINDS):
        parser().error(f"unknown servers: {', '.join(sorted(unknown))}")
    if arguments.verb == "run" and not command:
        parser().error("run needs a command: services run NAME -- COMMAND...")
    match arguments.verb:
        case "up":
            print_environment(Instance(arguments.name).up(kinds))
        case "run":
            return run(arguments.name, command)
        case "replica":
            replica = Instance(arguments.replica or arguments.name + "-replica")
            print_environment(replica.up_as_replica_of(Instance(arguments.name)))
        case "down":
            Instance(arguments.name).down(kinds, arguments.mode)
        case "restart":
            instance = Instance(arguments.name)
            instance.down(kinds, arguments.mode)
            instance.up()
        case "remove":
            Instance(arguments.name).remove()
        case "browser":
            install_browser()
            print(find_or_install_axe() or "")
        case "pooler":
            print((find_pgbouncer() if arguments.installed else find_or_install_pgbouncer()) or "")
        case "clean":
            clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())
