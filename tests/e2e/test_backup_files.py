"""`backup files`, `find`, `diff` and `restore --path`, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.render import Renderer
from tests import kept
from tests.contract import trees
from tests.e2e.cli import argv, run, run_json, succeed
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


@pytest.fixture
def album(site: Site) -> Path:
    """A folder with files of every kind, and a backup of it."""
    album = site.media / "album"
    trees.plain(album)
    os.link(album / "a-b", album / "a" / "second name")
    (album / "bad\x1b[31mname\n").write_text("x")
    with open(os.fsencode(album) + b"/not-utf8-\xff", "wb") as file:
        file.write(b"bytes")
    site.operate("backup")
    return album


def data(site: Site, *arguments: str) -> Any:
    value = run_json(site, "backup", *arguments)
    assert value["ok"], value
    return value["data"]


# --- files ---------------------------------------------------------------------------------------------


def test_files_lists_a_folder_or_everything_below_it(site: Site, album: Path) -> None:
    everything = {entry["path"] for entry in data(site, "files", "latest", "-r")["entries"]}
    below = data(site, "files", "latest", "media/album", "--recursive")["entries"]
    assert len(below) == len(trees.look(album))
    assert {entry["path"] for entry in below} < everything
    direct = data(site, "files", "latest", "/media/album/")["entries"]
    assert {entry["path"] for entry in direct} == {path["path"] for path in below if path["path"].count("/") == 2}
    assert {entry["path"].count("/") for entry in data(site, "files", "latest")["entries"]} == {1}
    [one] = data(site, "files", "latest", "media/album/a/one.txt")["entries"]
    assert (one["type"], one["mode"], one["size"]) == ("file", "640", 3)
    assert one["mtime_ns"] == 1_600_000_000_123_456_789
    assert "path_base64" in next(entry for entry in direct if "not-utf8" in entry["path"])


def test_what_is_printed_cannot_change_a_terminal(site: Site, album: Path) -> None:
    printed = succeed(site, "backup", "files", "latest", "media/album")
    assert "\x1b" not in printed
    assert "media/album/bad\\x1b[31mname\\n" in printed
    assert "2020-09-13 12:26:40  media/album/a/one.txt" in succeed(site, "backup", "files", "latest", "media/album/a")
    assert "media/album/link -> a/one.txt" in printed


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("media/album/none.txt", "holdfast backup find 'none.txt'"),
        ("photos/x", "begins with the name of a dataset: media"),
        ("media/../x", "is not a path in a dataset"),
        ("media/.holdfast/owner.json", "is not a path in a dataset"),
    ],
)
def test_a_path_that_is_not_there_is_named(site: Site, album: Path, path: str, message: str) -> None:
    for arguments in (("files", "latest", path), ("restore", "latest", "--path", path)):
        done = run(site, "backup", *arguments)
        assert done.returncode in (2, 4)
        assert message in done.stderr and "Traceback" not in done.stderr


def test_a_backup_is_looked_into_without_state_by_who_owns_the_vault(site: Site, album: Path, folder: Path) -> None:
    shutil.rmtree(site.state)
    assert data(site, "files", "latest", "media/album")["entries"]
    assert data(site, "find", "one.txt")["found"]
    succeed(site, "backup", "restore", "latest", "--path", "media/album", "--to", str(folder / "out"))
    assert not site.state.exists()


# --- find ----------------------------------------------------------------------------------------------


def test_find_shows_each_version_with_the_newest_backup_that_has_it(site: Site, album: Path) -> None:
    one = album / "a" / "one.txt"
    site.operate("backup")
    one.write_text("changed")
    site.operate("backup")
    one.chmod(0o600)
    site.operate("backup")
    one.unlink()
    site.operate("backup")
    ids = [backup["id"] for backup in data(site, "list")["backups"]]
    [found] = data(site, "find", "one.*")["found"]
    assert found["path"] == "media/album/a/one.txt"
    versions = [(one["backup"], one["content"], one["backups"], one["size"]) for one in found["versions"]]
    assert versions == [(ids[-2], "metadata", 1, 7), (ids[-3], "changed", 1, 7), (ids[-4], "new", 2, 3)]
    [found] = data(site, "find", "media/*/one.txt", "--all")["found"]
    states = [(one["backup"], one["content"]) for one in found["versions"]]
    assert states == [(ids[-2], "metadata"), (ids[-3], "changed"), (ids[-4], "same"), (ids[-5], "new")]
    [found] = data(site, "find", "one.txt", "--backup", ids[-3])["found"]
    assert [(one["backup"], one["content"]) for one in found["versions"]] == [(ids[-3], "changed")]
    [found] = data(site, "find", "one.txt", "--backup", ids[-4])["found"]
    assert [(one["backup"], one["content"]) for one in found["versions"]] == [(ids[-4], "same")]
    assert data(site, "find", "one.txt", "--backup", ids[-1])["found"] == []
    lines = succeed(site, "backup", "find", "one.txt").splitlines()
    assert lines[0].split() == ["BACKUP", "BACKUPS", "CONTENT", "SIZE", "MODIFIED", "(UTC)", "PATH"]
    assert lines[1].startswith(f"{ids[-2]}        1  metadata")
    assert succeed(site, "backup", "find", "nothing*") == "No backup has nothing*.\n"


# --- diff ----------------------------------------------------------------------------------------------


def changed(album: Path) -> None:
    trees.same_size_and_time(album)
    trees.additions(album)
    (album / "a" / "one.txt").chmod(0o600)
    (album / "empty").unlink()
    (album / "emptydir").touch()


EXPECTED = {
    "media/album/a-b": "changed",
    "media/album/a/second name": "changed",
    "media/album/a/b/more": "added",
    "media/album/a/one.txt": "metadata",
    "media/album/empty": "removed",
    "media/album/new": "added",
    "media/album/new/file": "added",
    "media/album/zz": "added",
}


def test_diff_compares_a_backup_with_the_live_application_and_with_another_one(site: Site, album: Path) -> None:
    changed(album)
    for number in range(3):
        site.post(b"since the backup %d" % number)
    now = data(site, "diff", "latest")
    found = {entry["path"]: entry["change"] for entry in now["files"] if entry["path"].startswith("media/album")}
    assert found == EXPECTED
    entries = now["databases"]["main"]["entries"]
    assert entries["after"] - entries["before"] == 3
    assert now["after"] is None and now == data(site, "diff", "latest", "--now")

    first = data(site, "list")["backups"][-1]["id"]
    site.operate("backup")
    both = data(site, "diff", first, "latest")
    assert both["files"] == [*map(with_digests(both), now["files"])] and both["databases"] == now["databases"]
    added = both["summary"]["added"]
    assert both["summary"] == {"added": added, "removed": 1, "changed": 2, "metadata": 1}
    assert added == sum(entry["change"] == "added" for entry in both["files"]) > 4, "entries have files of their own"
    backwards = data(site, "diff", "latest", first)
    assert backwards["summary"] == {"added": 1, "removed": added, "changed": 2, "metadata": 1}
    printed = succeed(site, "backup", "diff", first, "latest").splitlines()
    assert "M media/album/a-b  (8 B -> 8 B)" in printed
    assert "U media/album/a/one.txt" in printed
    assert [line.split() for line in printed if line.startswith("main.entries")] == [
        ["main.entries", "120", "123", "+3"]
    ]
    assert printed[-1].startswith(f"From backup {first} to backup ")
    assert (
        f"{added} added, 1 removed, 2 changed, 1 with another mode, owner or time in files; rows differ in"
        in printed[-1]
    )
    same = run(site, "backup", "diff", "latest")
    assert same.returncode == 0 and "to the live application: files are the same; rows differ in 0 of" in same.stdout


def with_digests(both: Any) -> Any:
    """A live scan has no digests, and everything else must be the same."""
    digests = {entry["path"]: (entry["after"] or {}).get("sha256") for entry in both["files"]}

    def completed(entry: Any) -> Any:
        if entry["after"] is not None and (digest := digests.get(entry["path"])):
            entry["after"]["sha256"] = digest
        return entry

    return completed


def test_diff_names_a_dataset_that_only_one_of_both_has(site: Site) -> None:
    site.operate("backup", only=("main",))
    id = data(site, "list")["backups"][-1]["id"]
    found = data(site, "diff", id)
    assert found["files"] == [] and found["notes"] == ["media is only in the live application, and is not compared."]
    assert run(site, "backup", "diff", id, id, "--now").returncode == 2


# --- restore --path ------------------------------------------------------------------------------------


def test_files_come_back_while_the_services_go_on(site: Site, album: Path) -> None:
    original = trees.look(site.media)
    changed(album)
    before = trees.look(site.media)
    rows = site.store.digest()
    pids = running(site)
    plan = run(site, "backup", "restore", "latest", "--path", "media/album/empty", "--dry-run")
    assert "media/album/empty is brought back." in plan.stdout and trees.look(site.media) == before

    asked = subprocess.run(
        [word for word in argv(site, "backup", "restore", "latest", "--path", "media/album/a-b") if word != "--yes"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=patience.limit(60),
        check=False,
    )
    assert asked.returncode == 2
    assert "media/album/a-b is replaced (now 8 bytes of" in asked.stderr and trees.look(site.media) == before

    paths = ("--path", "media/album/a-b", "--path", "media/album/empty", "--path", "media/album/a/one.txt")
    done = run(site, "backup", "restore", "latest", *paths)
    assert done.returncode == 0, done.stderr
    now = trees.look(site.media)
    back = [b"album/empty", b"album/a/one.txt"]
    assert [now[path] for path in back] == [original[path] for path in back]
    assert now[b"album/a-b"][:-1] == original[b"album/a-b"][:-1], "its other name was not asked for"
    others = {path for path in before if path not in (*back, b"album/a-b", b"album/a/second name")}
    assert {path: now[path] for path in others} == {path: before[path] for path in others}, "also the folders' times"
    assert (album / "a" / "second name").read_bytes() == b"BESIDE A"

    succeed(site, "backup", "restore", "latest", "--path", "media/album")
    now = trees.look(site.media)
    assert {path: facts for path, facts in now.items() if path in original} == original
    assert (album / "new" / "file").read_bytes() == b"new", "what is not in the backup stays"
    assert running(site) == pids and site.store.digest() == rows
    assert (album.parent / ".holdfast").is_dir() and b"BESIDE A" in kept_contents(site)


def running(site: Site) -> dict[str, int | None]:
    app = site.open()
    try:
        return {name: status.pid for name, status in app.context.runtime.statuses().items()}
    finally:
        app.close()


def kept_contents(site: Site) -> set[bytes]:
    """What was replaced is kept for a time."""
    return {path.read_bytes() for path in (site.media / ".holdfast").glob("*/aside/*") if path.is_file()}


def test_a_damaged_content_leaves_everything_as_it_was(site: Site, album: Path) -> None:
    (album / "a-b").write_bytes(b"changed")
    before = trees.look(site.media)
    for pack in (site.vault / "packs").glob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes().replace(b"beside a", b"BESIDE A"))
    done = run(site, "backup", "restore", "latest", "--path", "media/album")
    assert done.returncode in (6, 9) and "is damaged at content" in done.stderr
    assert trees.look(site.media) == before
    out = site.folder / "out"
    done = run(site, "backup", "restore", "latest", "--path", "media/album", "--to", str(out))
    assert done.returncode == 9 and "is damaged at content" in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--only", "media"),
        ("--into", "x"),
        ("--no-safety",),
        ("--to", "x", "--dry-run"),
    ],
)
def test_options_that_contradict_are_refused(site: Site, options: tuple[str, ...]) -> None:
    assert run(site, "backup", "restore", "latest", "--path", "media/x", *options).returncode == 2
    assert run(site, "backup", "restore", "latest", "--to", "x").returncode == 2


# --- restore --path --to -------------------------------------------------------------------------------


def test_files_are_written_into_a_new_or_an_empty_folder_and_no_other(site: Site, album: Path, folder: Path) -> None:
    before = trees.look(site.media)
    out = folder / "out"
    paths = ("--path", "media/album/a", "--path", "media/album/a-b", "--path", "media/album/link")
    found = run_json(site, "backup", "restore", "latest", *paths, "--to", str(out))
    assert found["data"]["folder"] == str(out)
    written = trees.look(out / "media")
    assert written == {path: before[path] for path in written}
    assert {path for path in before if path.startswith((b"album/a/", b"album/link"))} < written.keys()
    assert (out / "media" / "album" / "a" / "second name").stat().st_nlink == 2
    assert sorted(path.name for path in out.iterdir()) == ["media"] and not (out / "media" / ".holdfast").exists()
    assert trees.look(site.media) == before

    again = run(site, "backup", "restore", "latest", *paths, "--to", str(out))
    assert again.returncode == 4 and "is not empty" in again.stderr
    (folder / "empty").mkdir()
    succeed(site, "backup", "restore", "latest", "--path", "media", "--to", str(folder / "empty"))
    assert trees.look(folder / "empty" / "media") == before
    (folder / "link").symlink_to(folder / "elsewhere")
    for place in (folder / "link", site.media / "out", site.vault / "out", site.state / "out", folder / "none" / "out"):
        done = run(site, "backup", "restore", "latest", "--path", "media", "--to", str(place))
        assert done.returncode == 4, place
        assert not (place / "media").exists() and not (folder / "elsewhere").exists()


def test_a_file_that_the_backup_does_not_have_leaves_no_folder(site: Site, album: Path, folder: Path) -> None:
    for place, there in ((folder / "out", False), (folder / "empty", True)):
        if there:
            place.mkdir()
        paths = ("--path", "media/album", "--path", "media/none")
        done = run(site, "backup", "restore", "latest", *paths, "--to", str(place))
        assert done.returncode == 4 and "has no media/none" in done.stderr
        assert place.exists() is there and not (there and list(place.iterdir()))


# --- large listings ------------------------------------------------------------------------------------


def test_a_streamed_object_is_the_one_that_would_be_printed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    from holdfast.cli.backup_files import _stream_result

    renderer = Renderer("backup files", as_json=True)
    for items in ([], [{"path": "a"}], [{"path": str(number)} for number in range(1201)]):
        for tail in ({}, {"summary": {"added": 1}}):
            renderer.result({"backup": "x", "entries": items, **tail})
            at_once = json.loads(capsys.readouterr().out)
            _stream_result(renderer, {"backup": "x"}, "entries", iter(items), lambda tail=tail: tail)
            assert json.loads(capsys.readouterr().out) == at_once
