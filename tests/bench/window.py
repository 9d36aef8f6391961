"""The maintenance window of an upgrade and of a restore, as visitors see it: from the first answer 503 to the last."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import OperationFailedError
from tests.bench.bench import Row
from tests.site import Site
from tests.stores import MariadbStore, PostgresqlStore

_ROWS_A_GB = 6_000_000
_PIECE_BYTES = 10 << 20
_BIG = {
    "postgresql": "CREATE TABLE big AS SELECT i AS id, i % 97 AS kind, md5(i::text) || md5((i * 7)::text) ||"
    " md5((i * 13)::text) AS text FROM generate_series(1, {rows}) i; ALTER TABLE big ADD PRIMARY KEY (id)",
    "mariadb": "CREATE TABLE big (id BIGINT PRIMARY KEY, kind INTEGER, text TEXT);"
    " INSERT INTO big SELECT seq, seq % 97,"
    " CONCAT(MD5(seq), MD5(seq * 7), MD5(seq * 13)) FROM seq_1_to_{rows}",
}


class Visitor:
    """Asks all the time; `seconds` is how long it was told to come back later."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._held: list[float] = []
        self._thread = threading.Thread(target=self._visit)
        self._thread.start()

    def _visit(self) -> None:
        while not self._stop.is_set():
            if self._site.get("/")[0] != 200:
                self._held.append(time.monotonic())
            time.sleep(0.01)

    def seconds(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._held[-1] - self._held[0] if self._held else 0.0


def measured(
    engine: str, gigabytes: float, media_gigabytes: float, place: Path | None, say: Callable[[str], None]
) -> tuple[str, list[Row]]:
    """Title and rows of an upgrade, of one that fails and is undone, and of a restore of what was before the first."""
    title = f"Maintenance window: {engine}, {gigabytes:g} GB of data, {media_gigabytes:g} GB of media"
    say(title)
    folder = Path(tempfile.mkdtemp(prefix="hfw", dir=place))
    site = Site(folder / "s", engine=engine)
    try:
        site.operate("install", "v1")
        assert isinstance(site.store, (PostgresqlStore, MariadbStore))
        site.store.execute(_BIG[engine].format(rows=int(gigabytes * _ROWS_A_GB)))
        for number in range(int(media_gigabytes * 1e9) // _PIECE_BYTES):
            (site.media / f"large-{number}.bin").write_bytes(os.urandom(_PIECE_BYTES))
        os.sync()
        rows = [_row(site, "upgrade, committed", "upgrade", "v2")]
        undone = "upgrade whose migration destroys rows and 60 files and fails, undone"
        rows.append(_row(site, undone, "upgrade", "v3", fails=True))
        rows.append(_row(site, "restore of the data before the upgrade, committed", "restore", _set_of_v1(site)))
        return title, rows
    finally:
        site.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _set_of_v1(site: Site) -> str:
    app = site.open()
    try:
        assert app.context.vault is not None
        return next(one.id for one in app.context.vault.backups() if one.release.get("label") == "v1")
    finally:
        app.close()


def _row(site: Site, what: str, operation: str, argument: str, *, fails: bool = False) -> Row:
    app = site.open()
    visitor = Visitor(site)
    began = time.monotonic()
    try:
        app.run(site.plan(app, operation, argument), wait_seconds=5)
    except OperationFailedError:
        if not fails:
            raise
    finally:
        whole = time.monotonic() - began
        window = visitor.seconds()
        steps = {step.name: step for step in app.journal.steps(app.journal.operations(1)[0].id)}
        app.close()
    own = ""
    if "restore_point.create" in steps and not fails:
        before, within = (steps[f"restore_point.{name}"].seconds or 0.0 for name in ("prepare", "create"))
        own = f"{within:.2f} s of it the restore point, after {before:.2f} s before it"
    return Row(f"{what}, in {whole:.1f} s", f"{window:.2f} s", own)
