"""A named pair of servers of this checkout, with its data, passwords and ports in one directory."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection
from typing import TypedDict

from .output import fail, log
from .paths import instances_dir, write_private
from .postgres import Postgres, PostgresSettings, StopMode
from .processes import exclusive_lock
from .redis import Redis, RedisSettings

KINDS = ("postgres", "redis")
# the only instance whose data outlives a command
DURABLE_INSTANCE = "demo"


class Settings(TypedDict, total=False):
    """The content of an instance's settings.json."""

    postgres: PostgresSettings
    redis: RedisSettings
    demo: dict[str, str]


class Instance:
    """The servers called NAME of this checkout."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9-]{1,40}", name):
            fail(f"invalid instance name {name!r}: use 1 to 40 lower-case letters, digits and hyphens")
        self.name, self.directory = name, instances_dir() / name
        self.settings_file = self.directory / "settings.json"

    def settings(self) -> Settings:
        with contextlib.suppress(FileNotFoundError):
            settings: Settings = json.loads(self.settings_file.read_text())
            return settings
        return {}

    def save(self, settings: Settings) -> None:
        """Replaces settings.json atomically."""
        replacement = self.settings_file.with_suffix(".new")
        write_private(replacement, json.dumps(settings, indent=1))
        replacement.replace(self.settings_file)

    def postgres(self) -> Postgres:
        settings = self.settings().get("postgres")
        return Postgres(self.name, self.directory, settings, is_durable=self.name == DURABLE_INSTANCE)

    def redis(self) -> Redis:
        return Redis(self.name, self.directory, self.settings().get("redis"))

    def up(self, kinds: Collection[str] = KINDS) -> dict[str, str]:
        """Starts the servers that do not run, and returns the environment variables with their addresses and binaries.

        Servers named by the environment are not started.
        """
        environment = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL") if os.environ.get(name)}
        for name in environment:
            log(f"using {name} from the environment")
        with exclusive_lock(self.directory / "lock"):
            settings = self.settings()
            if "postgres" in kinds and "DATABASE_URL" not in environment:
                postgres = self.postgres()
                postgres.start()
                settings["postgres"] = postgres.settings
                self.save(settings)
                environment |= {"DATABASE_URL": postgres.url, "PG_BIN": postgres.settings["bin"]}
            if "redis" in kinds and "REDIS_URL" not in environment:
                redis = self.redis()
                redis.start()
                settings["redis"] = redis.settings
                self.save(settings)
                environment |= {"REDIS_URL": redis.url, "REDIS_BIN": redis.settings["bin"]}
            self.save(settings)
        return environment

    def up_as_replica_of(self, primary: "Instance") -> dict[str, str]:
        """Starts a streaming replica of another instance's PostgreSQL; that PostgreSQL is restarted.

        A PostgreSQL of this instance is stopped, and its data is replaced.
        """
        primary.up(["postgres"])
        primary.down(["postgres"])
        self.directory.mkdir(parents=True, exist_ok=True)
        replica = self.postgres()
        replica.stop("immediate")
        replica.copy_cluster_of(primary.postgres())
        self.save({**self.settings(), "postgres": replica.settings})
        primary.up(["postgres"])
        return self.up()

    def down(self, kinds: Collection[str] = KINDS, mode: StopMode = "fast") -> None:
        """Stops servers; their data stays."""
        if "postgres" in kinds:
            self.postgres().stop(mode)
        if "redis" in kinds:
            self.redis().stop(mode)

    def remove(self) -> None:
        """Stops the servers and deletes their data."""
        self.down(mode="immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
