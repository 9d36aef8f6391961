"""The application's own pages: which is found, and that no request leads out of their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.drivers.gates import pages


@pytest.fixture
def release(folder: Path) -> Path:
    (folder / "release" / "pages" / "deep").mkdir(parents=True)
    for name in ("503.html", "503.shop.example.html", "502.html", "deep/503.html"):
        (folder / "release" / "pages" / name).write_text(name)
    (folder / "503.secret.html").write_text("secret")
    return folder / "release"


@pytest.mark.parametrize(
    ("code", "host", "found"),
    [
        (503, "shop.example", "503.shop.example.html"),
        (503, "SHOP.example:8443", "503.shop.example.html"),
        (503, "shop.example.", "503.shop.example.html"),
        (503, "other.example", "503.html"),
        (503, "", "503.html"),
        (502, "shop.example", "502.html"),
        (451, "shop.example", None),
        (503, "../../503.secret", "503.html"),
        (503, "deep/503", "503.html"),
        (503, "..", "503.html"),
        (503, "a\0b", "503.html"),
        (503, "[::1]:80", "503.html"),
        (503, "x" * 5000, "503.html"),
    ],
)
def test_the_page_of_a_host_comes_before_that_of_all(release: Path, code: int, host: str, found: str | None) -> None:
    assert pages.find([str(release)], "pages", code, host) == found


def test_no_link_and_nothing_but_a_plain_file_is_read(release: Path, folder: Path) -> None:
    inside = release / "pages"
    (inside / "503.link.html").symlink_to(folder / "503.secret.html")
    os.mkfifo(inside / "503.pipe.html")
    (inside / "503.folder.html").mkdir()
    for host in ("link", "pipe", "folder"):
        assert pages.find([str(release)], "pages", 503, host) == "503.html"
    (release / "linked").symlink_to(folder)
    assert pages.find([str(release)], "linked", 503, "secret") is None
    assert pages.find([str(release)], "../", 503, "secret") is None
    assert pages.find([str(release)], "pages/../..", 503, "secret") is None


def test_what_a_release_does_not_have_is_looked_for_next_to_the_configuration(release: Path, folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "503.html").write_text("of the operator")
    assert pages.find([str(release), str(folder)], "elsewhere", 503, "") == "of the operator"
    assert pages.find([str(folder / "gone"), str(folder)], "elsewhere", 503, "") == "of the operator"
