"""The hooks: commands that run around an operation and are no part of its change.

Nothing undoes what a hook did. So each of its commands runs at most once: a recovery repeats neither one that ended nor
one that was cut short, and says which it was.
"""

from __future__ import annotations

from holdfast.application.commands import filled
from holdfast.application.context import ApplicationContext
from holdfast.config.schema import Hook, HookName
from holdfast.errors import CancelledError, HoldfastError
from holdfast.model import Outcome, Release
from holdfast.steps import tasks
from holdfast.steps.release import BuildPackage
from holdfast.steps.typed import Context, OperationContext, TypedStep, WarningFacts
from holdfast.system.accounts import account_of

_DEGRADED = "degraded"
_RUNNING = "running"


class HookFacts(WarningFacts):
    begun: int | None = None
    """How many of the commands were begun; recorded before each starts."""
    ended: int | None = None
    """How many of them ended."""
    done: bool | None = None
    """Whether the hook is over, with or without a failure."""


class RunHook(TypedStep[HookFacts], frozen=True):
    """Run a hook of an operation that goes well so far."""

    name = "hook.run"

    hook: HookName
    release: Release | None = None
    """The release in which its commands run; None for the current one."""

    @property
    def title(self) -> str:
        return f"hook {self.hook}"

    def do(self, application: ApplicationContext, context: Context[HookFacts]) -> None:
        record = application.journal.operation(context.operation)
        outcome = str(Outcome.COMMITTED) if record is not None and record.committed else _RUNNING
        _run(application, context, self.hook, self.release, outcome)

    def describe(self, application: ApplicationContext) -> list[str]:
        return _described(application, self.hook, self.release)


class NoteHook(TypedStep[HookFacts], frozen=True):
    """Run a hook if the operation fails, after the undo of all steps that come after this one.

    It runs in the release that was there before.
    """

    name = "hook.note"
    is_undone = True
    undo_title = "run the hook for a failure"

    hook: HookName

    @property
    def title(self) -> str:
        return f"note the hook {self.hook} for a failure"

    def do(self, application: ApplicationContext, context: Context[HookFacts]) -> None:
        """Do nothing: the undo of this step runs the hook."""

    def undo(self, application: ApplicationContext, context: Context[HookFacts]) -> None:
        degraded = any(facts.get(_DEGRADED) for facts in context.untyped.earlier.values())
        outcome = Outcome.DEGRADED if degraded else Outcome.UNDONE
        _run(application, context, self.hook, None, str(outcome), failed=True)

    def describe(self, application: ApplicationContext) -> list[str]:
        return [f"{line}   (only after a failure)" for line in _described(application, self.hook, None)]


def _run(
    application: ApplicationContext,
    context: Context[HookFacts],
    name: HookName,
    release: Release | None,
    outcome: str,
    *,
    failed: bool = False,
) -> None:
    """Run the commands of a hook, each at most once. Raise StepError where its failure ends the operation."""
    hook = application.loaded.configuration.hooks.hook(name)
    if hook is None or context.facts.done:
        return
    begun = context.facts.begun or 0
    if begun:
        cut = begun > (context.facts.ended or 0)
        left = len(hook.argvs()) - begun
        said = f"command {begun} of the hook {name} was cut short" if cut else f"the hook {name} was cut short"
        rest = f", and {left} more did not run" if left else ""
        _warn(context, f"{said}{rest}; nothing of it is repeated. Run it yourself if it is needed.")
    elif not hook.on_machine(name) and (release or application.current_release()) is None:
        _warn(context, f'the hook {name} did not run: nothing is installed. With `where = "machine"` it runs.')
    else:
        try:
            _run_commands(application, context, name, hook, release, outcome)
        except CancelledError:
            raise
        except (HoldfastError, OSError) as error:
            if not failed and hook.aborts(name):
                raise
            _warn(context, f"the hook {name} failed: {application.host.redactor.text(_what(error))}")
    context.facts.done = True
    context.record()


def _what(error: Exception) -> str:
    return error.what if isinstance(error, HoldfastError) else str(error)


def _warn(context: Context[HookFacts], text: str) -> None:
    """Say a warning and record it, for `log show`."""
    context.say(text)
    context.facts.warnings = [*(context.facts.warnings or []), text]
    context.record()


def _run_commands(
    application: ApplicationContext,
    context: Context[HookFacts],
    name: HookName,
    hook: Hook,
    release: Release | None,
    outcome: str,
) -> None:
    configuration = application.loaded.configuration
    more = {**application.host.resolved(hook.environment), **_facts(application, context, name, release, outcome)}
    limit = hook.timeout_seconds or configuration.limits.hook_timeout_seconds
    place = release or application.current_release()
    for number, argv in enumerate(hook.argvs(), 1):
        context.facts.begun = number
        context.record()
        if hook.on_machine(name) or place is None:
            application.host.run(
                filled(application, argv, place.path if place is not None else "", None),
                cwd=application.loaded.root,
                environment={"HOLDFAST_ROOT": str(application.loaded.root), **more},
                timeout_seconds=limit,
                account=account_of(hook.user) if hook.user else None,
            )
        else:
            sessions = tasks.sessions(application, context.operation)
            command = tasks.in_release(application, place, argv, {**more, **sessions}, hook.user)
            application.runtime.run_task(command, context.operation, timeout_seconds=limit)
        context.facts.ended = number
        context.record()


def _facts(
    application: ApplicationContext, context: OperationContext, name: HookName, release: Release | None, outcome: str
) -> dict[str, str]:
    """Return the variables of a hook that describe its operation; no value is a secret."""
    record = application.journal.operation(context.operation)
    new = context.plan_parameters.commit_facts.release or release
    current = application.current_release()
    present = new or current
    # After the commit the current release is the new one.
    previous = context.plan_parameters.previous or (current if current is not None and current != new else None)
    failed = next((step for step in application.journal.steps(context.operation) if step.error), None)
    built = context.facts_of(BuildPackage)
    return {
        "HOLDFAST_HOOK": name,
        "HOLDFAST_OPERATION": context.operation,
        "HOLDFAST_OPERATION_KIND": record.kind if record is not None else "",
        "HOLDFAST_OUTCOME": outcome,
        "HOLDFAST_RELEASE": present.id if present is not None else "",
        "HOLDFAST_PREVIOUS_RELEASE": previous.id if previous is not None else "",
        "HOLDFAST_PACKAGE": (built.package if built is not None else None) or "",
        "HOLDFAST_BACKUP": context.commit_facts.set_id or "",
        "HOLDFAST_FAILED_STEP": failed.title if failed is not None and outcome != _RUNNING else "",
    }


def _described(application: ApplicationContext, name: HookName, release: Release | None) -> list[str]:
    hook = application.loaded.configuration.hooks.hook(name)
    if hook is None:
        return []
    place = release or application.current_release()
    if hook.on_machine(name) or place is None:
        folder = f"cd {application.loaded.root} &&"
    else:
        folder = "(in a container of the image)" if application.containers is not None else f"cd {place.path} &&"
    directory = place.path if place is not None else ""
    return [f"{folder} {' '.join(filled(application, argv, directory, None))}" for argv in hook.argvs()]
