"""Hold visitors and let them in; the gate opens on a new release only after the commit record."""

from __future__ import annotations

import msgspec

from holdfast.application.context import ApplicationContext
from holdfast.application.instances import target_of
from holdfast.errors import StepError
from holdfast.steps import services, switches
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep


def ensure_running(application: ApplicationContext) -> bool:
    """Start the gate's own server where it has one; return whether it was not running."""
    instance = application.gate.instance()
    if instance is None:
        return False
    if _runs(application):
        services.start_gate(application)
        return False
    problems = [problem for problem in application.gate.check() if problem.severity == "error"]
    if problems:
        raise StepError(problems[0].message, next_step=problems[0].advice)
    services.start_gate(application)
    return True


def _runs(application: ApplicationContext) -> bool:
    instance = application.gate.instance()
    status = application.gate_runtime.statuses().get(instance.name) if instance is not None else None
    return status is not None and status.running


class GateFacts(StepFacts):
    started: bool | None = None
    """Whether this operation starts the gate's server."""


class CloseGate(TypedStep[GateFacts], frozen=True):
    """Show visitors the maintenance page, with a comment."""

    name = "gate.close"
    is_undone = True
    undo_strategy = "gate"

    comment: str = ""

    @property
    def title(self) -> str:
        return "close the gate"

    def do(self, application: ApplicationContext, context: Context[GateFacts]) -> None:
        reason = {"operation": context.operation, "comment": self.comment}
        application.gate.close(reason)
        if context.facts.started is None:  # recorded first: a server that was started and then forgotten keeps its port
            context.facts.started = application.gate.instance() is not None and not _runs(application)
            context.record()
        if ensure_running(application):
            application.gate.close(reason)
        switches.settle(application, context, closed=True)

    def undo(self, application: ApplicationContext, context: Context[GateFacts]) -> None:
        """Lead visitors to the committed release again; an operator's own hold stays."""
        _settle_before_open(application, context)
        application.gate.open()
        instance = application.gate.instance()
        if instance is not None and context.facts.started and application.current_release() is None:
            application.gate_runtime.stop(instance.name)
        elif (release := application.current_release()) is not None:
            services.start_gate(application)
            serves = any(item.kind == "web" for item in services.wanted(application))
            if serves and application.gate.state().hold is None:  # what is undone after this, visitors do not wait for
                context.say(f"Visitors reach {release.label} again.")


class OpenGate(TypedStep[NoFacts], frozen=True):
    """Name the committed release and its web in the gate's durable file, then let visitors in."""

    name = "gate.open"

    drains: bool = False
    """Whether an old version still answers requests."""

    @property
    def title(self) -> str:
        return "send visitors to the new version, drain the old one" if self.drains else "open the gate"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        web = [instance for instance in services.started(application, context.operation) if instance.kind == "web"]
        release = context.commit_facts.release
        if web and release is not None:
            application.gate.route(release.id, target_of(application, web[0]))
        ensure_running(application)
        _settle_before_open(application, context)
        application.gate.open()


def _settle_before_open(application: ApplicationContext, context: OperationContext) -> None:
    """Switch back what the application itself says, before visitors reach it."""
    switches.settle(application, context, closed=application.gate.state().hold is not None)


class HoldFacts(StepFacts):
    previous: dict[str, object] | msgspec.UnsetType | None = msgspec.UNSET
    """The operator's hold before this operation; unset until it was looked at."""


class HoldGate(TypedStep[HoldFacts], frozen=True):
    """Begin or end the operator's own maintenance, which no other operation ends."""

    name = "gate.hold"
    is_undone = True

    hold: dict[str, object] | None

    @property
    def title(self) -> str:
        return "maintenance off" if self.hold is None else "maintenance on"

    def do(self, application: ApplicationContext, context: Context[HoldFacts]) -> None:
        if context.facts.previous is msgspec.UNSET:
            present = application.gate.state().hold
            context.facts.previous = dict(present) if present is not None else None
            context.record()
        if self.hold is None:
            switches.settle(application, context, closed=application.gate.state().operation is not None)
        application.gate.hold(self.hold)
        holder = (application.gate.state().operation or {}).get("operation")
        if self.hold is None and holder not in {record.id for record in application.journal.unfinished()}:
            _settle_before_open(application, context)
            application.gate.open()  # an operation that was abandoned has left it closed
        switches.settle(application, context, closed=not application.gate.state().open)

    def undo(self, application: ApplicationContext, context: Context[HoldFacts]) -> None:
        if context.facts.previous is not msgspec.UNSET:
            application.gate.hold(context.facts.previous)
            switches.settle(application, context, closed=not application.gate.state().open)


class AnnounceFacts(StepFacts):
    previous: str | None = None
    """The text before; empty if there was none."""


class Announce(TypedStep[AnnounceFacts], frozen=True):
    """Show users a text by the switches of the gate, without holding them."""

    name = "gate.announce"
    is_undone = True

    text: str = ""

    @property
    def title(self) -> str:
        return "announce maintenance" if self.text else "remove the announcement"

    def do(self, application: ApplicationContext, context: Context[AnnounceFacts]) -> None:
        if context.facts.previous is None:
            context.facts.previous = switches.announcement(application)
            context.record()
        switches.announce(application, context, self.text)

    def undo(self, application: ApplicationContext, context: Context[AnnounceFacts]) -> None:
        if context.facts.previous is not None:
            switches.announce(application, context, context.facts.previous)
