"""`holdfast secret set | list | apply | remove`."""

from __future__ import annotations

import os
import sys

import click

from holdfast.cli.command import group
from holdfast.cli.render import Column
from holdfast.cli.session import Session, common
from holdfast.cli.text import local_minute, local_zone
from holdfast.errors import UsageError

_MASKED = "********"
_MOST_BYTES = 1 << 20


@group()
def secret() -> None:
    """Keep secrets encrypted; configuration refers to them as secret:NAME."""


@secret.command(
    "set",
    examples=[
        ("secret set API_TOKEN", "Asks for the value, which is not shown."),
        ("secret set API_TOKEN --file token.txt", "From a file; `-` is the standard input."),
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("more", nargs=-1, metavar="")
@click.option("--file", "file", metavar="FILE", help="Read the value from a file; `-` reads the standard input.")
@common
def set_(session: Session, name: str, more: tuple[str, ...], file: str | None) -> None:
    """Set a value, which is pending until `secret apply`.

    It is asked for without being shown, or read from the standard input if that is not a terminal. One line break at
    its end is left out. A value is never an argument, which other accounts can see and shells keep.
    """
    from holdfast.system.secret_store import NAME

    if more:
        raise UsageError(
            "the value of a secret is never an argument, which other accounts can see and shells keep",
            next_step=f"Run `holdfast secret set {name if NAME.fullmatch(name) else 'NAME'}` and type it when asked.",
        )
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid name of a secret",
            next_step="Use letters, digits, _, . and -; a letter or _ comes first; 64 characters at most.",
        )
    app = session.changing_app()
    value = _value(session, name, file)
    store = app.loaded.secret_store()
    with app.runner.lock("change").acquire(f"secret set {name}"):
        app.runner.refuse_if_interrupted()
        made = not store.identity_path.exists()
        store.set(name, value, app.context.host.redactor.text(os.environ.get("SUDO_USER") or _user()))
    session.renderer.line(f"{name} is pending; to put it in use, run: holdfast secret apply")
    if made:
        session.renderer.note(
            f"The identity {store.identity_path} was made. Keep a copy of it elsewhere: backups have the secrets only"
            " encrypted for it."
        )
    session.renderer.result({"name": name, "status": "pending", "identity": str(store.identity_path)})


def _user() -> str:
    import getpass

    return getpass.getuser()


def _value(session: Session, name: str, file: str | None) -> str:
    if file not in (None, "-"):
        with open(str(file), "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    elif file == "-" or not sys.stdin.isatty():
        data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    else:
        data = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True).encode()
    text = data.removesuffix(b"\n").removesuffix(b"\r")
    try:
        value = text.decode()
    except UnicodeDecodeError:
        raise UsageError("the value is not UTF-8, so it cannot be in an environment") from None
    if not value or "\0" in value or len(data) > _MOST_BYTES:
        raise UsageError("the value is empty, contains a zero byte or is longer than 1 MiB")
    return value


@secret.command("list", examples=[("secret list", "Which are there, and which are pending?")])
@common
def list_(session: Session) -> None:
    """List secrets: name, masked value, whether it is in use, and what uses it."""
    from holdfast.config.secret_references import keys_of

    loaded = session.loaded()
    store = loaded.secret_store()
    ready, pending = store.ready(), store.pending()
    found = []
    for name in sorted({*ready, *pending}):
        kept = pending.get(name) or ready[name]
        status = ("pending, replaces a value in use" if name in ready else "pending") if name in pending else "ready"
        keys = keys_of(loaded.configuration, name)
        found.append({"name": name, "value": _MASKED, "status": status, "at": kept.at, "by": kept.by, "used_by": keys})
    session.renderer.table(
        ["SECRET", "VALUE", "STATUS", f"SET ({local_zone()})", "BY", Column("USED BY", wraps=True)],
        [
            [
                str(i["name"]),
                _MASKED,
                str(i["status"]),
                local_minute(str(i["at"])),
                str(i["by"]),
                ", ".join(i["used_by"]),
            ]
            for i in found
        ],
        empty="There is no secret yet. To set one, run: holdfast secret set NAME",
    )
    session.renderer.result({"secrets": found, "identity": str(store.identity_path), "recipient": store.recipient})


@secret.command(
    examples=[
        ("secret apply --dry-run", "Which services would be restarted?"),
        ("secret apply", "Put all pending values in use."),
    ]
)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def apply(session: Session, names: tuple[str, ...], dry_run: bool) -> None:
    """Put pending values in use, and restart the services that use them.

    If one of them does not get healthy, all of them run with the values from before.
    """
    from holdfast.operations import secret as operation

    app = session.changing_app()
    plan = operation.plan_apply(app, names)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run)


@secret.command(examples=[("secret remove OLD_TOKEN", "Forget one that nothing uses.")])
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@common
def remove(session: Session, names: tuple[str, ...], dry_run: bool) -> None:
    """Forget secrets that the configuration does not use."""
    from holdfast.operations import secret as operation

    app = session.changing_app()
    plan = operation.plan_remove(app, names)
    if not dry_run:
        session.confirm(f"{plan.title}?", plan.notes)
    session.run(app, plan, dry_run=dry_run)
