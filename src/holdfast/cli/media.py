"""`holdfast media list | download | dump | upload | delete`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import msgspec

from holdfast.cli.command import group
from holdfast.cli.leaving import REASON, UNSANITIZED, consent
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import counted, human_bytes, local_minute, local_zone
from holdfast.errors import RefusedError

_BLOCK_BYTES = 1 << 20


@group()
def media() -> None:
    """List, download, upload and delete the files of a dataset."""


@media.command("list", examples=[("media list uploads --filter 2026/", "Which files of this year are there?")])
@click.argument("into", metavar="DATASET")
@click.option("--filter", "text", default="", metavar="TEXT", help="Only files with this text in their path.")
@common
def list_(session: Session, into: str, text: str) -> None:
    """List the files of a dataset."""
    from holdfast.operations import media as operation

    app = session.app()
    name, _ = operation.dataset(app, into)
    found = [entry for entry in operation.listing(app, name, text=text) if entry.kind != "directory"]
    session.renderer.table(
        [Column("FILE", wraps=True), Column("SIZE", right=True), f"CHANGED ({local_zone()})", ""],
        [
            [
                entry.path,
                human_bytes(entry.size),
                local_minute(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.mtime_ns // 10**9))),
                "" if entry.kind == "file" else entry.kind,
            ]
            for entry in found
        ],
        empty=f"There is no such file in {name}.",
    )
    session.renderer.result(
        {"dataset": name, "files": [{"path": i.path, "size_bytes": i.size, "kind": i.kind} for i in found]}
    )


@media.command(
    examples=[
        ("media download uploads --file 2026/cat.jpg --to look --unsanitized --reason 'ticket 12'", "One file."),
        ("media download uploads --to look -e staging", "All of them, of an environment that is no production."),
    ]
)
@click.argument("into", metavar="DATASET")
@click.option("--file", "paths", multiple=True, metavar="PATH", help="Only this file or folder (may be repeated).")
@click.option("--to", "folder", required=True, metavar="FOLDER", help="A folder that does not exist yet.")
@UNSANITIZED
@REASON
@common
def download(session: Session, into: str, paths: tuple[str, ...], folder: str, unsanitized: bool, reason: str) -> None:
    """Copy files of a dataset into a new folder, which only this user can enter."""
    from holdfast.operations import media as operation

    app = session.app()
    name, _ = operation.dataset(app, into)
    consent(session, app, f"files of {name}", unsanitized=unsanitized, reason=reason)
    target = Path(folder)
    if os.path.lexists(target):
        raise RefusedError(f"{target} exists already", next_step="Name a folder that does not exist yet.")
    entries = list(operation.listing(app, name, paths))
    target.mkdir(0o700)
    count = 0
    for entry in (one for one in entries if one.kind == "file"):
        place = target / os.fsdecode(entry.raw_path())
        place.parent.mkdir(0o700, parents=True, exist_ok=True)
        source = app.context.files[name].open(entry)
        with os.fdopen(source, "rb") as content, open(place, "xb") as copy:
            os.fchmod(copy.fileno(), 0o600)
            while block := content.read(_BLOCK_BYTES):
                copy.write(block)
        count += 1
    session.renderer.line(f"{counted(count, 'file')} of {name} in {target}")
    session.renderer.result({"dataset": name, "folder": str(target.absolute()), "files": count})


@media.command(
    examples=[
        ("media dump uploads --to uploads.zip -e staging", "Everything, as one zip."),
        ("media dump uploads --to /mnt/u.zip --unsanitized --reason 'move'", "Of production, in a script."),
    ]
)
@click.argument("into", metavar="DATASET")
@click.option("--to", "target", metavar="FILE", help="The zip, which must not exist; default: DATASET.zip here.")
@UNSANITIZED
@REASON
@common
def dump(session: Session, into: str, target: str | None, unsanitized: bool, reason: str) -> None:
    """Write a whole dataset into one zip, which `import files` brings back."""
    from holdfast.drivers.interchange.zipped import write_zip
    from holdfast.operations import media as operation

    app = session.app()
    name, _ = operation.dataset(app, into)
    consent(session, app, f"files of {name}", unsanitized=unsanitized, reason=reason)
    path = Path(target or f"{name}.zip")
    if os.path.lexists(path):
        raise RefusedError(f"{path} exists already", next_step="Name another file with --to.")
    files = app.context.files[name]
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        count = write_zip(partial, (one for one in files.scan() if one.kind != "fifo"), files.open)
        os.link(partial, path)  # unlike a rename, it replaces nothing that came meanwhile
    finally:
        partial.unlink(missing_ok=True)
    session.renderer.line(f"{counted(count, 'file')} of {name} in {path} ({human_bytes(path.stat().st_size)})")
    session.renderer.result({"dataset": name, "path": str(path.absolute()), "files": count})


@media.command(
    examples=[
        ("media upload ./new uploads/2026 --dry-run", "What would be taken, and what refused, and why?"),
        ("media upload cat.jpg uploads/2026", "One file."),
    ]
)
@click.argument("source", metavar="FILE-OR-FOLDER")
@click.argument("into", metavar="DATASET[/FOLDER]")
@click.option("--skip-refused", is_flag=True, help="Leave refused files out, instead of uploading nothing.")
@click.option("--no-safety", is_flag=True, help="Make no safety backup of the present files.")
@click.option("--dry-run", is_flag=True, help="Print what would be taken and what refused; change nothing.")
@common
def upload(session: Session, source: str, into: str, skip_refused: bool, no_safety: bool, dry_run: bool) -> None:
    """Copy files into a dataset: of the types and into the folders of `files.NAME.uploads`.

    A file is refused if its type is not allowed, if it cannot be read, or if its content is of another type than its
    name says. Links are not followed. Files with the same path are replaced; all of it happens, or nothing.
    """
    from holdfast.operations import media as operation

    app = session.changing_app()
    if dry_run:
        found = operation.candidates(app, source, into)
        session.renderer.table(
            ["", Column("FILE", wraps=True), Column("SIZE", right=True), Column("WHY", wraps=True)],
            [["refused" if i.why else "taken", i.path, human_bytes(i.size_bytes), i.why] for i in found],
            empty=f"{source} has no files.",
        )
        session.renderer.result({"files": [msgspec.to_builtins(one) for one in found]})
        return
    plan, found = operation.plan_upload(app, source, into, skip_refused=skip_refused, safety=not no_safety)
    for one in found:
        if one.why:
            session.renderer.note(f"refused: {one.path}: {one.why}")
    session.run(app, plan, wait_seconds=app.loaded.configuration.backup.wait_seconds)


@media.command(
    examples=[
        ("media delete uploads --file 2026/cat.jpg", "One file."),
        ("media delete uploads --dry-run", "What would it take to delete everything?"),
    ]
)
@click.argument("into", metavar="DATASET")
@click.option("--file", "paths", multiple=True, metavar="PATH", help="Only this file or folder (may be repeated).")
@click.option("--no-safety", is_flag=True, help="Make no safety backup of the present files.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def delete(session: Session, into: str, paths: tuple[str, ...], no_safety: bool, dry_run: bool) -> None:
    """Delete files of a dataset; without --file, all of them."""
    from holdfast.operations import media as operation

    app = session.changing_app()
    plan = operation.plan_delete(app, into, paths, safety=not no_safety)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run, wait_seconds=app.loaded.configuration.backup.wait_seconds)
