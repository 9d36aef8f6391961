"""An application whose operator runs it by `docker compose`: taken over, upgraded, brought back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.operations import upgrade
from holdfast.system.host import Host
from holdfast.system.keeper_client import Process
from tests import containers
from tests.compose_site import ComposeSite
from tests.e2e.cli import run, run_json
from tests.servers import docker


@pytest.fixture
def site(folder: Path) -> Iterator[ComposeSite]:
    made = ComposeSite(folder)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def adopted(site: ComposeSite) -> ComposeSite:
    done = run(site, "adopt")
    assert done.returncode == 0, done.stderr
    return site


def test_what_runs_is_taken_over_upgraded_and_brought_back(site: ComposeSite) -> None:
    """One after the other on one application, because its containers are most of the work."""
    before, old = site.fingerprint(), site.image_of("web")
    _take_over(site)
    assert site.get("/") == (200, {"version": "v1", "entries": 120})
    assert (site.image_of("web"), site.fingerprint()) == (old, before)
    begun, window = _upgrade(site, "v2")
    assert site.get("/") == (200, {"version": "v2", "entries": 120})
    assert site.image_of("web") != old
    # What the engine's API answers needs no client, and the clients of a database stay for the next step.
    assert len(begun) <= 40, "\n".join(begun)
    assert len(window) <= 4, "\n".join(window)
    backups = run_json(site, "backup", "list")["data"]["backups"]
    done = run(site, "rollback", "--discard-writes-since", backups[-1]["instant"])
    assert done.returncode == 0, done.stderr
    assert site.get("/") == (200, {"version": "v1", "entries": 120})
    assert (site.image_of("web"), site.fingerprint()) == (old, before)


def _take_over(site: ComposeSite) -> None:
    """Adopt what runs, after commands that are refused and change nothing."""
    image = site.image_of("web")
    refused = run(site, "install", "v1")
    assert refused.returncode == 4 and "`holdfast adopt`" in refused.stderr
    text = site.config.read_text()
    site.config.write_text(text.replace('name = "guestbook"\nhost', 'name = "gustbook"\nhost'))
    refused = run(site, "adopt")
    assert refused.returncode == 4 and "databases.main does not exist" in refused.stderr
    assert site.image_of("web") == image
    site.config.write_text(text)
    done = run(site, "adopt")
    assert done.returncode == 0, done.stderr
    status = run_json(site, "status")["data"]
    assert {service["name"].partition("-")[0]: service["detail"] for service in status["services"]} == {
        "web": "running",
        "worker": "running",
    }
    assert run(site, "adopt").returncode == 4


def _upgrade(site: ComposeSite, tag: str) -> tuple[list[str], list[str]]:
    """Upgrade, and return the commands of all processes that were begun, and of those while visitors were held."""
    begun: list[str] = []
    window: list[str] = []
    spawn = Host._spawn

    def counted(host: Host, argv: Sequence[str], **options: Any) -> Process:
        begun.append(" ".join(map(str, argv)))
        if site.get("/")[0] == 503:
            window.append(begun[-1])
        return spawn(host, argv, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Host, "_spawn", counted)
        app = site.open()
        try:
            app.run(upgrade.plan(app, tag))
        finally:
            app.close()
    return begun, window


@pytest.mark.combination
@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("dying-worker", "does not stay up"),
        # The others once more, as of the stand-in of Connect Access.
        pytest.param("v3", "exit code 1", marks=pytest.mark.combination),
        pytest.param("v4", "answered 500", marks=pytest.mark.combination),
        pytest.param("no-start", "does not stay up", marks=pytest.mark.combination),
        pytest.param("no-build", "exit code", marks=pytest.mark.combination),
        pytest.param("loses", "entries", marks=pytest.mark.combination),
    ],
)
def test_a_bad_release_is_undone_by_itself(adopted: ComposeSite, tag: str, said: str) -> None:
    adopted.add_bad_ones()
    assert run(adopted, "upgrade", "v2").returncode == 0
    before, image, worker = adopted.fingerprint(), adopted.image_of("web"), adopted.image_of("worker")
    done = run(adopted, "upgrade", tag)
    assert done.returncode == 6, done.stderr
    assert said in done.stderr
    assert adopted.fingerprint() == before
    assert (adopted.image_of("web"), adopted.image_of("worker")) == (image, worker)
    assert adopted.get("/") == (200, {"version": "v2", "entries": 120})


@pytest.mark.combination
def test_containers_that_the_operator_made_anew_are_told_before_anything_is_stopped(adopted: ComposeSite) -> None:
    assert run(adopted, "check").returncode == 0
    adopted.compose("up", "--detach", "web")
    done = run(adopted, "upgrade", "v2")
    assert done.returncode == 4, done.stderr
    assert "was not started by Holdfast" in done.stderr
    assert run(adopted, "check").returncode != 0
    name = next(word for word in done.stderr.split() if word.startswith(adopted.name) and "-web-" in word)
    containers.engine("rm", "--force", name.rstrip(";"))
    done = run(adopted, "service", "restart", "web")
    assert done.returncode == 0, done.stderr
    assert adopted.get("/") == (200, {"version": "v1", "entries": 120})
    done = run(adopted, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    done = run(adopted, "console", "--", "warm")
    assert done.returncode == 0, done.stderr
    assert adopted.get("/") == (200, {"version": "v2", "entries": 120})


@pytest.mark.combination
@pytest.mark.parametrize("by_hand", ["up", "down"])
def test_the_way_back_from_compose_by_hand(adopted: ComposeSite, by_hand: str) -> None:
    release = run_json(adopted, "status")["data"]["release"]
    assert release["label"] == release["commit"][:12], "the name HEAD would soon mean another commit"
    adopted.compose(*(["up", "--detach"] if by_hand == "up" else ["down"]))
    check = run(adopted, "check")
    assert check.returncode == 4
    if by_hand == "up":
        assert "web, worker: only containers run that Holdfast did not start" in check.stdout
        (names,) = re.findall("-> .* rm --force (.*); holdfast service start", check.stdout)
        containers.engine("rm", "--force", *names.split())
    else:
        assert "services: not running, and should run: web, worker" in check.stdout
        refused = run(adopted, "service", "start")
        assert refused.returncode == 4 and "up --detach database" in refused.stderr
        adopted.compose("up", "--detach", "--wait", "database")
    done = run(adopted, "service", "start")
    assert done.returncode == 0, done.stderr
    assert adopted.get("/") == (200, {"version": "v1", "entries": 120})
    assert run(adopted, "check").returncode == 0


@pytest.mark.combination
def test_a_release_whose_own_file_brings_a_service(adopted: ComposeSite) -> None:
    """Its image is not built by the project, and nothing but that file names the service."""
    text = adopted.config.read_text()

    def change(folder: Path) -> None:
        extra = {"image": docker.IMAGE, "volumes": docker.machine_mounts(), "command": ["sleep", "3600"]}
        _change(folder, lambda services: services.update(extra=extra))
        adopted.config.write_text('[services.extra]\nkind = "worker"\nsettle_seconds = 0.3\nstop_timeout_seconds = 1\n')
        adopted.git("add", "--force", "holdfast.toml")

    adopted.add("with-extra", "v2", change)
    adopted.config.write_text(text)
    done = run(adopted, "upgrade", "with-extra")
    assert done.returncode == 0, done.stderr
    assert len(adopted.containers("--filter=label=com.docker.compose.service=extra")) == 1


@pytest.mark.combination
def test_a_release_that_drops_a_service_and_one_that_mounts_its_sources(adopted: ComposeSite) -> None:
    adopted.add("without-worker", "v2", lambda folder: _change(folder, lambda services: services.pop("worker")))
    adopted.add(
        "mounted",
        "v2",
        lambda folder: _change(folder, lambda services: services["web"]["volumes"].append("./app.py:/app/app.py")),
    )
    before = adopted.fingerprint()
    done = run(adopted, "upgrade", "mounted")
    assert done.returncode == 4, done.stderr
    assert "from the checkout" in done.stderr
    assert "stop services" not in done.stderr
    assert adopted.fingerprint() == before
    done = run(adopted, "upgrade", "without-worker")
    assert done.returncode == 0, done.stderr
    assert len(adopted.containers("--filter=label=com.docker.compose.service=worker")) == 0
    assert (
        run(
            adopted,
            "rollback",
            "--discard-writes-since",
            run_json(adopted, "backup", "list")["data"]["backups"][-1]["instant"],
        ).returncode
        == 0
    )
    assert len(adopted.containers("--filter=label=com.docker.compose.service=worker")) == 0, "it did not run before"
    assert adopted.fingerprint() == before


def _change(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    model = json.loads((folder / "compose.yml").read_text())
    change(model["services"])
    (folder / "compose.yml").write_text(json.dumps(model))


@pytest.mark.combination
def test_init_proposes_what_takes_over_and_upgrades(site: ComposeSite) -> None:
    """Paths of the tests' own and the way this application migrates, which nothing says, are in an overlay."""
    before = site.config.read_text()
    site.config.unlink()
    done = run(site, "init", str(site.folder))
    assert done.returncode == 0, done.stderr
    assert "web: web" in done.stdout and "worker: worker" in done.stdout
    assert "ignored, because they are not services of the application itself: database" in done.stdout
    assert "postgresql: guestbook in " in done.stdout
    text = site.config.read_text()
    migrate = next(line for line in before.splitlines() if line.startswith("migrate = "))
    (site.folder / "holdfast.production.toml").write_text(
        "[application]\n"
        f'state = "{site.state}"\n'
        "[tasks]\n"
        f"{migrate}\n"
        "[vaults.local]\n"
        f'path = "{site.state.parent / "vault"}"\n'
    )
    assert "files.media" in text and "files.server" not in text, text
    assert run(site, "adopt").returncode == 0
    site.port = site.web_port  # without a gate of Holdfast's the web keeps the port of its files
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert site.get("/") == (200, {"version": "v2", "entries": 120})
