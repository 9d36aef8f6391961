"""A queue in a table of the application's own database, by the statements that the configuration has."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.drivers.protocols.databases import Changeable
from holdfast.drivers.protocols.queues import Message, QueueState
from holdfast.errors import RefusedError


class TableQueues:
    def __init__(self, database: Changeable, statements: Mapping[str, str]) -> None:
        """Take the database, and the statements `count`, `peek`, `purge` and `reroute`, of which some may be empty."""
        self._database = database
        self._statements = statements

    def _filled(self, kind: str, **values: str) -> str:
        """Return a statement with texts in place of {queue} and {target}. Raise RefusedError where there is none."""
        text = self._statements.get(kind, "")
        if not text:
            raise RefusedError(f"these queues have no statement for it: `{kind}` is empty")
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", "'" + value.replace("'", "''") + "'")
        return text

    def states(self) -> list[QueueState]:
        return [QueueState(str(row[0]), int(row[1])) for row in self._database.query(self._filled("count"))]

    def peek(self, queue: str, number: int) -> list[Message]:
        rows = self._database.query(self._filled("peek", queue=queue))[:number]
        return [Message(str(row[0]), str(row[1]).encode()) for row in rows]

    def _waiting(self, queue: str) -> int:
        return next((one.messages for one in self.states() if one.name == queue), 0)

    def purge(self, queue: str) -> int:
        before = self._waiting(queue)
        self._database.change(self._filled("purge", queue=queue))
        return before - self._waiting(queue)

    def reroute(self, queue: str, target: str, text: str = "") -> int:
        """Change the name of the queue in the rows, which is one statement: all of them or none."""
        if text:
            raise RefusedError("messages in a table are moved by one statement, without --filter")
        before = self._waiting(queue)
        self._database.change(self._filled("reroute", queue=queue, target=target))
        return before - self._waiting(queue)
