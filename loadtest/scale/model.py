"""A discrete-event simulation of a fleet on one PostgreSQL: version reads, leases, writes and the fills after them.

PostgreSQL is a queue that its processors serve in the order of arrival. Each instance has steady traffic, so a batch of
requests always waits for its readers. A write waits for the commit lock, and for leases as V13 of the schema says.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

# as in src/versions/lease.rs and src/versions/reader.rs
READERS = 2
QUIET_DURATIONS = 10
SAFE_SHARE = 0.9


class Costs(NamedTuple):
    """CPU time of PostgreSQL in seconds."""

    version_read: float
    leased_read: float
    write: float
    fill: float


class Setup(NamedTuple):
    """Times in seconds, writes per second."""

    instances: int
    lease: float
    writes: float
    round_trip: float = 0.001
    cores: int = 8


class Outcome(NamedTuple):
    """The share of PostgreSQL's processors in use, reads per second, the share of time under a lease, seconds."""

    load: float
    reads: float
    leased: float
    hit_wait: float
    write_median: float
    write_p99: float


@dataclass
class Instance:
    """What one server knows."""

    lease_until: float = 0.0
    not_before: float = 0.0
    is_renewing: bool = False
    is_filling: bool = False
    version: int = 0
    leased_time: float = 0.0


@dataclass
class Simulation:
    """Events in the order of time; `run` returns the outcome."""

    setup: Setup
    costs: Costs
    seconds: float
    now: float = 0.0
    events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    number: int = 0
    busy: float = 0.0
    reads: int = 0
    read_times: list[float] = field(default_factory=list)
    write_times: list[float] = field(default_factory=list)
    version: int = 0
    last_write: float = -1e9
    lock_free_at: float = 0.0
    has_tickets: bool = False

    def __post_init__(self) -> None:
        self.warm_up = self.seconds / 5
        self.random = random.Random(1)
        self.free_at = [0.0] * self.setup.cores
        self.fleet = [Instance() for _ in range(self.setup.instances)]

    def run(self) -> Outcome:
        self.at(self.warm_up, self.begin_measuring)
        for instance in self.fleet:
            for _ in range(READERS):
                self.at(self.random.random() * self.setup.round_trip, lambda instance=instance: self.read(instance))
        self.at(self.random.expovariate(self.setup.writes), self.write)
        while self.events and self.events[0][0] < self.seconds:
            self.now, _, event = heapq.heappop(self.events)
            event()
        return self.outcome()

    def begin_measuring(self) -> None:
        """Forgets the start, in which nobody has written yet."""
        self.busy, self.reads, self.read_times, self.write_times = 0.0, 0, [], []
        for instance in self.fleet:
            instance.leased_time = 0.0

    def outcome(self) -> Outcome:
        reads, writes = sorted(self.read_times), sorted(self.write_times) or [0.0]
        seconds = self.seconds - self.warm_up
        leased = sum(instance.leased_time for instance in self.fleet) / (seconds * self.setup.instances)
        # a request waits for the rest of a read and for the next one, unless it finds a lease
        wait = 1.5 * reads[len(reads) // 2] if reads else 0.0
        return Outcome(
            load=self.busy / (seconds * self.setup.cores),
            reads=self.reads / seconds,
            leased=min(leased, 1.0),
            hit_wait=(1 - min(leased, 1.0)) * wait,
            write_median=writes[len(writes) // 2],
            write_p99=writes[len(writes) * 99 // 100],
        )

    def at(self, time: float, event: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, event))

    def after_postgres(self, service: float, done: Callable[[], None]) -> None:
        """Sends a statement now; `done` runs in PostgreSQL at its end."""

        def arrive() -> None:
            start = max(heapq.heappop(self.free_at), self.now)
            heapq.heappush(self.free_at, start + service)
            self.busy += service
            self.at(start + service, done)

        self.at(self.now + self.setup.round_trip / 2, arrive)

    def read(self, instance: Instance) -> None:
        """A reader begins a version read, unless a lease makes it unnecessary."""
        began, lease = self.now, self.setup.lease
        is_held = began < instance.lease_until
        # one reader renews the lease at half time, the other one waits for its end
        renew_at = instance.lease_until - (0 if instance.is_renewing else (SAFE_SHARE - 0.5) * lease)
        if is_held and began < renew_at:
            self.at(renew_at, lambda: self.read(instance))
            return
        is_leased = lease > 0 and began >= instance.not_before and not instance.is_renewing
        instance.is_renewing |= is_leased
        self.reads += 1

        def execute() -> None:
            is_quiet = self.now - self.last_write >= QUIET_DURATIONS * lease
            granted = is_leased and is_quiet and self.now >= self.lock_free_at
            self.has_tickets |= granted
            self.at(self.now + self.setup.round_trip / 2, lambda: self.finish_read(instance, began, is_leased, granted))

        self.after_postgres(self.costs.leased_read if is_leased else self.costs.version_read, execute)

    def finish_read(self, instance: Instance, began: float, is_leased: bool, granted: bool) -> None:
        self.read_times.append(self.now - began)
        if is_leased:
            instance.is_renewing = False
            if granted:
                expires = began + SAFE_SHARE * self.setup.lease
                instance.leased_time += max(expires - max(instance.lease_until, self.now), 0)
                instance.lease_until = max(instance.lease_until, expires)
            else:
                instance.not_before = self.now + QUIET_DURATIONS * self.setup.lease
        self.fill(instance)
        self.at(self.now, lambda: self.read(instance))

    def fill(self, instance: Instance) -> None:
        """Reads what has changed, if the instance has an older list: once, for all writes until then."""
        if instance.is_filling or instance.version == self.version:
            return
        instance.is_filling = True

        def done() -> None:
            instance.version, instance.is_filling = self.version, False

        self.after_postgres(self.costs.fill, done)

    def write(self) -> None:
        sent = self.now
        self.at(self.now + self.random.expovariate(self.setup.writes), self.write)

        def commit() -> None:
            # the wait for leases is over when the lock is released
            locked_at = max(self.now, self.lock_free_at)
            visible_at = locked_at + (self.setup.lease if self.has_tickets else 0)
            self.has_tickets = False
            self.lock_free_at = visible_at
            self.at(visible_at, visible)

        def visible() -> None:
            self.version += 1
            self.last_write = self.now
            self.write_times.append(self.now + self.setup.round_trip / 2 - sent)

        self.after_postgres(self.costs.write, commit)
