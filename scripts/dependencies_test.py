#!/usr/bin/env python3
"""Tests of scripts/dependencies.py: an invented vulnerability is found in a database and in a dated copy of it."""

import datetime
import json
import tempfile
import unittest
from pathlib import Path

import dependencies

ADVISORY = """```toml
[advisory]
id = "{identifier}"
package = "{package}"
date = "2026-01-01"

[versions]
patched = []
```

# An invented vulnerability

It exists in this test only.
"""


class AdvisoriesTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.copy, self.database = Path(directory.name, "copy"), Path(directory.name, "database")
        self.url, self.unreachable = f"file://{self.database}", f"file://{directory.name}/nowhere"
        dependencies.git("init", "-q", "-b", "main", self.database)

    def add_advisory(self, package: str) -> None:
        identifier = f"RUSTSEC-2026-9{len(package):03}"
        file = self.database / "crates" / package / f"{identifier}.md"
        file.parent.mkdir(parents=True)
        file.write_text(ADVISORY.format(identifier=identifier, package=package))
        dependencies.git("add", "--all", directory=self.database)
        author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        dependencies.git(*author, "commit", "-q", "-m", package, directory=self.database)

    def change_source(self, **changes: object) -> None:
        file = self.copy / "source.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    def test_vulnerable_dependency_fails(self) -> None:
        self.add_advisory("unused-crate")
        self.assertTrue(dependencies.check_advisories(self.url, self.copy))
        self.add_advisory("hyper")
        self.assertFalse(dependencies.check_advisories(self.url, self.copy))

    def test_copy_is_used_when_the_database_is_unreachable(self) -> None:
        self.assertTrue(dependencies.check_advisories(self.unreachable, self.copy), "without a copy nothing is checked")
        self.add_advisory("unused-crate")
        dependencies.refresh(self.url, self.copy)
        self.assertFalse((self.copy / "crates").exists(), "the copy contains advisories of locked crates only")
        self.assertTrue(dependencies.check_advisories(self.unreachable, self.copy))
        self.add_advisory("hyper")
        dependencies.refresh(self.url, self.copy)
        self.assertFalse(dependencies.check_advisories(self.unreachable, self.copy))

    def test_old_or_incomplete_copy_fails(self) -> None:
        self.add_advisory("unused-crate")
        dependencies.refresh(self.url, self.copy)
        limit = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(dependencies.MAX_AGE_DAYS + 1)
        self.change_source(date=limit.isoformat())
        self.assertFalse(dependencies.check_advisories(self.unreachable, self.copy))
        dependencies.refresh(self.url, self.copy)
        self.change_source(crates=["hyper"])
        self.assertFalse(dependencies.check_advisories(self.unreachable, self.copy))


if __name__ == "__main__":
    unittest.main()
