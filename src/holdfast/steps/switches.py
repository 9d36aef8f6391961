"""What else says that the application is in maintenance, beside the gate: keys of a YAML file, a file, a command.

A changed file is kept as it was before the first change, so that it comes back byte for byte. Everything is decided by
what the gate says and by what is on the disk, so each call can be repeated, also after a kill.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.config.schema import Switch
from holdfast.drivers.gates import yaml_text
from holdfast.errors import RefusedError
from holdfast.steps import tasks
from holdfast.steps.typed import OperationContext
from holdfast.system import confined, durable

_MOST_BYTES = 16 << 20


class Kept(msgspec.Struct):
    """What is known of a switch that is not as it was before."""

    original: str | None = None
    """The content before the first change, in base64; None where there was no file."""
    written: list[str] = []
    """Digests of the contents that Holdfast wrote or is about to write."""
    settled: bool = False
    """Whether the command after the change ran to its end."""


def settle(application: ApplicationContext, context: OperationContext, *, closed: bool) -> None:
    """Bring every switch to what the gate says. Idempotent. Raise RefusedError, or what a command raises."""
    announced = announcement(application)
    for name, item in application.loaded.configuration.gate.switches.items():
        if item.kind == "command":
            _command(application, context, name, item, closed=closed)
        else:
            _file(application, context, name, item, _wanted(item, announced, closed=closed))


def _wanted(item: Switch, announced: str, *, closed: bool) -> dict[str, str]:
    """Return the values that a file has to have; empty if it is to be as it was."""
    if item.kind == "file":
        return {"": item.content} if closed else {}
    values = dict(item.set) if closed else {}
    if announced:
        values |= {key: value.replace("{text}", json.dumps(announced)) for key, value in item.announce.items()}
    return values


# --- a file --------------------------------------------------------------------------------------------


def _file(
    application: ApplicationContext, context: OperationContext, name: str, item: Switch, wanted: dict[str, str]
) -> None:
    path, kept = application.loaded.path(item.path), _kept(application, name)
    if kept is None and not wanted:
        return
    present = _read(path)
    original = _original(path, item, kept, present)
    new = _changed(path, item, original, wanted)
    written = hashlib.sha256(new).hexdigest() if new is not None else ""
    if kept is not None and kept.settled and present == new and wanted:
        return
    encoded = base64.b64encode(original).decode() if original is not None else None
    record = Kept(encoded, [*(kept.written if kept is not None else []), written][-4:])
    _keep(application, name, record)  # before the change: the file as it was must never be lost
    _write(path, new)
    _run(application, context, item.after)
    if not wanted:
        durable.unlink(_place(application, name))
        return
    record.settled = True
    _keep(application, name, record)


def _original(path: Path, item: Switch, kept: Kept | None, present: bytes | None) -> bytes | None:
    """Return the content before the first change. What somebody else changed in it since stays."""
    if kept is None:
        return present
    original = base64.b64decode(kept.original) if kept.original is not None else None
    digest = hashlib.sha256(present).hexdigest() if present is not None else ""
    if item.kind == "file" or present is None or original is None or present == original or digest in kept.written:
        return original
    try:
        return yaml_text.put_back(present, original, (*item.set, *item.announce))
    except (RefusedError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"{path} was changed by somebody else while Holdfast had set values in it, and they cannot be put back:"
            f" {error}",
            next_step=f"Put the values back that you want in {path}, remove the file about it in the folder `switches`"
            " of the state directory, then run: holdfast recover",
        ) from error


def _changed(path: Path, item: Switch, original: bytes | None, wanted: dict[str, str]) -> bytes | None:
    if not wanted:
        return original
    if item.kind == "file":
        return wanted[""].encode()
    if original is None:
        raise RefusedError(f"there is no {path}, in which the gate sets values", next_step="Correct its `path`.")
    try:
        return yaml_text.edit(original, wanted)
    except (RefusedError, UnicodeDecodeError) as error:
        raise RefusedError(f"{path}: {error}", next_step="Correct the keys of this switch, or the file.") from error


def _read(path: Path) -> bytes | None:
    """Return the content of a file; None if there is none. Raise RefusedError for anything but a file."""
    with contextlib.suppress(FileNotFoundError), _folder(path) as folder:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(_MOST_BYTES + 1)
        finally:
            os.close(descriptor)
        if len(content) > _MOST_BYTES:
            raise RefusedError(f"{path} is too large for a file in which the gate sets values")
        return content
    return None


def _write(path: Path, content: bytes | None) -> None:
    """Write a file with the owner and mode that it has, or remove it. Idempotent."""
    if content is not None and not path.parent.is_dir():
        raise RefusedError(
            f"the folder {path.parent} does not exist, so the gate cannot write {path.name}",
            next_step="Create it, or correct the `path` of this switch.",
        )
    with _folder(path) as folder:
        if content is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
            durable.sync_directory(confined.place_of(folder))
            return
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            mode, owner = status.st_mode & 0o7777, (status.st_uid, status.st_gid)
        except FileNotFoundError:
            status = os.fstat(folder)
            mode, owner = 0o644, (status.st_uid, status.st_gid)
        durable.replace_at(folder, path.name, content, mode, owner)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = confined.open_folder(path.parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- a command -----------------------------------------------------------------------------------------


def _command(
    application: ApplicationContext, context: OperationContext, name: str, item: Switch, *, closed: bool
) -> None:
    kept = _kept(application, name)
    if closed == (kept is not None and kept.settled):
        return
    _keep(application, name, Kept())
    _run(application, context, item.on if closed else item.off)
    if closed:
        _keep(application, name, Kept(settled=True))
    else:
        durable.unlink(_place(application, name))


def _run(application: ApplicationContext, context: OperationContext, argv: Sequence[str]) -> None:
    release = application.current_release()
    if argv and release is not None and Path(release.path).is_dir():
        tasks.invoke(application, release, argv, {})
    elif argv:
        context.say(f"`{' '.join(argv)}` did not run: nothing is installed")


# --- what is kept --------------------------------------------------------------------------------------


def _place(application: ApplicationContext, name: str) -> Path:
    return application.loaded.state / "switches" / f"{name}.json"


def _kept(application: ApplicationContext, name: str) -> Kept | None:
    path = _place(application, name)
    return durable.read_json(path, Kept) if path.exists() else None


def _keep(application: ApplicationContext, name: str, kept: Kept) -> None:
    durable.make_directory(_place(application, name).parent)
    durable.write_file(_place(application, name), msgspec.json.encode(kept))


def originals(application: ApplicationContext) -> dict[Path, bytes | None]:
    """Return the files that are not as they were before, with their content before; None where there was none."""
    found: dict[Path, bytes | None] = {}
    for name, item in application.loaded.configuration.gate.switches.items():
        kept = _kept(application, name)
        if kept is not None and item.path:
            original = base64.b64decode(kept.original) if kept.original is not None else None
            found[application.loaded.path(item.path)] = original
    return found


# --- the announcement ----------------------------------------------------------------------------------


def _announced(application: ApplicationContext) -> Path:
    return application.loaded.state / "announcement.json"


def announcement(application: ApplicationContext) -> str:
    """Return the text that users read; empty if there is none."""
    path = _announced(application)
    return durable.read_json(path, str) if path.exists() else ""


def announce(application: ApplicationContext, context: OperationContext, text: str) -> None:
    """Show users a text, or none. Idempotent."""
    if text:
        durable.write_file(_announced(application), json.dumps(text))
    else:
        durable.unlink(_announced(application))
    settle(application, context, closed=not application.gate.state().open)
