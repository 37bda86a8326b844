"""Options that apply to every case."""

from __future__ import annotations

import argparse

from servers import PEERS


class Options:
    """Number and length (seconds) of the rounds, the peers to measure, and the quick mode."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.quick: bool = arguments.quick
        self.rounds: int = arguments.rounds or (3 if arguments.quick else 9)
        self.seconds: int = arguments.seconds or 1
        self.peers: list[str] = [] if arguments.quick else list(PEERS)

    def sizes(self, *sizes: int) -> list[int]:
        """Catalogue sizes (products); the quick mode skips those above 10,000."""
        return [size for size in sizes if not self.quick or size <= 10_000]
