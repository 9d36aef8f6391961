"""What may be uploaded into a dataset of files: by folder, by the type that the name says, and by content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from holdfast.config.schema import Uploads
from holdfast.drivers.files.tree import Excludes, entry_of, scan
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Entry
from holdfast.system.confined import Beneath

HEAD_BYTES = 64 << 10
_TEXTS = {"css", "scss", "js", "txt", "csv", "md"}
_SAME = ({"jpg", "jpeg", "jpe", "jfif"}, {"jp2", "jpf"}, {"jxr", "wdp"}, {"tif", "tiff"}, {"htm", "html"})
_PROGRAMS = {
    "php",
    "php3",
    "php4",
    "php5",
    "php7",
    "php8",
    "phtml",
    "phar",
    "cgi",
    "pl",
    "py",
    "sh",
    "asp",
    "aspx",
    "jsp",
}
_LIKE_PROGRAMS = (b"<?php", b"<?=", b"#!")
_READ = os.O_RDONLY | os.O_NONBLOCK


class Candidate(msgspec.Struct, frozen=True):
    """A file that was found in the source; `why` is the reason of its refusal, empty if it is accepted."""

    path: str
    size_bytes: int
    why: str = ""


def type_of(path: str) -> str:
    """Return the type that a name says, in small letters; empty if it says none."""
    return os.path.splitext(os.path.basename(path))[1].removeprefix(".").lower()


def refused_by_name(path: str, rules: Uploads) -> str:
    """Return why a name is refused; empty if it is not."""
    name = os.path.basename(path)
    if any(part.startswith(".holdfast") for part in path.split("/")):
        return "the name is one that Holdfast keeps for itself"
    kind = type_of(path)
    if kind not in rules.types:
        return f"the type {kind!r} is not allowed" if kind else "the name has no type"
    inner = {part.lower() for part in name.split(".")[1:-1]} & _PROGRAMS
    return f"the name also says {sorted(inner)[0]!r}, which a web server may run" if inner else ""


def refused_by_content(path: str, head: bytes) -> str:
    """Return why a content does not fit the type that the name says; empty if it does."""
    import puremagic  # noqa: PLC0415 # only where files are uploaded

    kind = type_of(path)
    try:
        found = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        found = []
    most = max((one.confidence for one in found), default=0)
    likely = {one.extension.removeprefix(".").lower() for one in found if one.confidence == most or kind == "xml"}
    said = f"the content is {', '.join(sorted(likely)[:3])}" if likely - {""} else "the content is of no known type"
    if kind in _TEXTS:
        is_text = b"\0" not in head and _is_utf8(head) and not head.lstrip().startswith(_LIKE_PROGRAMS)
        return "" if is_text and most < _SURE else f"{said}, not a text of type {kind!r}"
    same = next((one for one in _SAME if kind in one), {kind})
    return "" if likely & same else f"{said}, not {kind!r}"


_SURE = 0.4


def _is_utf8(head: bytes) -> bool:
    try:
        head[: len(head) - 4 if len(head) >= HEAD_BYTES else len(head)].decode()  # a character may be cut at its end
    except UnicodeDecodeError as error:
        return len(head) >= HEAD_BYTES and error.start > len(head) - 8
    return True


def refused_folder(below: str, rules: Uploads) -> str:
    """Return why nothing may be uploaded into a folder of the dataset; empty if that is allowed."""
    place = below.strip("/")
    if not rules.folders or any(place == one or place.startswith(f"{one}/") for one in rules.folders):
        return ""
    return f"{place or 'the top of the dataset'} is not one of the folders for uploads: {', '.join(rules.folders)}"


def examined(source: str, rules: Uploads) -> Iterator[Candidate]:
    """Yield every entry of a source that is not a folder, with the reason for its refusal if it is refused.

    No link is followed. Raise NotFoundError.
    """
    with opened(source) as tree:
        for entry in entries(source):
            why = refused_by_name(entry.path, rules)
            if entry.kind != "file":
                why = f"it is a {entry.kind}, not a file"
            if not why:
                why = _refused_in(tree, entry)
            yield Candidate(entry.path, entry.size, why)


def _refused_in(tree: Beneath, entry: Entry) -> str:
    try:
        descriptor = tree.open(entry.raw_path(), _READ)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    try:
        return refused_by_content(entry.path, os.read(descriptor, HEAD_BYTES))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)


def opened(source: str) -> Beneath:
    """Open the folder of a source; for a single file that which contains it. Raise NotFoundError or RefusedError."""
    path = Path(source)
    if not os.path.lexists(path):
        raise NotFoundError(f"there is no {source}")
    if path.is_symlink():
        raise RefusedError(f"{source} is a link", next_step="Name what it leads to.")
    return Beneath(path if path.is_dir() else path.parent)


def entries(source: str) -> Iterator[Entry]:
    """Yield what a source has but folders, each with its path below the source."""
    path = Path(source)
    if not path.is_dir():
        yield entry_of(os.fsencode(path.name), path.lstat())
        return
    yield from (entry for entry in scan(os.fsencode(path), Excludes(())) if entry.kind != "directory")
