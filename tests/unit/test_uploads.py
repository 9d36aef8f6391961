"""What may be uploaded: three reasons for a refusal, links, and names that say a program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.application import uploads
from holdfast.application.uploads import examined, refused_by_content, refused_by_name, refused_folder
from holdfast.config.schema import Uploads
from holdfast.errors import NotFoundError, RefusedError

CONTENTS = {
    "jpg": bytes.fromhex("ffd8ffe000104a46494600010100000100010000"),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 20,
    "gif": b"GIF89a\1\0\1\0\0\0\0;",
    "webp": b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 20,
    "pdf": b"%PDF-1.4\n%abc\n",
    "ttf": b"\0\1\0\0\0\x0c\0\x80\0\3\0\x40",
    "woff": b"wOFF\0\1\0\0" + b"\0" * 20,
    "woff2": b"wOF2\0\1\0\0" + b"\0" * 20,
    "ico": b"\0\0\1\0\1\0\x10\x10\0\0\1\0",
    "mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
    "jp2": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ",
    "jxr": b"II\xbc\1\x08\0\0\0",
    "rtf": b"{\\rtf1\\ansi hello}",
    "svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "xml": b'<?xml version="1.0"?><a/>',
    "css": "body { content: 'é' }".encode(),
    "scss": b"$a: 1px;",
    "js": b"var a = 1;",
}
PROGRAMS = {"php": b"<?php echo 1; ?>", "short": b"<?= 1 ?>", "sh": b"#!/bin/sh\n", "exe": b"MZ\x90\0" + b"\0" * 60}
ELF = b"\x7fELF\2\1\1" + b"\0" * 20


@pytest.mark.parametrize("kind", CONTENTS)
def test_each_type_is_taken_by_its_own_content_and_by_no_other(kind: str) -> None:
    assert refused_by_content(f"x.{kind}", CONTENTS[kind]) == ""
    assert refused_by_content(f"x.{kind.upper()}", CONTENTS[kind]) == ""
    texts = {"css", "scss", "js"}
    for other, content in {**CONTENTS, **PROGRAMS, "elf": ELF, "html": b"<html><body></body></html>"}.items():
        if other == kind or {kind, other} <= texts or (kind, other) == ("xml", "svg"):
            continue
        assert refused_by_content(f"x.{kind}", content), f"{other} as {kind}"


def test_the_default_allows_the_documented_types_and_all_are_known_by_content() -> None:
    assert {*Uploads().types} == {*CONTENTS, "jpeg"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b.PNG", ""),
        ("b.php", "type 'php' is not allowed"),
        (".htaccess", "the name has no type"),
        ("noend", "the name has no type"),
        ("a.php.jpg", "also says 'php'"),
        ("a.PHTML.jpg", "also says 'phtml'"),
        ("my.holiday.jpg", ""),
        (".holdfast/x.jpg", "keeps for itself"),
    ],
)
def test_a_name_says_what_may_be_uploaded(name: str, said: str) -> None:
    found = refused_by_name(name, Uploads())
    assert (said in found) if said else not found


def test_a_long_text_that_is_cut_within_a_character_is_a_text() -> None:
    for shift in range(4):
        text = ("x" * shift + "ü€😀" * 30000).encode()[: uploads.HEAD_BYTES]
        assert refused_by_content("a.css", text) == ""
    assert refused_by_content("a.css", b"x" * 100 + b"\xff\xfe" + b"x" * 100)


def test_folders_are_allowed_with_those_in_them() -> None:
    rules = Uploads(folders=["uploads", "web/media"])
    assert [bool(refused_folder(one, rules)) for one in ("uploads", "uploads/2026/", "web/media/x")] == [False] * 3
    assert [bool(refused_folder(one, rules)) for one in ("", "web", "uploads2", "other/uploads")] == [True] * 4
    assert not refused_folder("anything", Uploads())


def test_a_source_is_examined_without_following_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.png").write_bytes(CONTENTS["png"])
    (source / "b.png").write_bytes(CONTENTS["jpg"])
    (source / "c.exe").write_bytes(PROGRAMS["exe"])
    (source / "d.png").symlink_to("/etc/passwd")
    (source / "folder.png").symlink_to("/etc")
    os.mkfifo(source / "pipe.png")
    (source / "secret.png").write_bytes(CONTENTS["png"])
    real = os.open

    def refuses(path: object, *arguments: object, **options: object) -> int:
        if path == b"secret.png":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuses)
    found = {one.path: one.why for one in examined(str(source), Uploads())}
    assert found.pop("deep/a.png") == ""
    assert found == {
        "b.png": "the content is jfif, jpe, jpeg, not 'png'",
        "c.exe": "the type 'exe' is not allowed",
        "d.png": "it is a symlink, not a file",
        "folder.png": "it is a symlink, not a file",
        "pipe.png": "it is a fifo, not a file",
        "secret.png": "it cannot be read: Permission denied",
    }
    assert [one.path for one in examined(str(source / "deep" / "a.png"), Uploads())] == ["a.png"]
    with pytest.raises(RefusedError, match="is a link"):
        list(examined(str(source / "d.png"), Uploads()))
    with pytest.raises(NotFoundError):
        list(examined(str(source / "none"), Uploads()))
