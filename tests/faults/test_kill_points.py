"""Every operation killed at every point; after `recover` the application is whole, old or new."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdfast.application import sanitizing
from holdfast.engine import fence
from holdfast.errors import HoldfastError
from holdfast.operations import recover
from holdfast.steps import preflight, services
from holdfast.system.processes import with_cwd_under
from tests import containers, kept
from tests.faults.killing import Forker
from tests.faults.scenarios import (
    CONTAINER_STEPS,
    DATABASE_STEPS,
    ENGINE_SCENARIOS,
    HOOKS,
    INDEX_STEPS,
    LOST,
    SCENARIOS,
    SHIPPED,
    Scenario,
    changed_after_backup,
)
from tests.memory import make_folder
from tests.proof.endings import at_end
from tests.proof.plugin import selection_of
from tests.proof.rotation import Take
from tests.proof.touched import known_scenarios
from tests.site import IN_AN_INDEX, Site
from tests.snapshot import Snapshot

_ATTEMPTS = 3
_MOST_FAILURES = 5
# What may differ between two runs of the same scenario: times, process ids, random names.
_VARIABLE = re.compile(r"[0-9a-f]{4,}|\d+")

pytestmark = pytest.mark.faults


class Writers:
    """Visitors that add entries through the gate all the time and remember what was acknowledged."""

    def __init__(self, site: Site, count: int = 2) -> None:
        self._site = site
        self._stop = threading.Event()
        self.acknowledged: list[int] = []
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]

    def _write(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            status, body = self._site.post(b"writer %d turn %d" % (number, turn))
            if status == 201:
                self.acknowledged.append(body["id"])
            self._stop.wait(0.02)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Ground:
    """A scenario prepared: the saved site, its old and new state, its points."""

    scenario: Scenario
    site: Site
    saved: Snapshot | None  # none where a filesystem is put back instead
    old: str
    old_label: str | None
    new: str
    new_label: str | None
    points: list[str]
    forker: Forker
    step_of: dict[int, str | None] = field(default_factory=dict)  # the name of the step that a point lies in
    operation: str = ""
    existing: list[int] = field(default_factory=list)  # on a server engine the points of its driver's steps
    recoveries: dict[tuple[str, ...], int] = field(default_factory=dict)


# Those that wait for their next use, each with its environment.
_forkers: dict[frozenset[tuple[str, str]], Forker] = {}


@contextlib.contextmanager
def lent_forker() -> Iterator[Forker]:
    """Lend a process that forks: it has the PATH on which the server of a site has put its programs.

    One whose user failed is not lent again, because it may have an answer left.
    """
    key = frozenset(item for item in os.environ.items() if item[0] != "PYTEST_CURRENT_TEST")
    forker = _forkers.pop(key, None)
    if forker is None:
        forker = Forker()
        at_end(forker.close)
    yield forker
    _forkers[key] = forker


@contextlib.contextmanager
def prepared(scenario: Scenario) -> Iterator[Ground]:
    folder = make_folder()
    try:
        with kept.site(scenario.engine, scenario.tags, slow=scenario.slow) as site, lent_forker() as forker:
            if scenario.before is not None:
                scenario.before(site)
            saved = site.save()
            site.put_back(saved, start=scenario.installed)
            old, old_label = site.fingerprint(), site.release_label()
            record = folder / "points"
            end, output = forker.run(site.folder, scenario.title, "act", kill_at=None, record=record)
            assert end == ("failed" if scenario.fails else "done"), output
            new, new_label = site.fingerprint(times=scenario.installed and not scenario.anew), site.release_label()
            if scenario.fails:
                assert (new, new_label) == (old, old_label), "the failed operation was not undone"
            points = record.read_text().splitlines()
            operation, step_of = steps_of(site, points)
            existing = list(range(len(points)))
            if scenario.engine != "sqlite":
                steps = CONTAINER_STEPS if scenario.in_containers else DATABASE_STEPS
                if scenario.engine in IN_AN_INDEX:
                    # The steps of the databases alone are taken without an index.
                    steps = INDEX_STEPS if scenario.engine == "search" else INDEX_STEPS | {"database.swap"}
                existing = [number for number in existing if step_of[number] in steps]
            yield Ground(
                scenario, site, saved, old, old_label, new, new_label, points, forker, step_of, operation, existing
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def steps_of(site: Site, points: list[str]) -> tuple[str, dict[int, str | None]]:
    """Return the kind of the operation that just ran, and the step of each point.

    A point belongs to the step that the journal wrote of last, from its `doing` on.
    """
    app = site.open()
    try:
        operation = app.journal.operations(1)[0]
        names = {step.position: step.name for step in app.journal.steps(operation.id)}
    finally:
        app.close()
    found: dict[int, str | None] = {}
    current = None
    for number, label in enumerate(points):
        match = re.fullmatch(r"journal step (\d+) (\w+)", label)
        if match is not None:
            current = names[int(match[1])]
        found[number] = current
    return operation.kind, found


def check_whole(ground: Ground, acknowledged: list[int]) -> str:
    """Asserts everything that must be true after `recover`; returns `old` or `new`."""
    site, scenario = ground.site, ground.scenario
    app = site.open()
    try:
        assert app.journal.unfinished() == []
        record = app.journal.operations(1)[0] if app.journal.operations(1) else None
        if record is not None:
            assert fence.survivors(record.id, app.journal.record_of_processes(record.id)) == []
        assert not list((site.state / "open").glob("[!.]*")), "a marker of an open operation is left"
        vault = app.context.vault
        assert vault is not None
        if site.vault.exists():
            assert vault.verify(None, lambda *_: None, lambda: None) == []
            assert not (site.vault / "tmp").exists() or list((site.vault / "tmp").iterdir()) == []
            assert vault.damaged() == []
        assert all(app.context.packages.whole(package) for package in app.context.packages.packages())
        # A look at a package that was killed belongs to no operation: the next look removes what it left.
        unfinished = [path.name for path in (site.state / "packages" / "tmp").glob("*") if path.name[:5] != "look-"]
        assert unfinished == [], "an unfinished package is left"
        if app.context.registry is not None:
            for stored in app.context.registry.packages():
                app.context.registry.verify(app.context.registry.find(stored.name), lambda *_: None)
        gate = app.context.gate.instance()
        running = {name for name, status in app.context.runtime.statuses().items() if status.running}
        expected = {instance.name for instance in services.wanted(app.context)}
        assert running - ({gate.name} if gate is not None else set()) == expected, "a boot would not start what runs"
        if not scenario.keeps_replaced:
            assert preflight.private_folders(app.context) == []
    finally:
        app.close()
    check_hooks(site)
    check_exports(site.folder / "away")
    check_sanitized(site)
    check_secrets(site)
    scratch = site.folder / "scratch"
    assert with_cwd_under(str(scratch)) == [] and list(scratch.glob("*")) == [], "a private server's folder is left"
    label = site.release_label()
    held = site.get("/")[0] == 503
    if label is not None:
        status, body = site.get("/")
        if scenario.held_afterwards and held:
            return "new"
        if status != 200:
            log = (site.state / "supervisor" / "supervisord.log").read_text()[-1500:]
            raise AssertionError(f"the application does not answer: {status}\n{log}")
        assert body["version"] == label
        assert site.get("/health")[0] == 200
    if site.project:
        check_containers(site, label)
    if scenario.writers:
        for number in acknowledged:
            assert site.get(f"/entry?id={number}") == (200, site.get(f"/entry?id={number}")[1] | {"whole": True})
        return "old" if label == ground.old_label else "new"
    state = site.fingerprint()
    came_back = (site.app_folder / LOST).exists()
    shared = site.app_folder / "shared" / SHIPPED
    if (state, label) == (ground.old, ground.old_label):
        assert not came_back, "configuration of an undone restore is left"
        assert not shared.exists(), "what an undone installation put at a shared path is left"
        return "old"
    assert label == ground.new_label, f"release {label} with neither old nor new data"
    # An installation writes files anew, each with the time of its own run.
    state = site.fingerprint(times=scenario.installed and not scenario.anew)
    assert state == ground.new, f"the data at {label} are neither the old nor the new"
    if not scenario.installed and not site.project:
        assert (shared / "0001_entries.py").exists() and (site.app_folder / "current" / "var" / "b").exists()
    assert came_back == (scenario.before is changed_after_backup), "configuration did not come back"
    return "new"


def check_hooks(site: Site) -> None:
    """Each hook ran at most once in each operation, and once if the journal says that it ended."""
    path = site.folder / HOOKS
    ran = path.read_text().splitlines() if path.exists() else []
    assert len(ran) == len(set(ran)), f"a hook was repeated: {ran}"
    app = site.open()
    try:
        for record in app.journal.operations(3):
            for step in app.journal.steps(record.id):
                if step.name.startswith("hook.") and step.facts.get("ended"):
                    assert f"{record.id} {step.parameters['hook']}" in ran
    finally:
        app.close()


def check_exports(folder: Path) -> None:
    """What is there has a backup's name and is whole; of others nothing is left."""
    for path in folder.iterdir() if folder.exists() else ():
        assert not path.name.startswith("."), "what was not finished is left"
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=path, check=True)
        for name, facts in json.loads((path / "manifest.json").read_text())["datasets"].items():
            assert (path / facts.get("file", f"{name}.tar.gz")).exists()


def check_sanitized(site: Site) -> None:
    """What is there is listed and whole, or else nothing of it is left."""
    app = site.open()
    store = sanitizing.store(app.context)
    app.close()
    if not store.folder.exists():
        return
    found, damaged = store.all()
    assert damaged == []
    known = {name for backup in found for name in (*backup.files, f"{backup.id}-sanitized.json")}
    assert {path.name for path in store.folder.iterdir()} == known, "what was not finished is left"
    for backup in found:
        store.verify(backup)


def check_secrets(site: Site) -> None:
    """What runs has the value that is in use, and the pending one is either still pending or in use."""
    app = site.open()
    try:
        store = app.loaded.secret_store()
        if not store.path.exists():
            return
        value = store.value("TOKEN")
        pending = [store.pending_value(name) for name in store.pending()]
        assert (value, pending) in (("value of before", ["value of afterwards"]), ("value of afterwards", []))
        for status in app.context.runtime.statuses().values():
            if status.name.startswith("web-") and status.pid is not None:
                environment = Path(f"/proc/{status.pid}/environ").read_bytes().split(b"\0")
                assert f"TOKEN={value}".encode() in environment, "the web runs with another value"
    finally:
        app.close()


def check_containers(site: Site, label: str | None) -> None:
    """Check one container per service, of the release's images, which restarts, under the project's own name."""
    listed = containers.of_project(site.project, client=site.client)
    found = json.loads(containers.engine("container", "inspect", *listed, client=site.client)) if listed else []
    services = sorted(item["Config"]["Labels"]["com.docker.compose.service"] for item in found)
    assert services == ([] if label is None else site.services)
    if label is None:
        return
    wanted = json.loads((site.app_folder / "current" / "images.json").read_text())
    for item in found:
        service = item["Config"]["Labels"]["com.docker.compose.service"]
        assert item["State"]["Running"], service
        assert f"sha256:{item['Image'].removeprefix('sha256:')}" == wanted[service]["id"], service
        assert item["HostConfig"]["RestartPolicy"]["Name"] == "always", service
    assert containers.id_of(f"{site.project}:production", client=site.client) == wanted["web"]["id"]


def recover_here(site: Site) -> None:
    recover.recover(site.state)


def one_point(ground: Ground, number: int) -> str:
    """Kill at one point, recover, check; a recovery of a new kind is itself killed once and done again.

    A run may have a point less than the one that was recorded, as was seen once of MySQL on a busy machine. It is then
    done again, and must reach its point.
    """
    site, scenario = ground.site, ground.scenario
    for attempt in range(_ATTEMPTS):
        site.put_back(ground.saved, start=scenario.installed)
        writers = Writers(site) if scenario.writers else None
        if writers is not None:
            writers.start()
        record = site.folder.with_name("labels")
        record.unlink(missing_ok=True)
        end, output = ground.forker.run(site.folder, scenario.title, "act", kill_at=number, record=record)
        if writers is not None:
            time.sleep(0.1)  # visitors go on while the operation lies there dead
            writers.stop()
        if end == "killed":
            break
        assert attempt + 1 < _ATTEMPTS and end == ("failed" if scenario.fails else "done"), (
            f"not reached: {end} {output}"
        )
    check_labels(ground, number, record.read_text().splitlines())
    signature = signature_of(site)
    if signature not in ground.recoveries:
        kill_recovery(ground, signature)
    recover_here(site)
    return check_whole(ground, list(writers.acknowledged) if writers is not None else [])


def check_labels(ground: Ground, number: int, reached: list[str]) -> None:
    """Assert that a run on a world that was used before went the recorded way.

    Visitors that write and polls of a busy engine may add or save a point between two journal writes; these come in the
    recorded order all the same.
    """
    reached = [_VARIABLE.sub("x", label) for label in reached]
    recorded = [_VARIABLE.sub("x", label) for label in ground.points]
    if ground.scenario.engine == "sqlite" and not ground.scenario.writers:
        assert reached == recorded[: number + 1], "the world was not what it was when the points were recorded"
        return
    written, expected = ([label for label in labels if label.startswith("journal")] for labels in (reached, recorded))
    assert written == expected[: len(written)], "the world was not what it was when the points were recorded"


def signature_of(site: Site) -> tuple[str, ...]:
    """What a recovery will have to do: the states of the steps and whether it is committed."""
    app = site.open()
    try:
        return tuple(
            f"{record.committed} {step.name} {step.state}"
            for record in app.journal.unfinished()
            for step in app.journal.steps(record.id)
        )
    finally:
        app.close()


def kill_recovery(ground: Ground, signature: tuple[str, ...]) -> None:
    """Kills the recovery at one of its own points, another one for each kind of recovery."""
    number = len(ground.recoveries) * 7 % 23
    ground.recoveries[signature] = number
    end, output = ground.forker.run(ground.site.folder, ground.scenario.title, "recover", kill_at=number)
    assert end in ("killed", "done"), output


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each part of a scenario that this run takes."""
    if "take" not in metafunc.fixturenames:
        return
    scenarios = ENGINE_SCENARIOS if "engine" in metafunc.function.__name__ else SCENARIOS
    selection = selection_of(metafunc.config)
    found = []
    for scenario in scenarios:
        titles = [other.title for other in scenarios if other.family == scenario.family]
        for take in selection.takes(scenario.family, scenario.title, titles):
            found.append(pytest.param(scenario, take, id=f"{scenario.title}-{take}"))
    metafunc.parametrize(("scenario", "take"), found)


def take_points(scenario: Scenario, take: Take, note: Callable[[str, object], None]) -> None:
    with prepared(scenario) as ground:
        check_record(ground)
        chosen = take.points(ground.existing, ground.step_of)
        ends = {"old": 0, "new": 0}
        failures = []
        for number in chosen:
            try:
                ends[one_point(ground, number)] += 1
            except (AssertionError, HoldfastError, OSError) as error:
                failures.append(
                    f"point {number} ({ground.points[number]}): {type(error).__name__}: {str(error)[:1800]}"
                )
                if len(failures) >= _MOST_FAILURES:
                    break
                ground.site.shut_down()
        note(
            "kill_points",
            f"{scenario.title} {take}: {len(chosen)} of {len(ground.existing)} points, {len(ground.recoveries)}"
            f" recoveries killed, {ends}",
        )
        assert not failures, "\n".join(failures)
        if take.is_whole and not scenario.fails and take.shard == 0:
            assert ends["old"], "no point ended in the old state"


def check_record(ground: Ground) -> None:
    """Assert that no point was lost, and that the record names the steps by which a change finds its scenarios."""
    known = known_scenarios().get(ground.scenario.title)
    assert known is not None, "this scenario has no record: `make points` writes it"
    assert len(ground.existing) >= known.points, f"{len(ground.existing)} points, fewer than the {known.points} known"
    steps = {ground.step_of[number] for number in ground.existing} - {None}
    assert (ground.operation, steps) == (known.operation, known.steps), (
        "the record is old: `make points` writes it anew"
    )


def test_killed_at_every_point_ends_old_or_new(
    scenario: Scenario, take: Take, record_property: Callable[[str, object], None]
) -> None:
    take_points(scenario, take, record_property)


def test_killed_at_every_point_of_an_engines_steps_ends_old_or_new(
    scenario: Scenario, take: Take, record_property: Callable[[str, object], None]
) -> None:
    take_points(scenario, take, record_property)
