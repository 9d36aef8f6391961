"""The runner with steps that only write down that they ran."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdfast.engine import fence
from holdfast.engine.handlers import Handler, StepContext
from holdfast.engine.journal import Journal
from holdfast.engine.observer import SilentObserver
from holdfast.engine.records import OperationRecord
from holdfast.engine.runner import Result, Runner
from holdfast.errors import (
    BusyError,
    CancelledError,
    CommandFailedError,
    DegradedError,
    HoldfastError,
    InterruptedOperationError,
    NotFoundError,
    OperationFailedError,
    RefusedError,
    StepError,
    StuckError,
)
from holdfast.model import CommitFacts, Outcome, Plan, PlanParameters, StepState
from holdfast.system import durable
from holdfast.system.host import Host
from holdfast.system.redaction import Redactor
from tests.fakes import Step

Act = Callable[[StepContext], None]


@dataclass
class Engine:
    """A runner whose steps a, b, c, d and the closing x, y append to `done`; `acts` gives some of them more to do."""

    folder: Path
    journal: Journal
    done: list[str] = field(default_factory=list)
    room_after: list[str] = field(default_factory=list)  # what was done when the kept space was given
    acts: dict[str, Act] = field(default_factory=dict)
    without_undo: frozenset[str] = frozenset({"d.it", "x.it", "y.it"})
    host: Host = field(default_factory=lambda: Host(Redactor(["correct-horse-battery"])))

    def handler(self, name: str) -> Handler:
        def do(context: StepContext) -> None:
            self.done.append(name[0])
            self.acts.get(f"do {name[0]}", lambda context: None)(context)

        def undo(context: StepContext) -> None:
            self.done.append(f"-{name[0]}")
            self.acts.get(f"undo {name[0]}", lambda context: None)(context)

        return Handler(do, None if name in self.without_undo else undo)

    @property
    def runner(self) -> Runner:
        names = [f"{letter}.it" for letter in "abcdxy"]
        return Runner(
            self.journal,
            {name: self.handler(name) for name in names},
            self.host,
            SilentObserver(),
            make_room=lambda: self.room_after.append("".join(self.done)),
        )

    def run(self, plan: Plan | None = None) -> Result:
        return self.runner.run(plan or make_plan(), command="test", configuration={}, user="op")

    def last(self) -> OperationRecord:
        return self.journal.operations()[0]

    def states(self) -> list[str]:
        return [step.state.value for step in self.journal.steps(self.last().id)]


def make_plan(steps: str = "abcd", after: str = "xy", **changes: object) -> Plan:
    return Plan(
        kind="test",
        title="a test",
        steps=tuple(Step(f"{letter}.it", f"do {letter}") for letter in steps),
        after_commit=tuple(Step(f"{letter}.it", f"do {letter}") for letter in after),
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture
def engine(quick_folder: Path) -> Iterator[Engine]:
    made = Engine(quick_folder, Journal(quick_folder / "state"))
    yield made
    made.journal.close()  # which is another one after `in_a_child`


def fail(error: BaseException) -> Act:
    def act(context: StepContext) -> None:
        raise error

    return act


def die(context: StepContext) -> None:
    os._exit(9)


def in_a_child(engine: Engine) -> None:
    """Runs the plan in a process that dies in it; what it did is not seen here, only the journal is."""
    engine.journal.close()
    pid = os.fork()
    if pid == 0:
        try:
            engine.journal = Journal(engine.folder / "state")
            engine.run()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    engine.journal = Journal(engine.folder / "state")
    engine.acts.clear()


def full_disk_until_there_is_room(engine: Engine) -> Act:
    def act(context: StepContext) -> None:
        if not engine.room_after:
            raise StepError("cannot be written") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


# --- to one of two ends -------------------------------------------------------------------------------


def test_a_closing_step_that_met_a_full_disk_gets_the_space_that_was_kept(engine: Engine) -> None:
    engine.acts["do x"] = full_disk_until_there_is_room(engine)
    assert engine.run().outcome is Outcome.COMMITTED
    assert (engine.done, engine.room_after) == (["a", "b", "c", "d", "x", "x", "y"], ["abcdx"])


def test_a_recovery_goes_forward_on_a_full_disk(engine: Engine) -> None:
    engine.acts["do x"] = die
    in_a_child(engine)
    engine.acts["do x"] = full_disk_until_there_is_room(engine)
    assert engine.runner.recover(engine.journal.interrupted()[0]).outcome is Outcome.COMMITTED
    assert (engine.done, engine.room_after) == (["x", "x", "y"], ["x"])


def test_steps_run_in_order_and_closing_steps_after_the_commit(engine: Engine) -> None:
    committed: list[bool] = []
    for letter in "dx":
        engine.acts[f"do {letter}"] = lambda context: committed.append(engine.last().committed)
    result = engine.run(make_plan(parameters=PlanParameters(commit_facts=CommitFacts(package="p2"))))
    assert engine.done == ["a", "b", "c", "d", "x", "y"]
    assert committed == [False, True]
    assert (result.outcome, result.facts) == (Outcome.COMMITTED, {"package": "p2"})
    assert (engine.last().outcome, engine.states()) == (Outcome.COMMITTED, ["done"] * 6)
    assert engine.journal.unfinished() == []
    assert os.listdir(engine.journal.state / "open") == []


def test_a_failure_undoes_in_reverse_the_failed_step_too(engine: Engine) -> None:
    engine.acts["do c"] = fail(StepError("the disk is gone", next_step="Bring a disk."))
    with pytest.raises(OperationFailedError) as caught:
        engine.run()
    assert (engine.done, engine.room_after) == (["a", "b", "c", "-c", "-b", "-a"], ["abc"])
    assert "the disk is gone" in caught.value.what
    assert "Bring a disk." in caught.value.next_step
    assert re.search(r" in \d+\.\d\d s: ", caught.value.state), "how long going back took"
    assert engine.last().id in caught.value.next_step
    assert (engine.last().outcome, engine.last().committed) == (Outcome.UNDONE, False)
    assert engine.states() == ["undone", "undone", "undone", "pending", "pending", "pending"]


def test_a_step_without_undo_leaves_nothing_to_undo(engine: Engine) -> None:
    engine.acts["do d"] = fail(ValueError("not one of ours"))
    with pytest.raises(OperationFailedError, match="ValueError: not one of ours"):
        engine.run()
    assert engine.done == ["a", "b", "c", "d", "-c", "-b", "-a"]


@pytest.mark.parametrize("error", [NotFoundError("no such tag"), CancelledError("stopped")])
def test_a_refusal_and_a_cancel_keep_their_own_exit_code(engine: Engine, error: HoldfastError) -> None:
    engine.acts["do b"] = fail(error)
    with pytest.raises(type(error)):
        engine.run()
    assert engine.done == ["a", "b", "-b", "-a"]
    assert engine.last().outcome is Outcome.UNDONE


def test_a_commit_whose_ground_cannot_be_synced_is_undone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = durable.barrier, iter([OSError(5, "Input/output error")])

    def barrier(paths: object) -> None:
        error = next(failures, None)
        if error is not None:
            raise error
        real(paths)  # type: ignore[arg-type]

    monkeypatch.setattr(durable, "barrier", barrier)
    with pytest.raises(OperationFailedError, match="Input/output"):
        engine.run()
    assert engine.done == ["a", "b", "c", "d", "-c", "-b", "-a"]
    assert not engine.last().committed


def test_an_undo_that_leaves_something_is_degraded(engine: Engine) -> None:
    engine.acts["do c"] = fail(StepError("it does not start"))
    engine.acts["undo b"] = lambda context: context.record({"degraded": "Migrations 2 to 3 stay."})
    with pytest.raises(DegradedError, match="Migrations 2 to 3 stay"):
        engine.run()
    assert engine.last().outcome is Outcome.DEGRADED
    assert engine.journal.unfinished() == []


def test_secrets_reach_neither_the_journal_nor_the_message(engine: Engine) -> None:
    secret = "correct-horse-battery"
    engine.acts["do a"] = fail(
        CommandFailedError(f"login {secret}", exit_code_of_command=1, output_tail=f"as {secret}")
    )
    with pytest.raises(OperationFailedError) as caught:
        engine.run()
    assert secret not in str(caught.value)
    for path in engine.journal.state.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_facts_reach_the_undo_and_later_steps_and_are_stored_at_once(engine: Engine) -> None:
    seen: dict[str, object] = {}

    def record(context: StepContext) -> None:
        context.record({"identity": "1:2"})
        context.record({"aside": "x"})
        seen["stored"] = engine.journal.steps(context.operation)[0].facts

    def look(context: StepContext) -> None:
        seen["earlier"] = context.earlier["a.it"]
        seen["begun"] = (context.started("a.it"), context.started("b.it"), context.started("c.it"))
        raise StepError("no")

    engine.acts = {"do a": record, "do b": look, "undo a": lambda context: seen.update(undo=dict(context.facts))}
    with pytest.raises(OperationFailedError):
        engine.run()
    facts = {"identity": "1:2", "aside": "x"}
    assert seen == {"stored": facts, "earlier": facts, "begun": (True, True, False), "undo": facts}


def test_an_unknown_step_is_refused_before_anything_is_stored(engine: Engine) -> None:
    with pytest.raises(HoldfastError, match="no handler"):
        engine.run(Plan(kind="test", title="a test", steps=(Step("a.it", ""), Step("new.step", ""))))
    assert (engine.done, engine.journal.operations()) == ([], [])


# --- signals ------------------------------------------------------------------------------------------


def test_ctrl_c_undoes_and_the_next_step_does_not_begin(engine: Engine) -> None:
    engine.acts["do b"] = lambda context: os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(CancelledError, match="stopped"):
        engine.run()
    assert engine.done == ["a", "b", "-b", "-a"]
    assert engine.last().outcome is Outcome.UNDONE
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("act", "number"), [("do x", signal.SIGTERM), ("do b", signal.SIGHUP)])
def test_neither_a_stop_after_the_commit_nor_a_hang_up_stops_it(engine: Engine, act: str, number: int) -> None:
    def signalled(context: StepContext) -> None:
        os.kill(os.getpid(), number)
        context.check_cancelled()
        engine.host.run(["sleep", "0.2"])

    engine.acts[act] = signalled
    assert engine.run().outcome is Outcome.COMMITTED
    assert engine.done == ["a", "b", "c", "d", "x", "y"]


def test_an_undo_is_not_given_up_by_the_stop_that_began_it(engine: Engine) -> None:
    engine.acts["do b"] = lambda context: os.kill(os.getpid(), signal.SIGTERM)
    ran: list[int] = []
    engine.acts["undo a"] = lambda context: ran.append(engine.host.run(["true"]).exit_code)
    with pytest.raises(CancelledError):
        engine.run()
    assert ran == [0]


# --- stuck --------------------------------------------------------------------------------------------


def stuck(engine: Engine) -> OperationRecord:
    engine.acts = {"do c": fail(StepError("first")), "undo b": fail(StepError("the disk is gone"))}
    with pytest.raises(StuckError) as caught:
        engine.run()
    assert "the disk is gone" in caught.value.what
    assert "first" in caught.value.what
    assert "holdfast recover" in caught.value.next_step
    engine.acts.clear()
    return engine.last()


def test_an_undo_that_fails_stops_there_and_is_stuck(engine: Engine) -> None:
    record = stuck(engine)
    assert engine.done == ["a", "b", "c", "-c", "-b"], "the steps before are not touched"
    assert record.outcome is Outcome.STUCK
    assert engine.states()[:3] == ["done", "undo_failed", "undone"]
    assert [found.id for found in engine.journal.interrupted()] == [record.id]


def test_recover_tries_a_stuck_undo_again(engine: Engine) -> None:
    record = stuck(engine)
    engine.done.clear()
    engine.acts["undo b"] = fail(StepError("still gone"))
    with pytest.raises(StuckError, match="still gone"):
        engine.runner.recover(record)
    engine.acts.clear()
    assert engine.runner.recover(engine.last()).outcome is Outcome.UNDONE
    assert engine.done == ["-b", "-b", "-a"], "what was undone is not undone again"
    assert engine.run().outcome is Outcome.COMMITTED


def test_abandon_closes_it_as_it_stands(engine: Engine) -> None:
    engine.runner.abandon(stuck(engine), "replaced by hand")
    assert engine.last().outcome is Outcome.ABANDONED
    assert "replaced by hand" in engine.last().error
    assert engine.run().outcome is Outcome.COMMITTED


def test_an_operation_that_supersedes_closes_the_stuck_one(engine: Engine) -> None:
    record = stuck(engine)
    assert engine.run(make_plan(parameters=PlanParameters(supersedes=record.id))).outcome is Outcome.COMMITTED
    found = engine.journal.operation(record.id)
    assert found is not None
    assert found.outcome is Outcome.SUPERSEDED


def test_a_plan_that_something_else_overtook_is_refused(engine: Engine) -> None:
    plan = make_plan(parameters=PlanParameters(planned_after=engine.journal.newest_change()))
    assert engine.run(make_plan()).outcome is Outcome.COMMITTED
    with pytest.raises(RefusedError, match="since this was planned"):
        engine.run(plan)
    plan = make_plan(parameters=PlanParameters(planned_after=engine.journal.newest_change()))
    assert engine.run(plan).outcome is Outcome.COMMITTED


# --- interrupted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["a", "b", "d"])
def test_one_that_died_before_the_commit_is_undone(engine: Engine, step: str) -> None:
    engine.acts[f"do {step}"] = die
    in_a_child(engine)
    (record,) = engine.journal.interrupted()
    assert engine.runner.recover(record).outcome is Outcome.UNDONE
    undone = [f"-{letter}" for letter in reversed("abcd"[: "abcd".index(step) + 1]) if letter != "d"]
    assert engine.done == undone
    assert engine.journal.unfinished() == []


@pytest.mark.parametrize("step", ["x", "y"])
def test_one_that_died_after_the_commit_goes_forward(engine: Engine, step: str) -> None:
    engine.acts[f"do {step}"] = die
    in_a_child(engine)
    (record,) = engine.journal.interrupted()
    assert record.committed
    assert engine.runner.recover(record).outcome is Outcome.COMMITTED
    assert engine.done == (["x", "y"] if step == "x" else ["y"])


def test_one_that_died_in_its_undo_goes_on_there(engine: Engine) -> None:
    engine.acts = {"do c": fail(StepError("no")), "undo b": die}
    in_a_child(engine)
    (record,) = engine.journal.interrupted()
    assert engine.runner.recover(record).outcome is Outcome.UNDONE
    assert engine.done == ["-b", "-a"]


@pytest.mark.parametrize(("dies_in", "first"), [("do b", "undo b"), ("do x", "do x")])
def test_recovery_ends_the_dead_ones_children_first(engine: Engine, dies_in: str, first: str) -> None:
    def leave_a_child_and_die(context: StepContext) -> None:
        subprocess.Popen(["sleep", "600"], env=engine.host.environment(), start_new_session=True)
        os._exit(9)

    engine.acts[dies_in] = leave_a_child_and_die
    in_a_child(engine)
    (record,) = engine.journal.interrupted()
    assert len(fence.survivors(record.id, engine.journal.record_of_processes(record.id))) == 1
    alive: list[int] = []
    engine.acts[first] = lambda context: alive.append(
        len(fence.survivors(record.id, engine.journal.record_of_processes(record.id)))
    )
    try:
        engine.runner.recover(record)
        assert alive == [0]
    finally:
        for process in fence.survivors(record.id, engine.journal.record_of_processes(record.id)):
            os.kill(process.pid, signal.SIGKILL)


def test_while_one_is_interrupted_only_the_gate_moves(engine: Engine) -> None:
    engine.acts["do b"] = die
    in_a_child(engine)
    for lock in ("change", "backup"):
        with pytest.raises(InterruptedOperationError, match="interrupted") as caught:
            engine.run(make_plan(lock=lock))
        assert "holdfast recover" in caught.value.next_step
    assert engine.done == []
    assert engine.run(make_plan("a", "", lock="gate")).outcome is Outcome.COMMITTED
    (record,) = engine.journal.interrupted()
    engine.runner.recover(record)
    assert engine.run().outcome is Outcome.COMMITTED


def test_a_closing_step_that_fails_keeps_the_commit_and_waits_for_recover(engine: Engine) -> None:
    engine.acts["do x"] = fail(StepError("the disk is full"))
    with pytest.raises(InterruptedOperationError, match="the disk is full") as caught:
        engine.run()
    assert "committed" in caught.value.state
    assert engine.done == ["a", "b", "c", "d", "x"]
    assert (engine.last().outcome, engine.last().committed) == (Outcome.OPEN, True)
    assert engine.journal.steps(engine.last().id)[4].state is StepState.FAILED
    engine.acts.clear()
    assert engine.runner.recover(engine.last()).outcome is Outcome.COMMITTED
    assert engine.done[5:] == ["x", "y"]


# --- locks --------------------------------------------------------------------------------------------


def test_a_lock_that_is_held_refuses_before_anything_is_stored(engine: Engine) -> None:
    with engine.runner.lock("change").acquire("upgrade to v2"):
        with pytest.raises(BusyError, match="upgrade to v2"):
            engine.run()
        assert engine.run(make_plan(lock="backup")).outcome is Outcome.COMMITTED, "another lock is free"
    assert len(engine.journal.operations()) == 1


@pytest.mark.parametrize("busy", ["backup", "change"])
def test_of_two_locks_none_stays_held_when_one_is_busy(engine: Engine, busy: str) -> None:
    other = {"backup": "change", "change": "backup"}[busy]
    with engine.runner.lock(busy).acquire("another"), pytest.raises(BusyError):
        engine.run(make_plan(also_locks=("backup",)))
    assert engine.runner.lock(other).holder() is None
    assert engine.run(make_plan(also_locks=("backup",))).outcome is Outcome.COMMITTED
    assert engine.runner.lock("change").holder() is None


def test_steps_that_this_version_does_not_know_are_named_and_nothing_is_touched(engine: Engine) -> None:
    engine.acts["do b"] = die
    in_a_child(engine)
    (record,) = engine.journal.interrupted()
    older = engine.runner
    older.handlers = {name: handler for name, handler in older.handlers.items() if name != "a.it"}
    with pytest.raises(RefusedError, match=r"steps that this Holdfast does not know: a\.it") as refused:
        older.recover(record)
    assert record.version in refused.value.next_step
    assert engine.last().outcome is Outcome.OPEN
    assert engine.done == []


def test_an_undo_that_cannot_begin_says_what_is_missing_and_what_is_not_undone(engine: Engine) -> None:
    def fail(context: StepContext) -> None:
        raise StepError("the migration failed")

    def cannot_end(operation: str) -> None:
        error = StepError("the container db-1 has no grep", next_step="Install grep.")
        error.may_pass = False
        raise error

    engine.acts["do c"] = fail
    runner = engine.runner
    runner._end_sessions = cannot_end
    with pytest.raises(StuckError, match=r"db-1 has no grep.*had failed with: the migration failed") as stuck:
        runner.run(make_plan(), command="test", configuration={}, user="op")
    assert "not undone yet" in stuck.value.state
    assert not stuck.value.may_pass
    assert stuck.value.next_step == "Install grep.\nThen run: holdfast recover"
    assert engine.last().outcome is Outcome.STUCK
    assert engine.states()[:3] == ["done", "done", "failed"]
