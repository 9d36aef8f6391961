"""The runner of a stored plan: intent, act, outcome; undo in reverse; only forward after the commit record.

It gets a table from step names to handlers and does not know what they do.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast.engine import fence, strategy
from holdfast.engine.cancellation import Cancellation
from holdfast.engine.failure import operator_error
from holdfast.engine.handlers import Handler, StepContext
from holdfast.engine.journal import Journal
from holdfast.engine.lock import LOCK_ORDER, Lock, boot_id, pid_namespace, release_all
from holdfast.engine.observer import Observer
from holdfast.engine.records import OperationRecord, StepRecord, commit_facts_of, parameters_of
from holdfast.errors import (
    HoldfastError,
    InterruptedOperationError,
    RefusedError,
    StuckError,
    lacks_space,
)
from holdfast.model import Facts, Outcome, Plan, StepState
from holdfast.system import durable
from holdfast.system.host import Host

# The engine does not know what steps do. It reads these facts of any step that records them.
_COMMITTED = ("set_id", "package")
"""The backup and the package of the operation, which its commit names; the last step that records one counts."""
_WARNINGS = "warnings"
"""A list of texts, which the commit keeps of all steps."""
_DEGRADED = "degraded"
"""A text that says what an undo leaves; the operation is then degraded."""
_SILENT_SECONDS = 3.0
_WAITING = "waiting for the databases' servers, to end what the operation runs there"


class Result(msgspec.Struct, frozen=True):
    operation: str
    outcome: Outcome
    facts: Facts
    seconds: float


class Runner:
    def __init__(
        self,
        journal: Journal,
        handlers: Mapping[str, Handler],
        host: Host,
        observer: Observer,
        cancellation: Cancellation | None = None,
        end_sessions: Callable[[str], None] = lambda operation: None,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a runner.

        `end_sessions` ends what the commands of a dead operation still do inside the application's engines.

        `make_room` frees the reserved space for work that must not fail without it: undoing, and the closing steps
        after the commit.
        """
        self._end_sessions = end_sessions
        self._make_room = make_room
        self.journal = journal
        self.handlers = handlers
        self._host = host
        self._observer = observer
        self._cancellation = cancellation or Cancellation()
        self._locks = journal.state / "locks"

    # --- locks -------------------------------------------------------------------------------------

    def lock(self, name: str) -> Lock:
        return Lock(self._locks / f"{name}.lock")

    def _take_locks(self, plan: Plan, wait_seconds: float, command: str) -> list[Lock]:
        """Take all locks of a plan in their fixed order, `change` before `backup` before `gate`."""
        names = sorted({plan.lock, *plan.also_locks}, key=LOCK_ORDER.index)
        held: list[Lock] = []
        try:
            for name in names:
                wait = wait_seconds if name == "backup" else (5.0 if name == "gate" else 0.0)
                lock = self.lock(name)
                asked = self._cancellation.requested
                held.append(lock.acquire(plan.title, wait_seconds=wait, command=command, cancelled=asked))
        except BaseException:
            release_all(held)
            raise
        return held

    def refuse_if_interrupted(self, *, gate_only: bool = False, supersedes: str | None = None) -> None:
        """Raise InterruptedOperationError while an operation waits for `recover`."""
        for record in self.journal.interrupted():
            if gate_only or record.id == supersedes:
                continue
            raise InterruptedOperationError(
                f"{record.title} ({record.id}) was interrupted and is still open"
                if record.outcome is Outcome.OPEN
                else f"{record.title} ({record.id}) is stuck: {record.error}",
                next_step="Run: holdfast recover",
            )

    def _refuse_outdated(self, plan: Plan) -> None:
        """Raise RefusedError if the present release may have changed since the plan was made.

        A plan may have waited for a lock or for an answer.
        """
        planned_after = plan.parameters.planned_after
        if planned_after is not None and planned_after != self.journal.newest_change():
            raise RefusedError(
                "another operation changed the application since this was planned",
                next_step="Run the command again; `holdfast log list` shows the other operation.",
            )

    def _fence_superseded(self, plan: Plan) -> None:
        record = self.journal.operation(plan.parameters.supersedes or "")
        if record is not None:
            self._fence_dead(record)

    # --- running -----------------------------------------------------------------------------------

    def run(
        self,
        plan: Plan,
        *,
        command: str,
        configuration: Mapping[str, Any],
        user: str,
        wait_seconds: float = 0,
    ) -> Result:
        """Run a plan to one of its two ends.

        Raise BusyError or InterruptedOperationError before anything is stored, OperationFailedError when everything was
        undone, CancelledError likewise after Ctrl-C, StuckError when the undo failed too.
        """
        unknown = [step.name for step in plan.all_steps if step.name not in self.handlers]
        if unknown:
            raise HoldfastError(f"no handler for steps {unknown}")
        with self._cancellation:
            locks = self._take_locks(plan, wait_seconds, command)
            try:
                self.refuse_if_interrupted(gate_only=plan.lock == "gate", supersedes=plan.parameters.supersedes)
                if plan.lock == "change":
                    self._refuse_outdated(plan)
                    self.journal.drop_orphan_markers()
                self._fence_superseded(plan)
                operation = self.journal.begin(plan, command=command, configuration=configuration, user=user)
                return self._run_begun(operation)
            finally:
                release_all(locks)

    def _run_begun(self, operation: str) -> Result:
        started = time.monotonic()
        self._enter(operation)
        try:
            try:
                for record in self.journal.steps(operation):
                    if not record.after_commit:
                        self._do(operation, record)
                self._commit(operation)
            except Exception as error:
                self._fail(operation, error, started)
            return self._forward(operation, started)
        finally:
            self._leave()

    def _enter(self, operation: str) -> None:
        self._host.enter(operation, self.journal.record_of_processes(operation))
        self._host.cancelled = self._cancellation.requested

    def _leave(self) -> None:
        self._host.leave()

    def _context(self, operation: str, record: StepRecord) -> StepContext:
        facts = dict(record.facts)

        def keep(more: Facts) -> None:
            facts.update(more)
            self.journal.facts(operation, record.position, facts)

        steps = self.journal.steps(operation)
        stored = self.journal.operation(operation)
        assert stored is not None
        return StepContext(
            operation=operation,
            parameters=record.parameters,
            facts=facts,
            earlier={step.name: step.facts for step in steps if step.position != record.position},
            record=keep,
            check_cancelled=self._cancellation.check,
            progress=self._observer.progress,
            say=self._observer.say,
            commit_facts=commit_facts_of(stored),
            plan_parameters=parameters_of(stored),
            begun=frozenset(step.name for step in steps if step.state is not StepState.PENDING),
        )

    def _do(self, operation: str, record: StepRecord) -> None:
        total = len(self.journal.steps(operation))
        if not record.after_commit:
            self._cancellation.check()
        self._observer.step_started(record.title, record.position + 1, total, undo=False)
        self.journal.step(operation, record.position, StepState.DOING)
        started = time.monotonic()
        try:
            self.handlers[record.name].do(self._context(operation, record))
        except Exception as error:
            seconds = time.monotonic() - started
            self.journal.step(
                operation,
                record.position,
                StepState.FAILED,
                error=self._host.redactor.text(str(error)),
                seconds=seconds,
            )
            self._observer.step_ended(record.title, seconds, undo=False, failed=True)
            raise
        seconds = time.monotonic() - started
        self.journal.step(operation, record.position, StepState.DONE, seconds=max(seconds, 0.0001))
        self._observer.step_ended(record.title, seconds, undo=False, failed=False)

    def _commit(self, operation: str) -> None:
        stored = self.journal.operation(operation)
        assert stored is not None
        self._cancellation.check()
        durable.barrier(stored.plan["barrier_paths"])
        facts: Facts = msgspec.to_builtins(parameters_of(stored).commit_facts)
        for step in self.journal.steps(operation):
            facts.update({key: step.facts[key] for key in _COMMITTED if key in step.facts})
            if warnings := step.facts.get(_WARNINGS):
                facts[_WARNINGS] = [*facts.get(_WARNINGS, []), *warnings]
        self.journal.commit(operation, facts)

    def _forward(self, operation: str, started: float) -> Result:
        """Run the closing steps, which are idempotent. A failure leaves the operation open."""
        self._cancellation.begin_undo()
        for record in self.journal.steps(operation):
            if record.after_commit and record.state is not StepState.DONE:
                try:
                    self._do_with_room(operation, record)
                except Exception as error:
                    raise InterruptedOperationError(
                        f"{record.title} failed after the commit: {self._host.redactor.text(str(error))}",
                        state="The new state is committed and kept; only closing steps are left.",
                        next_step="Fix the cause, then run: holdfast recover",
                    ) from error
        seconds = time.monotonic() - started
        stored = self.journal.operation(operation)
        assert stored is not None
        superseded = parameters_of(stored).supersedes
        if superseded:
            self.journal.finish(superseded, Outcome.SUPERSEDED, error=f"superseded by {operation}")
        self.journal.finish(operation, Outcome.COMMITTED, seconds=seconds)
        return Result(operation, Outcome.COMMITTED, stored.commit_facts, seconds)

    def _do_with_room(self, operation: str, record: StepRecord) -> None:
        """Do a closing step; if the disk is full, free the reserved space and do it again."""
        try:
            self._do(operation, record)
        except Exception as error:
            if not lacks_space(error):
                raise
            self._make_room()
            self._do(operation, record)

    # --- undoing -----------------------------------------------------------------------------------

    def _fail(self, operation: str, error: Exception, started: float) -> None:
        """Undo everything, then raise the error for the operator."""
        self._cancellation.begin_undo()
        text = self._host.redactor.text(str(error))
        began = time.monotonic()
        outcome = self._undo(operation, text)
        back_seconds = time.monotonic() - began
        self.journal.finish(operation, outcome, error=text, seconds=time.monotonic() - started)
        degraded = "; ".join(
            step.facts[_DEGRADED] for step in self.journal.steps(operation) if step.facts.get(_DEGRADED)
        )
        raise operator_error(
            error,
            operation,
            self._host.redactor,
            back_seconds=back_seconds,
            degraded=degraded if outcome is Outcome.DEGRADED else None,
            strategy=self.strategy_of(operation),
        ) from error

    def strategy_of(self, operation: str) -> strategy.Strategy | None:
        """Return how an upgrade was undone; None where it was not, or for every other operation."""
        stored = self.journal.operation(operation)
        return strategy.of_an_undone(stored, self.journal.steps(operation), self.handlers) if stored else None

    def _undo(self, operation: str, why: str) -> Outcome:
        """End surviving children, then undo in reverse; return `undone` or `degraded`. Raise StuckError."""
        try:
            self._fence(operation)
        except StuckError as error:
            error.what = f"{error.what} (the operation had failed with: {why})"
            self.journal.finish(operation, Outcome.STUCK, error=error.what)
            raise
        with contextlib.suppress(OSError):  # an undo without that space reports it itself
            self._make_room()
        records = [step for step in self.journal.steps(operation) if not step.after_commit]
        begun = [step for step in records if step.state not in (StepState.PENDING, StepState.UNDONE)]
        for record in reversed(begun):
            self._undo_step(operation, record, len(records), why)
        stored = self.journal.operation(operation)
        assert stored is not None
        durable.barrier(stored.plan["barrier_paths"])
        degraded = any(step.facts.get(_DEGRADED) for step in self.journal.steps(operation))
        return Outcome.DEGRADED if degraded else Outcome.UNDONE

    def _undo_step(self, operation: str, record: StepRecord, total: int, why: str) -> None:
        undo = self.handlers[record.name].undo
        title = self.handlers[record.name].undo_title or record.title
        started = time.monotonic()
        if undo is not None:
            self._observer.step_started(title, record.position + 1, total, undo=True)
            self.journal.step(operation, record.position, StepState.UNDOING)
            try:
                undo(self._context(operation, record))
            except Exception as error:
                text = self._host.redactor.text(
                    f"{type(error).__name__}: {error}" if not isinstance(error, HoldfastError) else str(error)
                )
                self.journal.step(operation, record.position, StepState.UNDO_FAILED, error=text)
                message = f"undoing `{record.title}` failed: {text} (the operation had failed with: {why})"
                self.journal.finish(operation, Outcome.STUCK, error=message)
                self._observer.step_ended(title, time.monotonic() - started, undo=True, failed=True)
                raise StuckError(
                    message,
                    state="The steps before this one are not undone yet. `holdfast status` shows whether visitors see"
                    " the maintenance page.",
                    next_step="Fix the cause, then run `holdfast recover` to try again; or run `holdfast backup"
                    " restore ID` to supersede it; or run `holdfast recover --abandon REASON` to close it without an"
                    " undo.",
                ) from error
            seconds = time.monotonic() - started
            self._host.log({"kind": "undone", "title": title, "seconds": round(seconds, 3)})
            self._observer.step_ended(title, seconds, undo=True, failed=False)
        self.journal.step(operation, record.position, StepState.UNDONE)

    # --- recovering --------------------------------------------------------------------------------

    def recover(self, record: OperationRecord) -> Result:
        """Bring one interrupted operation to its end: undo it before the commit, go forward after it.

        The caller holds the operation's locks. Idempotent, even after a recovery that died. Raise StuckError.
        """
        started = time.monotonic()
        self._refuse_unknown(record)
        with self._cancellation:
            self._cancellation.begin_undo()
            self._fence_dead(record)
            self.journal.adopt(record.id, f"recovery of {record.title}")
            self._enter(record.id)
            try:
                if record.committed:
                    return self._forward(record.id, started)
                outcome = self._undo(record.id, record.error or "its process died")
                self.journal.finish(record.id, outcome, error=record.error or "interrupted; undone by recover")
                return Result(record.id, outcome, {}, time.monotonic() - started)
            finally:
                self._leave()

    def _refuse_unknown(self, record: OperationRecord) -> None:
        """Raise RefusedError where another version wrote steps, parameters or facts that this one does not know."""
        steps = self.journal.steps(record.id)
        unknown = sorted({step.name for step in steps} - self.handlers.keys())
        try:
            parameters_of(record)
            commit_facts_of(record)
            for step in steps if not unknown else ():
                self.handlers[step.name].check(step.parameters, step.facts)
        except HoldfastError as error:
            unknown.append(error.what)
        if unknown:
            raise RefusedError(
                f"{record.title} ({record.id}) has steps that this Holdfast does not know: {', '.join(unknown)}",
                state="Nothing was examined or changed. The operation is still open.",
                next_step=f"Install Holdfast {record.version}, which began it, or a later version, then run: holdfast"
                " recover",
            )

    def _fence_dead(self, record: OperationRecord) -> None:
        owner = record.owner
        if owner.boot_id == boot_id() and owner.pid_namespace != pid_namespace():
            raise StuckError(
                f"{record.title} ran in another process namespace; its children cannot be seen from here",
                state="Nothing was examined or changed.",
                next_step="Run `holdfast recover` in the container or namespace where the operation ran.",
            )
        self._fence(record.id)

    def _fence(self, operation: str) -> None:
        """End every process and every session inside an engine that the operation began. Raise StuckError."""
        self._host.let_go()
        fence.end_children(operation, self.journal.record_of_processes(operation))
        waiting = threading.Timer(_SILENT_SECONDS, self._observer.say, [_WAITING])
        waiting.start()
        try:
            self._end_sessions(operation)
        except HoldfastError as error:
            cause = error.next_step or "Make sure that the database server or container engine can be reached."
            stuck = StuckError(
                f"commands of {operation} may still be running: {error.what}",
                state=f"What {operation} had begun is not undone yet, because these commands could still change data."
                " `holdfast status` shows whether visitors see the maintenance page.",
                next_step=f"{cause}\nThen run: holdfast recover",
            )
            stuck.may_pass = error.may_pass
            raise stuck from error
        finally:
            waiting.cancel()

    def abandon(self, record: OperationRecord, reason: str) -> None:
        """Close an operation without an undo, by the operator's decision."""
        self._fence_dead(record)
        self.journal.finish(record.id, Outcome.ABANDONED, error=f"abandoned: {reason}")
