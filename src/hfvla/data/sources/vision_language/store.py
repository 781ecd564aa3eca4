"""Values by key in a private file of SQLite that the system may keep in memory: joins of any size."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from types import TracebackType

__all__ = ["Store"]

_BATCH = 10_000


class Store:
    """Several values a key, in the order in which they were put; filled, then sorted, then read.

    The database has no name: SQLite deletes it with the connection, and keeps it in memory while it is small.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("CREATE TABLE facts (key TEXT NOT NULL, value TEXT NOT NULL)")
        self._pending: list[tuple[str, str]] = []

    def __enter__(self) -> Store:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete it."""
        self._base.close()

    def put(self, key: str, value: str) -> None:
        """Add a value."""
        self._pending.append((key, value))
        if len(self._pending) >= _BATCH:
            self._write()

    def sort(self) -> None:
        """Make it readable by key."""
        self._write()
        self._base.execute("CREATE INDEX IF NOT EXISTS by_key ON facts (key)")

    def get(self, key: str) -> Iterator[str]:
        """Yield the values of a key."""
        for (value,) in self._base.execute("SELECT value FROM facts WHERE key = ? ORDER BY rowid", (key,)):
            yield value

    def groups(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each key with its values, by the first value's place."""
        query = "SELECT key FROM facts GROUP BY key ORDER BY MIN(rowid)"
        for (key,) in self._base.execute(query):
            yield key, list(self.get(key))

    def _write(self) -> None:
        self._base.execute("BEGIN")
        self._base.executemany("INSERT INTO facts VALUES (?, ?)", self._pending)
        self._base.execute("COMMIT")
        self._pending = []
