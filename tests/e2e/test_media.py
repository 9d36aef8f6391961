"""`media list | download | dump | upload | delete`, and the manual copy of media that `import files` replaces."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.contract import trees
from tests.e2e.cli import run, run_json, succeed
from tests.site import Site

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
LEAVES = ("--unsanitized", "--reason", "a test")


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def pictures(folder: Path, *names: str, text: str = "") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG + name.encode() + text.encode())
    return folder


def test_files_of_allowed_types_and_folders_are_uploaded_and_belong_to_the_web(site: Site, folder: Path) -> None:
    site.config.with_name("holdfast.prod.toml").write_text('[files.media.uploads]\nfolders = ["album"]\n')
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(site.media, owner, -1)
    new = pictures(folder / "new", "a.png", "deep/b.png")
    pictures(site.media / "album", "a.png", text=" earlier")
    (new / "deep" / "evil.php").write_text("<?php")
    before = trees.look(site.media)
    for arguments in (("--dry-run",), ()):
        done = run(site, "media", "upload", str(new), "media/album", *arguments)
        assert "deep/evil.php" in done.stdout + done.stderr and "type 'php' is not allowed" in done.stdout + done.stderr
        assert done.returncode == (0 if arguments else 4)
        assert trees.look(site.media) == before, "nothing is written"
    assert run(site, "media", "upload", str(new), "media/other").returncode == 4
    assert run(site, "media", "upload", str(new), "media/album/../..").returncode == 4
    (new / "deep" / "evil.php").rename(new / "deep" / "evil.png")
    done = run(site, "media", "upload", str(new), "media/album", "--skip-refused")
    assert done.returncode == 0 and "not 'png'" in done.stderr, done.stderr
    for name in ("a.png", "deep/b.png"):
        path = site.media / "album" / name
        assert path.read_bytes() == PNG + name.encode() and path.stat().st_uid == owner
    assert not (site.media / "album" / "deep" / "evil.png").exists()
    listed = run_json(site, "media", "list", "media", "--filter", "album/")["data"]["files"]
    assert [one["path"] for one in listed] == ["album/a.png", "album/deep/b.png"]
    assert "evil.png was refused" in succeed(site, "log", "show", "latest")


def test_no_link_in_the_dataset_leads_an_upload_out_of_it(site: Site, folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()
    (site.media / "album").symlink_to(outside)
    pictures(folder / "new", "a.png")
    succeed(site, "media", "upload", str(folder / "new"), "media/album")
    assert not list(outside.iterdir()) and not (site.media / "album").is_symlink()
    assert (site.media / "album" / "a.png").read_bytes() == PNG + b"a.png"


def test_a_dump_brings_the_same_files_back(site: Site, folder: Path) -> None:
    pictures(site.media / "album", "a.png", "ü/b.png")
    (site.media / "album" / "a.png").chmod(0o600)
    (site.media / "album" / "link.png").symlink_to("a.png")
    target = folder / "media.zip"
    refused = run(site, "media", "dump", "media", "--to", str(target))
    assert (refused.returncode, target.exists(), "--unsanitized" in refused.stderr) == (4, False, True)
    succeed(site, "media", "dump", "media", "--to", str(target), *LEAVES)
    assert target.stat().st_mode & 0o777 == 0o600 and os.listdir(folder) == ["media.zip"]
    assert run(site, "media", "dump", "media", "--to", str(target), *LEAVES).returncode == 4, "it replaces nothing"
    before = contents(site.media)
    assert run(site, "media", "delete", "media").returncode == 0
    assert [path for path in site.media.rglob("*") if path.is_file() and ".holdfast" not in path.parts] == []
    succeed(site, "import", "files", str(target), "--into", "media", "--replace")
    assert contents(site.media) == before


def contents(root: Path) -> dict[str, tuple[int, bytes]]:
    found = {}
    for path in (one for one in root.rglob("*") if ".holdfast" not in one.parts):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (0, os.readlink(path).encode())
        else:
            found[name] = (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def test_one_file_is_downloaded_and_one_is_deleted(site: Site, folder: Path) -> None:
    pictures(site.media / "album", "a.png", "b.png")
    succeed(site, "media", "download", "media", "--file", "album/a.png", "--to", str(folder / "look"), *LEAVES)
    assert [path.name for path in (folder / "look").rglob("*") if path.is_file()] == ["a.png"]
    assert (folder / "look").stat().st_mode & 0o777 == 0o700
    done = run(site, "media", "download", "media", "--file", "album/no.png", "--to", str(folder / "no"), *LEAVES)
    assert (done.returncode, (folder / "no").exists()) == (4, False)
    done = run(site, "media", "delete", "media", "--file", "album/a.png", "--dry-run")
    assert "1 files of media are deleted" in done.stdout + done.stderr and (site.media / "album" / "a.png").exists()
    succeed(site, "media", "delete", "media", "--file", "album/a.png")
    assert os.listdir(site.media / "album") == ["b.png"]
    assert run(site, "media", "delete", "media", "--file", "album/a.png").returncode == 4


def test_how_to_upload_media_files_to_the_server(site: Site, folder: Path) -> None:
    """The FAQ's steps by hand: upload an archive, extract it, copy into a subfolder as the web's account."""
    new = pictures(folder / "new", "attachment/a.png", "deep/b.png")
    archive = folder / "media.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(new, arcname=".")
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(site.media, owner, -1)
    succeed(site, "import", "files", str(archive), "--into", "media/app/attachment")
    found = site.media / "app" / "attachment"
    for name in ("attachment/a.png", "deep/b.png"):
        assert (found / name).read_bytes() == PNG + name.encode()
    assert {path.stat().st_uid for path in (site.media / "app", *found.rglob("*"))} == {owner}
