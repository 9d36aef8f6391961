"""The journal gives back what was written, at any point, in any order, after any reopening."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.engine.journal import RESERVE_BYTES, Journal
from holdfast.errors import DamagedError, RefusedError
from holdfast.model import Outcome, Plan, PlanParameters, StepState
from holdfast.system import durable
from tests.fakes import Step
from tests.handles import open_below
from tests.memory import make_folder
from tests.proof import patience

_text = st.text(max_size=12)
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), _text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_text, inner, max_size=3)),
    max_leaves=5,
)
_facts = st.dictionaries(_text, _json, max_size=3)
_plans = st.builds(
    lambda names, after, mode, remove, lock: Plan(
        kind="test.kind",
        title="a test",
        lock=lock,
        parameters=PlanParameters(mode=mode, remove=tuple(remove)),
        steps=tuple(Step(f"do.{name}", f"title {name}", {"n": name}) for name in names),
        after_commit=tuple(Step(f"after.{name}", name) for name in after),
    ),
    st.lists(_text, min_size=1, max_size=3),
    st.lists(_text, max_size=2),
    _text,
    st.lists(_text, max_size=2),
    st.sampled_from(["change", "backup", "gate"]),
)


@dataclass
class Expected:
    """What the journal must say of one operation."""

    plan: Plan
    configuration: Any
    command: str
    outcome: Outcome = Outcome.OPEN
    committed: bool = False
    ended: bool = False
    commit_facts: Any = field(default_factory=dict)
    error: str = ""
    states: list[StepState] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class JournalMachine(RuleBasedStateMachine):
    """Any sequence of writes, with the journal closed and opened in between."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = make_folder()
        self.journal = Journal(self.folder / "state")
        self.expected: dict[str, Expected] = {}

    def teardown(self) -> None:
        self.journal.close()
        shutil.rmtree(self.folder)

    def pick(self, data: st.DataObject) -> tuple[str, Expected, int]:
        operation = data.draw(st.sampled_from(sorted(self.expected)))
        expected = self.expected[operation]
        return operation, expected, data.draw(st.integers(0, len(expected.states) - 1))

    @rule(plan=_plans, configuration=_json, command=_text)
    def begin(self, plan: Plan, configuration: Any, command: str) -> None:
        suffix = f"{len(self.expected):04d}"
        operation = self.journal.begin(
            plan, command=command, configuration={"value": configuration}, user="op", suffix=suffix
        )
        assert operation not in self.expected
        count = len(plan.all_steps)
        self.expected[operation] = Expected(
            plan,
            {"value": configuration},
            command,
            states=[StepState.PENDING] * count,
            facts=[{} for _ in range(count)],
            errors=[""] * count,
        )

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), state=st.sampled_from(list(StepState)), error=_text)
    def step(self, data: st.DataObject, state: StepState, error: str) -> None:
        operation, expected, position = self.pick(data)
        self.journal.step(operation, position, state, error=error, seconds=0.5)
        expected.states[position] = state
        expected.errors[position] = error or expected.errors[position]

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), facts=_facts)
    def record(self, data: st.DataObject, facts: Any) -> None:
        operation, expected, position = self.pick(data)
        self.journal.facts(operation, position, facts)
        expected.facts[position] = facts

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), facts=_facts)
    def commit(self, data: st.DataObject, facts: Any) -> None:
        operation, expected, _ = self.pick(data)
        self.journal.commit(operation, facts)
        expected.committed, expected.commit_facts = True, facts

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), outcome=st.sampled_from([item for item in Outcome if item is not Outcome.OPEN]), error=_text)
    def finish(self, data: st.DataObject, outcome: Outcome, error: str) -> None:
        operation, expected, _ = self.pick(data)
        self.journal.finish(operation, outcome, error=error)
        expected.outcome, expected.error = outcome, error or expected.error
        expected.ended = expected.ended or outcome is not Outcome.STUCK

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal(self.folder / "state")

    @rule()
    def drop_orphan_markers(self) -> None:
        self.journal.drop_orphan_markers()

    @invariant()
    def everything_is_given_back(self) -> None:
        newest_first = list(reversed(self.expected))
        assert [record.id for record in self.journal.operations(limit=1000)] == newest_first
        for operation, expected in self.expected.items():
            record = self.journal.operation(operation)
            assert record is not None
            assert (record.kind, record.title, record.lock) == ("test.kind", "a test", expected.plan.lock)
            assert record.plan["parameters"] == msgspec.json.decode(msgspec.json.encode(expected.plan.parameters))
            assert (record.configuration, record.command) == (expected.configuration, expected.command)
            assert (record.outcome, record.committed) == (expected.outcome, expected.committed)
            assert (record.commit_facts, record.error) == (expected.commit_facts, expected.error)
            steps = self.journal.steps(operation)
            assert [(step.name, step.title) for step in steps] == [
                (step.name, step.title) for step in expected.plan.all_steps
            ]
            assert [step.parameters for step in steps] == [step.parameters for step in expected.plan.all_steps]
            assert [step.after_commit for step in steps] == (
                [False] * len(expected.plan.steps) + [True] * len(expected.plan.after_commit)
            )
            assert [step.state for step in steps] == expected.states
            assert [step.facts for step in steps] == expected.facts
            assert [step.error for step in steps] == expected.errors
        open_ones = [id for id in newest_first if self.expected[id].outcome in (Outcome.OPEN, Outcome.STUCK)]
        assert [record.id for record in self.journal.unfinished()] == open_ones
        stuck = [id for id in open_ones if self.expected[id].outcome is Outcome.STUCK]
        assert [record.id for record in self.journal.interrupted()] == stuck, "this process lives"
        committed = [id for id in newest_first if self.expected[id].committed]
        assert [record.id for record in self.journal.committed()] == committed
        markers = {id for id, expected in self.expected.items() if not expected.ended}
        assert set(os.listdir(self.folder / "state" / "open")) == markers, "a stuck one keeps its marker"


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

PLAN = Plan(kind="test", title="a test", steps=(Step("do.it", "do it"),))


def begin(journal: Journal) -> str:
    return journal.begin(PLAN, command="", configuration={}, user="op")


@pytest.fixture
def journal(quick_folder: Path) -> Iterator[Journal]:
    found = Journal(quick_folder / "state")
    yield found
    found.close()


def test_it_is_durable_and_closed_to_others(journal: Journal) -> None:
    with closing(sqlite3.connect(journal.path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal.state.stat().st_mode & 0o777 == 0o700
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_operations_of_one_second_have_ids_of_their_own(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("holdfast.engine.journal.secrets.token_hex", lambda size: next(drawn))
    monkeypatch.setattr("holdfast.engine.journal.time.strftime", lambda *_: "20260101-000000")
    assert [begin(journal)[-4:] for _ in range(2)] == ["aaaa", "bbbb"]


def test_a_newer_format_is_refused_with_the_version_to_install(quick_folder: Path) -> None:
    Journal(quick_folder).close()
    with closing(sqlite3.connect(quick_folder / "journal.sqlite3")) as connection, connection:
        connection.execute("UPDATE meta SET value='99' WHERE key='format'")
        connection.execute("UPDATE meta SET value='7.3.1' WHERE key='written_by'")
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            Journal(quick_folder)
        assert "format 99" in caught.value.what
        assert "7.3.1" in caught.value.next_step
        assert open_below(quick_folder) == [], "what is refused is closed"


def test_a_network_filesystem_is_refused_and_named(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "network_filesystem", lambda path: "nfs")
    with pytest.raises(RefusedError, match="nfs"):
        Journal(quick_folder / "state")
    assert not (quick_folder / "state").exists()


def test_an_operation_of_a_dead_process_is_interrupted(quick_folder: Path, journal: Journal) -> None:
    script = (
        "import os, sys; from pathlib import Path; from holdfast.engine.journal import Journal\n"
        "from holdfast.model import Plan\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "print(journal.begin(Plan('test', 'a test', ()), command='', configuration={}, user='op'))\n"
        "sys.stdout.flush(); os._exit(9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(quick_folder / "state")],
        capture_output=True,
        text=True,
        timeout=patience.limit(30),
        check=False,
    )
    dead = done.stdout.strip()
    mine = begin(journal)
    assert [record.id for record in journal.interrupted()] == [dead]
    assert {record.id for record in journal.unfinished()} == {dead, mine}
    journal.adopt(dead, "recovery")
    assert journal.interrupted() == [], "the recovering process lives"


def test_markers_of_ended_or_unstored_operations_are_dropped(journal: Journal) -> None:
    ended, still_open = begin(journal), begin(journal)
    markers = journal.state / "open"
    record = json.loads((markers / still_open).read_text())
    (markers / "never-stored").write_text(json.dumps({**record, "pid": 1, "start_ticks": 1}))
    (markers / "torn").write_text("{")
    (markers / "another-that-lives").write_text(json.dumps(record))
    journal.finish(ended, Outcome.COMMITTED)
    journal.drop_orphan_markers()
    assert set(os.listdir(markers)) == {still_open, "another-that-lives"}


def test_typical_seconds_is_the_median_of_what_was_done(journal: Journal) -> None:
    assert journal.typical_seconds("do.it") is None
    for seconds in (1.0, 9.0, 2.0):
        journal.step(begin(journal), 0, StepState.DONE, seconds=seconds)
    journal.step(begin(journal), 0, StepState.FAILED, seconds=100)
    assert journal.typical_seconds("do.it") == 2.0
    title = journal.steps(begin(journal))[0].title
    assert journal.typical_seconds("do.it", title) == journal.typical_seconds("do.it", "another") == 2.0


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A filesystem of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small filesystem")
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
        timeout=patience.limit(30),
    )
    if mounted.returncode != 0:
        pytest.skip(f"a mount is not possible here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=patience.limit(30))


@pytest.mark.root
def test_the_reserve_lets_an_undo_be_written_on_a_full_disk(small_disk: Path) -> None:
    journal = Journal(small_disk / "state")
    operation = begin(journal)
    reserve = small_disk / "state" / "reserve"
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES
    with open(small_disk / "filler", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    facts = {"tables": ["x" * 1000] * 200}
    journal.facts(operation, 0, facts)
    assert not reserve.exists(), "what was kept back is given up"
    journal.step(operation, 0, StepState.UNDOING)
    journal.finish(operation, Outcome.UNDONE)
    journal.close()
    (small_disk / "filler").unlink()
    again = Journal(small_disk / "state")
    assert again.steps(operation)[0].facts == facts
    assert again.operations()[0].outcome is Outcome.UNDONE
    assert reserve.stat().st_blocks * 512 >= RESERVE_BYTES, "and kept back again"
    again.close()


@pytest.mark.parametrize("harm", ["header", "pages", "json"])
def test_a_damaged_journal_is_named_and_says_what_was_unfinished(tmp_path: Path, harm: str) -> None:
    journal = Journal(tmp_path / "state")
    plan = Plan(kind="test", title="a test", steps=())
    operation = journal.begin(plan, command="", configuration={}, user="")
    journal._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if harm == "json":
        journal._connection.execute("UPDATE operation SET plan='{'")
    journal.close()
    content = bytearray(journal.path.read_bytes())
    if harm == "header":
        content[:16] = b"no such database"
    elif harm == "pages":
        content[4096:] = bytes(len(content) - 4096)
    if harm != "json":
        journal.path.write_bytes(content)
    with pytest.raises(DamagedError, match="is damaged") as damaged:
        Journal(tmp_path / "state").unfinished()
    assert operation in damaged.value.state
