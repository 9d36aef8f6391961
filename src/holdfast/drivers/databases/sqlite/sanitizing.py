"""Sanitized dumps of SQLite: a new file, made by a second process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.sqlite.sanitized_copy import (
    Answer,
    AskContents,
    AskCopy,
    AskPreview,
    AskProblems,
    AskSchema,
    Order,
    Rows,
    SanitizingJob,
    Statements,
)
from holdfast.drivers.databases.sqlite.sanitized_schema import quoted
from holdfast.drivers.protocols.sanitizing import Query, SanitizedDump
from holdfast.sanitize.deciding import DatabasePlan
from holdfast.sanitize.detector import Content
from holdfast.sanitize.output import Compression
from holdfast.sanitize.schema import Schema
from holdfast.sanitize.writing import PartWriter
from holdfast.system.host import Host
from holdfast.system.worker import Worker

_LOOK_SECONDS = 0.05
_BLOCK_BYTES = 1 << 20
_NEW_FILE = "new.sqlite"


class SqliteSanitizer:
    extension = "sqlite"

    def __init__(self, name: str, path: Path, host: Host) -> None:
        self._name = name
        self._path = Path(os.path.realpath(path))
        self._host = host

    def quote(self, name: str) -> str:
        return quoted(name)

    def load_command(self, file: str) -> str:
        return f"{'zstd -dc' if file.endswith('.zst') else 'gunzip -c'} {file} > NEW.sqlite3"

    def schema(self) -> Schema:
        return cast(Schema, self._ask(AskSchema()))  # what this order is answered with

    def contents(self, schema: Schema) -> dict[str, Content]:
        return cast(dict[str, Content], self._ask(AskContents(schema)))  # as above

    def queries(self, plan: DatabasePlan) -> list[Query]:
        statements = Statements(None, plan, "")
        return [Query(one.table.name, statements.selection(one)) for one in plan.tables if not one.empty]

    def problems(self, plan: DatabasePlan) -> list[str]:
        return cast(list[str], self._ask(AskProblems(plan)))  # as above

    def preview(self, plan: DatabasePlan, table: str, rows: int, key: str) -> list[tuple[str | None, ...]]:
        return cast(Rows, self._ask(AskPreview(plan, table, rows, key)))  # as above

    def _ask(self, order: Order, meanwhile: Callable[[int], None] | None = None) -> Answer:
        """Let a second process answer, so that no raw value is in this one, not even in pages that SQLite reads."""
        worker: Worker[Order, Answer, None] = Worker(self._host, SanitizingJob(self._path))
        try:
            worker.give(order)
            while meanwhile is not None and not worker.has_answer():
                meanwhile(0)
                time.sleep(_LOOK_SECONDS)
            return worker.take()
        finally:
            worker.end()

    def write(
        self,
        plan: DatabasePlan,
        key: str,
        folder: Path,
        compression: Compression,
        passed: Callable[[int], None],
        jobs: int,
    ) -> SanitizedDump:
        new = folder / _NEW_FILE
        rows = cast(dict[str, int], self._ask(AskCopy(plan, key, new), passed))  # as above

        def fill(sink: Callable[[bytes], None]) -> None:
            with open(new, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    sink(block)
                    passed(len(block))

        writer = PartWriter(plan, key, (), folder, compression, passed)
        part = writer.section(0, fill)
        os.unlink(new)
        return SanitizedDump(rows, writer.size_bytes, (part,))


def open_sanitizer(opening: Opening) -> SqliteSanitizer:
    return SqliteSanitizer(opening.name, opening.path, opening.host)
