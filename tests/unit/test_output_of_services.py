"""What services printed: the last lines of files that are renamed when full, whole lines, one instance of a name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.cli.text import whole_lines
from holdfast.drivers.runtimes.supervisor.files import output
from holdfast.errors import NotFoundError
from holdfast.model import Release, ServiceInstance
from holdfast.reports.service_output import chosen
from holdfast.steps import services
from tests.proof import patience
from tests.unit.applications import make_app


@pytest.mark.parametrize(
    ("lines", "last"), [(0, []), (1, ["6"]), (3, ["4", "5", "6"]), (5, ["2", "3", "4", "5", "6"]), (9, list("123456"))]
)
def test_the_last_lines_are_of_the_full_file_too(lines: int, last: list[str], quick_folder: Path) -> None:
    (quick_folder / "web.log.1").write_text("1\n2\n3\n")
    (quick_folder / "web.log").write_text("4\n5\n6\n")
    assert list(whole_lines(output(quick_folder / "web.log", lines=lines, follow=False))) == last


def test_long_files_are_read_from_their_end(quick_folder: Path) -> None:
    (quick_folder / "web.log").write_text("".join(f"line {number}\n" for number in range(50_000)) + "no end")
    assert list(whole_lines(output(quick_folder / "web.log", lines=2, follow=False))) == ["line 49999", "no end"]
    assert list(output(quick_folder / "other.log", lines=2, follow=False)) == []


def test_following_goes_on_in_the_next_file(quick_folder: Path) -> None:
    path = quick_folder / "web.log"
    path.write_text("old\n")
    seen: list[str] = []
    ready = threading.Semaphore(0)

    def follow() -> None:
        for line in whole_lines(output(path, lines=1, follow=True)):
            seen.append(line)
            ready.release()
            if line == "end":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert ready.acquire(timeout=patience.limit(5))
    with path.open("a") as file:
        file.write("added\n")
    assert ready.acquire(timeout=patience.limit(5))
    path.rename(quick_folder / "web.log.1")
    path.write_text("newer\nend\n")
    thread.join(patience.limit(5))
    assert seen == ["old", "added", "newer", "end"]


def test_pieces_make_whole_lines() -> None:
    assert list(whole_lines([b"a", b"b\nc\r\n", "ü".encode()[:1], "ü".encode()[1:]])) == ["ab", "c", "ü"]
    assert list(whole_lines([])) == []


@pytest.fixture
def app(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    made = make_app(
        quick_folder, services={"web": {"command": ["x"]}, "web-admin": {"command": ["x"], "kind": "worker"}}
    )
    printed = {"web-r3": "bad\n", "web-admin-r3": "", "web-r2": "good\n", "web-r1": "old\n"}
    monkeypatch.setattr(made.context.runtime, "_output", printed)
    release = Release("r2", "p", "v2", "c" * 40, "/r", "2026-01-01T00:00:00Z")
    wanted = ServiceInstance("web-r2", "web", "web", release.id, "/r", ("x",), {})
    monkeypatch.setattr(services, "wanted", lambda application: [wanted])
    yield made
    made.close()


def test_a_service_means_the_instance_that_should_run(app: App) -> None:
    assert chosen(app, "web")[1:] == ("web-r2", ["web-r3", "web-r1"])
    assert chosen(app, "web-admin")[1:] == ("web-admin-r3", [])
    assert chosen(app, "web-r3")[1:] == ("web-r3", [])


def test_a_name_that_does_not_exist_is_not_found(app: App) -> None:
    with pytest.raises(NotFoundError) as refused:
        chosen(app, "wbe")
    assert refused.value.next_step.startswith("Did you mean web?")
