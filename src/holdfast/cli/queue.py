"""`holdfast queue list | peek | purge | reroute`."""

from __future__ import annotations

import base64

import click
import msgspec

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import counted
from holdfast.errors import UsageError

_BROKER = click.option("--broker", metavar="NAME", help="Only this section of [queues].")


@group()
def queue() -> None:
    """Show message queues; purge them, or move messages to another queue."""


@queue.command("list", examples=[("queue list", "How many messages wait, and does anybody consume them?")])
@_BROKER
@common
def list_(session: Session, broker: str | None) -> None:
    """List the queues with their messages and consumers."""
    from holdfast.operations import queue as operation

    app = session.app()
    found = [(name, state) for name, queues in operation.opened(app, broker).items() for state in queues.states()]
    session.renderer.table(
        ["BROKER", Column("QUEUE", wraps=True), Column("MESSAGES", right=True), Column("CONSUMERS", right=True)],
        [
            [name, one.name, f"{one.messages:,}", "" if one.consumers is None else str(one.consumers)]
            for name, one in found
        ],
        empty="There is no queue.",
    )
    session.renderer.result({"queues": [{"broker": name, **msgspec.to_builtins(one)} for name, one in found]})


@queue.command(examples=[("queue peek mail --payload -n 3", "What are the next three messages?")])
@click.argument("queue", metavar="QUEUE")
@click.option("--payload", is_flag=True, help="Also print the messages themselves, which may have personal data.")
@click.option("-n", "--number", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="How many.")
@_BROKER
@common
def peek(session: Session, queue: str, payload: bool, number: int, broker: str | None) -> None:
    """Show messages that wait, the oldest first; they stay in their queue."""
    from holdfast.application import known_secrets
    from holdfast.operations import queue as operation

    app = session.app()
    known_secrets.mask(app.context)
    queues, _ = operation.chosen(app, broker, queue)
    found = queues.peek(queue, number)
    for place, message in enumerate(found, 1):
        session.renderer.line(f"{place}. {message.id or 'message'} ({len(message.body):,} bytes)")
        if payload:
            session.renderer.line(
                f"   {app.context.host.redactor.text(message.body.decode(errors='replace'))}", whole=True
            )
    if not found:
        session.renderer.line(f"No message waits in {queue}.")
    bodies = [base64.b64encode(app.context.host.redactor.redact(one.body)).decode() for one in found if payload]
    session.renderer.result(
        {
            "queue": queue,
            "messages": [{"id": one.id, "size_bytes": len(one.body)} for one in found],
            **({"payload_base64": bodies} if payload else {}),
        }
    )


@queue.command(examples=[("queue purge mail", "Remove all messages, after a question whose answer is no.")])
@click.argument("queue", metavar="QUEUE")
@_BROKER
@common
def purge(session: Session, queue: str, broker: str | None) -> None:
    """Remove all messages that wait in a queue; they are lost."""
    from holdfast.operations import queue as operation

    app = session.changing_app()
    queues, state = operation.chosen(app, broker, queue)
    session.confirm(f"Purge {queue}?", (f"{counted(state.messages, 'message')} of {queue} would be lost.",))
    number = queues.purge(queue)
    session.renderer.line(f"{counted(number, 'message')} removed from {queue}")
    session.renderer.result({"queue": queue, "removed": number})


@queue.command(
    examples=[
        ("queue reroute unprocessed default", "All of them."),
        ("queue reroute failed default --filter order.created", "Only those with this text."),
    ]
)
@click.argument("queue", metavar="QUEUE")
@click.argument("target", metavar="TARGET")
@click.option("--filter", "text", default="", metavar="TEXT", help="Only messages whose body contains this text.")
@_BROKER
@common
def reroute(session: Session, queue: str, target: str, text: str, broker: str | None) -> None:
    """Move waiting messages to another queue of the same broker; whatever ends the command, no message is lost.

    With RabbitMQ, a kill in the middle may leave one message in both queues.
    """
    from holdfast.operations import queue as operation

    if queue == target:
        raise UsageError("both queues are the same one")
    app = session.changing_app()
    queues, state = operation.chosen(app, broker, queue)
    operation.chosen(app, broker, target)
    which = f"with {text!r} " if text else ""
    session.confirm(f"Move messages {which}from {queue} to {target}?", (f"{counted(state.messages, 'message')} wait.",))
    number = queues.reroute(queue, target, text)
    session.renderer.line(f"{counted(number, 'message')} moved from {queue} to {target}")
    session.renderer.result({"queue": queue, "target": target, "moved": number})
