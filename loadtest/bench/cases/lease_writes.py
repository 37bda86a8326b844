"""What leases cost writers: creations after a quiet time, and a list that is read while a product changes every 10 ms.

A creation that follows others at once waits for no lease, because leases are granted only when the catalogue has not
changed for a while. So each creation here waits until all instances serve hits from leases.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from statistics import quantiles
from threading import Event, Thread

from cases.writes import read_during_writes
from load import column, interleave, ratios
from options import Options
from rows import Row, row
from servers import LEASE, Server, TestShop, catalogue, leases_enabled, psql, running, start_testshop

PATH = "/api/products/"
SETTINGS = {"off": "0s", "on": LEASE}
CREATIONS = 12
# the time between two reads of a reader: several within a lease, so that instances request some
READ_INTERVAL = 0.004


class Reader(Thread):
    """Reads the list of an instance at a constant rate, so that it holds leases."""

    def __init__(self, server: TestShop) -> None:
        super().__init__(daemon=True)
        self.server, self.stop = server, Event()

    def run(self) -> None:
        connection = self.server.connect()
        while not self.stop.wait(READ_INTERVAL):
            connection.request("HEAD", PATH, headers=self.server.headers)
            connection.getresponse().read()


def run(options: Options) -> Iterator[Row]:
    database = catalogue(100)
    with leases_enabled(database):
        yield from reads_during_writes(options, database)
        for instances in (1, 3):
            yield from creations(options, database, instances)


def reads_during_writes(options: Options, database: str) -> Iterator[Row]:
    servers = {lease: start_testshop(database, LEASE=setting) for lease, setting in SETTINGS.items()}
    with running(*servers.values()):
        measures = {
            lease: partial(read_during_writes, server, 0.01, options.seconds) for lease, server in servers.items()
        }
        results = interleave(options.rounds, measures)
    rates = {lease: column(samples, "rate") for lease, samples in results.items()}
    for lease, rate in rates.items():
        yield row(f"lease_writes.rate.{lease}", f"list, a write every 10 ms, leases {lease}", "req/s", rate)
    yield row("lease_writes.ratio", "  ratio of both", "x", ratios(rates["on"], rates["off"]))
    for lease, samples in results.items():
        yield row(f"lease_writes.done.{lease}", f"  completed writes, leases {lease}", "/s", column(samples, "writes"))


def creations(options: Options, database: str, instances: int) -> Iterator[Row]:
    fleets = {
        lease: [start_testshop(database, LEASE=setting) for _ in range(instances)]
        for lease, setting in SETTINGS.items()
    }
    rounds = 1 if options.quick else 3
    with running(*fleets["off"], *fleets["on"]):
        measures = {lease: partial(create_after_quiet_times, fleet, lease == "on") for lease, fleet in fleets.items()}
        results = interleave(rounds, measures)
        psql(database, "delete from products where name like 'Load %'")
    medians = {}
    for lease, samples in results.items():
        times = sorted(milliseconds for sample in samples for milliseconds in sample)
        tenths = quantiles(times, n=10)
        medians[lease] = tenths[4]
        title = f"{instances} instances, a creation after a quiet time, leases {lease}"
        yield row(f"lease_writes.create.{lease}", f"{title}, median of {len(times)}", "ms", [tenths[4]], x=instances)
        yield row(f"lease_writes.create_p90.{lease}", "  90 %", "ms", [tenths[8]], x=instances)
    wait = medians["on"] - medians["off"]
    yield row("lease_writes.wait", "  difference of the medians", "ms", [wait], x=instances)


def create_after_quiet_times(fleet: list[TestShop], has_leases: bool) -> list[float]:
    """Durations (ms) of creations on the first instance, which takes requests while all instances are read."""
    readers = [Reader(server) for server in fleet]
    for reader in readers:
        reader.start()
    times = []
    for number in range(CREATIONS):
        for server in fleet:
            wait_for_hits(server, has_leases)
        times.append(create(fleet[0], number) * 1000)
    for reader in readers:
        reader.stop.set()
        reader.join()
    return times


def wait_for_hits(server: TestShop, has_leases: bool) -> None:
    """Waits until requests use leases, or without leases for the same time."""
    if not has_leases:
        time.sleep(0.3)
        return
    hits, deadline = server.metrics()["lease_hits_total"], time.monotonic() + 10
    while server.metrics()["lease_hits_total"] < hits + 5:
        if time.monotonic() > deadline:
            raise TimeoutError("no request used a lease for 10 s")
        time.sleep(0.01)


def create(server: Server, number: int) -> float:
    """Seconds that a creation takes on a connection that is open."""
    connection = server.connect()
    connection.connect()
    body = {"name": f"Load {time.monotonic_ns()} {number}", "price": "1.00", "category_name": "Phones", "tags": []}
    headers = {**server.headers, "Content-Type": "application/json"}
    started = time.monotonic()
    connection.request("POST", PATH, body=json.dumps(body), headers=headers)
    response = connection.getresponse()
    answer = response.read()
    elapsed = time.monotonic() - started
    assert response.status == 201, (response.status, answer)
    connection.close()
    return elapsed
