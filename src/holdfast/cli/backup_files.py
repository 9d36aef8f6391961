"""`holdfast backup files | find | diff`, and `backup restore ID --path`: look into a backup, bring back parts of it."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from holdfast.cli.command import command
from holdfast.cli.render import Column, Renderer
from holdfast.cli.session import Session, common
from holdfast.cli.text import human_bytes
from holdfast.errors import UsageError

if TYPE_CHECKING:  # heavy modules are imported where a command first needs them, so that `--help` stays quick
    from holdfast.application.file_differences import Difference
    from holdfast.model import Entry
    from holdfast.reports.backup_files import BackupReader, Comparison, FoundPath, Rows

_BATCH_LINES = 500
_KINDS = {"directory": "d", "symlink": "l", "fifo": "p"}
_SIGNS = {"added": "+", "removed": "-", "changed": "M", "metadata": "U"}
_WORDS = {"added": "added", "removed": "removed", "changed": "changed", "metadata": "with another mode, owner or time"}


def _reader(session: Session) -> BackupReader:
    from holdfast.reports.backup_files import BackupReader

    return BackupReader(session.loaded(), session.host)


@command(
    examples=[("backup files latest media/2026", "What is in this folder?"), ("backup files latest -r", "Everything.")]
)
@click.argument("reference", metavar="ID")
@click.argument("path", metavar="[PATH]", default="")
@click.option("-r", "--recursive", is_flag=True, help="Everything below PATH, not only what is directly in it.")
@common
def files(session: Session, reference: str, path: str, recursive: bool) -> None:
    """List the files in a backup: all datasets, or below PATH.

    PATH begins with the name of a dataset, as in `media/2026`.
    """
    from holdfast.reports import backup_files as report

    reader = _reader(session)
    backup = reader.find(reference)
    found = report.listed(reader, backup, path, recursive=recursive)
    if session.renderer.as_json:
        entries = (_facts(name, entry) for name, entry in found)
        _stream_result(session.renderer, {"backup": backup.id}, "entries", entries)
        return
    _print(session.renderer, (_line(_shown(name, entry), entry) for name, entry in found))


@command(
    examples=[
        ("backup find '*.pdf'", "Which backups have PDF files?"),
        ("backup find media/2026/plan.odt --all", "Which versions of it?"),
    ]
)
@click.argument("pattern")
@click.option("--backup", "reference", metavar="ID", help="Only in this backup.")
@click.option("--all", "all_", is_flag=True, help="A line for each backup, also where the file stayed the same.")
@common
def find(session: Session, pattern: str, reference: str | None, all_: bool) -> None:
    """Show which backups have a file, the newest first, and where it changed.

    PATTERN is a name, in which `*`, `?` and `[...]` may stand for others. With a slash it is compared with the whole
    path, which begins with the name of a dataset; `*` then also stands for slashes. Each line is about the newest
    backup that has this version of the file. CONTENT compares it with the next older backup: `new` (not in it),
    `changed`, `metadata` (only mode, owner or time), or with --all also `same`.
    """
    from holdfast.reports import backup_files as report

    reader = _reader(session)
    found = report.found(reader, pattern, reader.find(reference) if reference is not None else None, each=all_)
    if session.renderer.as_json:
        _stream_result(session.renderer, {"pattern": pattern}, "found", map(_found_facts, found))
        return
    lines = (line for one in found for line in _found_lines(one))
    if not _print(
        session.renderer, lines, f"{'BACKUP':17}  BACKUPS  CONTENT   {'SIZE':>10}  {'MODIFIED (UTC)':19}  PATH"
    ):
        session.renderer.line(f"No backup has {pattern}.")


def _found_lines(found: FoundPath) -> Iterator[str]:
    for one in found.versions:
        size, modified = _size(one.entry), _time(one.entry)
        path = _shown(found.dataset, one.entry)
        yield f"{one.backup.id:17}  {one.backups:7}  {one.state:8}  {size:>10}  {modified}  {path}"


def _found_facts(found: FoundPath) -> dict[str, object]:
    return {
        "path": f"{found.dataset}/{found.versions[0].entry.path}",
        "versions": [
            {
                "backup": one.backup.id,
                "instant": one.backup.instant,
                "backups": one.backups,
                "content": one.state,
                **_facts(found.dataset, one.entry),
            }
            for one in found.versions
        ],
    }


@command(
    examples=[
        ("backup diff latest", "What changed since the last backup?"),
        ("backup diff 2026-11-20-082512 latest", "What changed between two?"),
    ]
)
@click.argument("reference", metavar="ID")
@click.argument("other", metavar="[ID]", required=False)
@click.option("--now", is_flag=True, help="Compare with the live application (the default without a second ID).")
@common
def diff(session: Session, reference: str, other: str | None, now: bool) -> None:
    """Compare a backup with another one, or with the live application.

    Files: `+` added, `-` removed, `M` content changed, `U` only mode, owner or time changed, from the first to the
    second. Databases: the rows of each table that has more or fewer. The exit code is 0 also where something differs.
    """
    from holdfast.engine.cancellation import Cancellation
    from holdfast.reports import backup_files as report

    if other is not None and now:
        raise UsageError("diff takes a second ID or --now, not both")
    reader = _reader(session)
    before = reader.find(reference)
    after = reader.find(other) if other is not None else None
    comparison = report.Comparison(reader, before, after, session.app() if after is None else None)
    with Cancellation() as cancellation:
        rows = comparison.rows()
        counts: Counter[str] = Counter()
        if session.renderer.as_json:
            changes = (_change_facts(*one, counts) for one in comparison.files(cancellation.check))
            head: dict[str, object] = {
                "before": before.id,
                "after": after.id if after is not None else None,
                "databases": {name: _row_facts(several) for name, several in rows.items()},
            }
            _stream_result(
                session.renderer,
                head,
                "files",
                changes,
                lambda: {"summary": {change: counts[change] for change in _SIGNS}, "notes": comparison.notes},
            )
            return
        _print(session.renderer, (_change_line(*one, counts) for one in comparison.files(cancellation.check)))
    _print_rows(session.renderer, rows)
    for note in comparison.notes:
        session.renderer.line(note)
    session.renderer.line(_summary_line(comparison, counts, rows))


def _change_line(name: str, difference: Difference, counts: Counter[str]) -> str:
    counts[difference.change] += 1
    entry = difference.entry
    sizes = ""
    if difference.before is not None and difference.after is not None and difference.change == "changed":
        sizes = f"  ({_size(difference.before)} -> {_size(difference.after)})"
    elif entry.kind == "file" and difference.change != "metadata":
        sizes = f"  ({_size(entry)})"
    return f"{_SIGNS[difference.change]} {_shown(name, entry)}{sizes}"


def _change_facts(name: str, difference: Difference, counts: Counter[str]) -> dict[str, object]:
    counts[difference.change] += 1
    before, after = difference.before, difference.after
    return {
        "path": f"{name}/{difference.entry.path}",
        "change": difference.change,
        "before": _facts(name, before) if before is not None else None,
        "after": _facts(name, after) if after is not None else None,
    }


def _row_facts(rows: Iterable[Rows]) -> dict[str, dict[str, int | None]]:
    return {one.table: {"before": one.before, "after": one.after} for one in rows}


def _print_rows(renderer: Renderer, rows: Mapping[str, list[Rows]]) -> None:
    lines = [
        [f"{name}.{one.table}", _count(one.before), _count(one.after), _more(one)]
        for name, several in rows.items()
        for one in several
        if one.before != one.after
    ]
    if lines:
        renderer.table(["TABLE", *(Column(name, right=True) for name in ("ROWS BEFORE", "ROWS AFTER", ""))], lines)


def _count(rows: int | None) -> str:
    return f"{rows:,}" if rows is not None else "-"


def _more(rows: Rows) -> str:
    return f"{rows.after - rows.before:+,}" if rows.before is not None and rows.after is not None else ""


def _summary_line(comparison: Comparison, counts: Counter[str], rows: Mapping[str, list[Rows]]) -> str:
    tables = [one for several in rows.values() for one in several]
    differing = sum(one.before != one.after for one in tables)
    found = [f"{counts[change]:,} {word}" for change, word in _WORDS.items() if counts[change]]
    files = f"{', '.join(found)} in files" if found else "files are the same"
    databases = f"; rows differ in {differing} of {len(tables)} tables" if tables else ""
    return f"From backup {comparison.before.id} to {comparison.other}: {files}{databases}."


# --- restoring -----------------------------------------------------------------------------------------


def restore_paths(
    session: Session, reference: str, paths: tuple[str, ...], folder: str | None, *, dry_run: bool
) -> None:
    """Bring back files and folders of a backup: into the live datasets, or into a new folder."""
    from holdfast.operations import restore_paths as operation

    if folder is not None:
        _extract(session, reference, paths, folder, dry_run=dry_run)
        return
    app = session.changing_app()
    plan = operation.plan(app, reference, paths)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)


def _extract(session: Session, reference: str, paths: tuple[str, ...], folder: str, *, dry_run: bool) -> None:
    from holdfast.cli.progress import ProgressObserver
    from holdfast.engine.cancellation import Cancellation
    from holdfast.reports import backup_files as report

    if dry_run:
        raise UsageError("--to changes nothing but the new folder, and has no --dry-run")
    reader = _reader(session)
    backup = reader.find(reference)
    observer = ProgressObserver(session.renderer)
    title = f"write files of {backup.id}"
    started = time.monotonic()
    with Cancellation() as cancellation:
        observer.step_started(title, 1, 1, undo=False)
        failed = True
        try:
            target = report.extract(reader, backup, paths, folder, session.host, cancellation.check)
            failed = False
        finally:
            observer.step_ended(title, time.monotonic() - started, undo=False, failed=failed)
    session.renderer.line(f"{', '.join(paths)} of backup {backup.id} is in {target}")
    session.renderer.result({"backup": backup.id, "paths": list(paths), "folder": target})


# --- printing ------------------------------------------------------------------------------------------


def _print(renderer: Renderer, lines: Iterable[str], heading: str = "") -> bool:
    """Print lines as they come, some hundred at a time; return whether there was any."""
    several = iter(lines)
    printed = False
    while batch := list(itertools.islice(several, _BATCH_LINES)):
        if heading and not printed:
            renderer.line(heading, whole=True)
        renderer.line("\n".join(batch), whole=True)
        printed = True
    return printed


def _stream_result(
    renderer: Renderer,
    head: Mapping[str, object],
    key: str,
    items: Iterable[Mapping[str, object]],
    tail: Callable[[], Mapping[str, object]] = dict,
) -> None:
    """Print the JSON object of a result with a list that may be too long for the memory.

    `tail` returns what is known once the list has ended.
    """
    opening = json.dumps(renderer._envelope(True, 0, data=head))
    renderer.write(sys.stdout, f"{opening[:-2]}, {json.dumps(key)}: [")
    several = iter(items)
    separator = ""
    while batch := list(itertools.islice(several, _BATCH_LINES)):
        renderer.write(sys.stdout, separator + ", ".join(map(json.dumps, batch)))
        separator = ", "
    more = json.dumps(tail())[1:-1]
    renderer.write(sys.stdout, f"]{', ' if more else ''}{more}}}}}\n")


def _shown(name: str, entry: Entry) -> str:
    return _printable(f"{name}/{entry.path}")


def _printable(text: str) -> str:
    from holdfast.application.file_paths import printable

    return text if text.isprintable() else printable(text)


def _line(path: str, entry: Entry) -> str:
    link = f" -> {_printable(os.fsdecode(entry.raw_target()))}" if entry.kind == "symlink" else ""
    kind = _KINDS.get(entry.kind, "-")
    return f"{kind} {entry.mode:>4} {entry.uid:>6} {entry.gid:>6} {_size(entry):>10}  {_time(entry)}  {path}{link}"


def _size(entry: Entry) -> str:
    return human_bytes(entry.size) if entry.kind == "file" else "-"


def _time(entry: Entry) -> str:
    from holdfast.application.file_paths import modified

    return modified(entry)


def _facts(name: str, entry: Entry) -> dict[str, object]:
    found: dict[str, object] = {
        "path": f"{name}/{entry.path}",
        "type": entry.kind,
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }
    for name in ("sha256", "target", "path_base64"):
        if value := getattr(entry, name):
            found[name] = value
    return found
