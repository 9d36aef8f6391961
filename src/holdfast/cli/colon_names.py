"""Commands by the names of orocloud-cli, such as `app:package:build`, in the words of Holdfast.

One rule: a leading `app:` is left out, and each colon means a blank. The table has what is named otherwise here,
with the options that have other names, and an answer for what has no equivalent.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

PROGRAM = "orocloud-cli"
"""The name of a link to `holdfast` by which old scripts call it."""
_PREFIX = "app:"
_WITH_VALUE = ("-c", "--config", "-e", "--environment", "--color")


class Answered(Exception):  # not an error of Holdfast: the answer to a name or an option
    """A name or an option that has no equivalent; the text says what replaced it."""


class Form(NamedTuple):
    """What a name means here. An option maps to words that replace it, or to an answer that begins with `!`."""

    words: tuple[str, ...]
    options: Mapping[str, str] = {}
    answer: str = ""
    arguments: str = ""
    """How arguments are passed: `split` for a command line in one argument, `last` for the last one alone."""


_WITH_MEDIA = "--with-media"
_COMMON = {
    "--no-interaction": "",
    "-n": "",
    "--ansi": "--color=always",
    "--no-ansi": "--color=never",
    "-V": "--version",
    "--force": "--yes",
    "--log": "!the output of every operation is kept: see `holdfast log list` and `holdfast log show ID`",
}
_REINDEX = (
    "!a search index is built by `tasks.reindex`, which runs after a restore or an import; add the command to"
    " `tasks.warm_cache` to run it in each upgrade"
)
_UPGRADE = {
    "--reference": "=",
    "--schedule-search-reindexation": _REINDEX,
    "--skip-cache-rebuild": "!the cache is warmed by `tasks.warm_cache`: remove that task to leave it out",
}
_DEPLOY = {
    "--reference": "=",
    "-O": "!options of the installation belong into the command of `tasks.install`, secrets into its environment",
}
_MEDIA = {
    "--adapter": "=",
    "--cleanup-source": "!sources are kept: remove them yourself once the files have been uploaded",
    "--keep-source": "",
}
_CREATE = {
    "--label": "--comment=",
    "--fs-backup-type": '!set `backup.code` in holdfast.toml: "archive", or "commit" for the hash alone',
}
_LIST = {"--fs-backup-type": "!`holdfast backup show ID` says how the code of a backup is stored"}
_BLACKFIRE = {
    f"--blackfire-{name}": "!set the profiler's variables in `[environment]` of holdfast.toml"
    for name in ("enable", "client-id", "client-token", "env", "samples")
}
_CACHE = {
    "--skip-session-flush": "",
    "--cleanup-existing-cache": "!the earlier cache is removed once the new one is in use",
    "--force-cleanup-existing-cache": "!the earlier cache is removed once the new one is in use",
}
_RESTORE_SANITIZED = {
    "--skip-assets-rebuild": "!assets belong to the release and are not built again by a restore",
    "--skip-cache-rebuild": _UPGRADE["--skip-cache-rebuild"],
}
_DURATION = {"--maintenance-mode-duration": "--duration=", "--maintenance-mode-comment": "--comment="}

TABLE: dict[str, Form] = {
    "deploy": Form(("install", "--again"), _DEPLOY),
    "upgrade": Form(("upgrade",), _UPGRADE),
    "upgrade:rolling": Form(("upgrade", "--rolling"), _UPGRADE),
    "upgrade:source": Form(("upgrade", "--source"), _UPGRADE),
    "app:package:upgrade": Form(("upgrade",), _UPGRADE),
    "app:package:update": Form(("upgrade",), {**_UPGRADE, "--label": "!the label is that of `package build`"}),
    "app:console": Form(("console", "--"), _BLACKFIRE, arguments="split"),
    "app:cache:clear": Form(("cache", "rebuild"), _CACHE),
    "app:cache:api": Form((), answer="Run it by `holdfast console`: the cache of an API is the application's own."),
    "app:translation:update": Form((), answer="Run it by `holdfast console`, or add it to `tasks.warm_cache`."),
    "app:schema:update": Form((), answer="`holdfast upgrade REF` runs `tasks.migrate`, and undoes it if it fails."),
    "app:consumer": Form((), answer="Run `holdfast service start NAME`, or one consumer by `holdfast console`."),
    "app:search:reindex": Form((), answer=_REINDEX.removeprefix("!")),
    "search:reindex": Form((), answer=_REINDEX.removeprefix("!")),
    "cache:rebuild": Form(("cache", "rebuild"), _CACHE),
    "backup:create": Form(("backup", "create"), _CREATE),
    "backup:create:db": Form(("backup", "create", "--only", "@databases"), _CREATE),
    "backup:create:media": Form(("backup", "create", "--only", "@files"), _CREATE),
    "backup:list": Form(("backup", "list"), _LIST),
    "backup:restore": Form(("backup", "restore", "--except", "@files"), {"--with-media": _WITH_MEDIA}),
    "backup:restore:db": Form(("backup", "restore", "--only", "@databases")),
    "backup:restore:media": Form(("backup", "restore", "--only", "@files")),
    "backup:create:sanitized": Form(("backup", "create", "--sanitized"), {"--label": "--comment="}),
    "backup:list:sanitized": Form(("backup", "list", "--sanitized")),
    "backup:restore:sanitized": Form(("backup", "restore", "--sanitized"), _RESTORE_SANITIZED),
    "backup:sanitized:rules": Form(("sanitize", "rules")),
    "backup:sanitized:queries": Form(("sanitize", "queries")),
    "backup:sanitized:delete": Form(("backup", "delete", "--sanitized")),
    "backup:sanitized:download": Form(
        (), answer="`holdfast backup list --sanitized` shows the path of each file; copy it, for example with scp."
    ),
    "dump:environments": Form(
        (), answer="Each overlay holdfast.NAME.toml is an environment: holdfast config show -e NAME"
    ),
    "dump:create": Form((), answer="`holdfast clone FROM TO` makes a sanitized backup of FROM and loads it into TO."),
    "dump:list": Form((), answer="`holdfast backup list -e FROM` shows what `holdfast clone --backup ID` can take."),
    "dump:load": Form((), answer="`holdfast clone FROM TO --backup ID --only NAME` loads a backup into TO."),
    "maintenance:on": Form(("maintenance", "on"), _DURATION),
    "emergency:on": Form(("maintenance", "on", "--web-only"), _DURATION),
    "emergency:off": Form(("maintenance", "off")),
    "log:view": Form(("log", "show")),
    "credentials": Form(("credentials", "show"), {"--selector": "="}),
    "queue:message": Form(("queue", "peek")),
    "queue:messages": Form(("queue", "peek")),
    "rabbitmq:queue:list": Form(("queue", "list")),
    "rabbitmq:queue:purge": Form(("queue", "purge"), arguments="last"),
    "rabbitmq:reroute:queue": Form(("queue", "reroute"), {"--contains": "--filter="}),
    "media:list": Form(("media", "list"), _MEDIA),
    "media:download": Form(("media", "download"), _MEDIA),
    "media:upload": Form(("media", "upload"), _MEDIA),
    "media:import": Form(("import", "files")),
    "patch:apply": Form(("patch", "apply"), {"--force": "--force"}),
    "patch:revert": Form(("patch", "revert"), {"--force": "--force"}),
}
"""The names that the rule does not cover, or whose options have other names here."""

BY_RULE = (
    "app:package:build",
    "app:package:list",
    "app:package:deploy",
    "config:help",
    "config:validate",
    "log:list",
    "maintenance:off",
    "media:delete",
    "media:dump",
    "patch:list",
    "patch:view",
    "queue:list",
    "queue:purge",
    "queue:reroute",
    "secret:apply",
    "secret:list",
    "secret:set",
    "service:restart",
    "service:start",
    "service:status",
    "service:stop",
)
"""The documented names that the rule covers. Of services, a kind may follow, as in `service:stop:consumer`."""
_OWN_NAMES = ("upgrade", "credentials")
"""Names without a colon that are also commands here."""


def form_of(name: str) -> Form:
    """Return what a name means here, by the table or by the rule."""
    return TABLE.get(name) or Form(tuple(name.removeprefix(_PREFIX).split(":")))


def families() -> dict[str, list[str]]:
    """Return the names that mean a command here, by the words before their last ones."""
    found: dict[str, list[str]] = {}
    for name in names():
        if not form_of(name).answer and name not in _OWN_NAMES:
            parts = name.split(":")
            depth = 2 if parts[0] == _PREFIX.rstrip(":") and len(parts) > 2 else 1
            found.setdefault(":".join(parts[:depth]), []).append(":".join(parts[depth:]))
    return found


def names() -> list[str]:
    """Return all documented names, in their order in the alphabet."""
    return sorted({*TABLE, *BY_RULE})


def translated(arguments: Sequence[str], commands: Collection[str], *, own: bool = False) -> list[str]:
    """Return a command line in the words of Holdfast, with its `commands`; the same one if it is none of the names.

    `own`: it is called as orocloud-cli. Raise Answered for a name or an option without an equivalent.
    """
    position = _position(arguments)
    if position is None:
        return list(arguments)
    name = arguments[position]
    known = name in TABLE and (name not in _OWN_NAMES or _is_foreign(name, arguments[position + 1 :], own=own))
    if not known and not _is_name(name):
        return list(arguments)
    form = form_of(name)
    if form.answer:
        raise Answered(f"{name}: {form.answer}")
    if form.words[0] not in commands:
        from holdfast.config.similar import did_you_mean  # only after an error

        meant = f" It would be `holdfast {' '.join(form.words)}`." if name in (*TABLE, *BY_RULE) else ""
        question = did_you_mean(name, [] if meant else names())
        raise Answered(f"this version has no command for {name!r}.{meant} {question}".rstrip())
    words = list(form.words)
    more = _replaced(name, list(arguments[position + 1 :]), form)
    if form.arguments == "split":
        begin = next((number for number, word in enumerate(more) if not word.startswith("-")), len(more))
        command = more[begin:]
        command = shlex.split(command[0]) if len(command) == 1 else command
        return [*arguments[:position], *more[:begin], *words, *command]
    if _WITH_MEDIA in more:
        more.remove(_WITH_MEDIA)
        words = words[: words.index("--except")]
    if form.arguments == "last":
        others = [word for word in more if not word.startswith("-")]
        more = [word for word in more if word.startswith("-") or word is others[-1]]
    return [*arguments[:position], *words, *more]


def _is_name(word: str) -> bool:
    return (
        ":" in word
        and not word.startswith("-")
        and "/" not in word
        and word.replace(":", "").replace("-", "").isalnum()
    )


def _is_foreign(name: str, arguments: Sequence[str], *, own: bool) -> bool:
    """Return whether a command that is also one of Holdfast is meant as that of orocloud-cli."""
    if name == "credentials":
        return "show" not in arguments and bool({"-h", "--help"}.isdisjoint(arguments)) and (own or bool(arguments))
    return own or any(one.partition("=")[0] == "--reference" for one in arguments)


def _position(arguments: Sequence[str]) -> int | None:
    """Return where the name of the command is, behind options that every command takes."""
    skip = False
    for position, word in enumerate(arguments):
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif word == "--":
            return None
        elif not word.startswith("-"):
            return position
    return None


def _replaced(name: str, rest: list[str], form: Form) -> list[str]:
    """Return the arguments of a command with its options in the words of Holdfast. Raise Answered."""
    known = {**_COMMON, **form.options}
    found: list[str] = []
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        option, equals, value = word.partition("=")
        if not word.startswith("-") or option not in known:
            found += [word, *rest[:1]] if word in _WITH_VALUE else [word]
            del rest[: 1 if word in _WITH_VALUE else 0]
            continue
        meaning = known[option]
        if meaning.startswith("!"):
            raise Answered(f"{name} {option}: {meaning[1:]}")
        if option in ("-n", "--no-interaction"):
            _never_ask()
        if meaning.endswith("="):  # an option with a value
            value = value if equals else "".join(rest[:1])
            del rest[: 0 if equals else 1]
            found.append(f"{meaning}{value}" if meaning != "=" else value)
        elif meaning:
            found.append(meaning)
    return found


def _never_ask() -> None:
    """Close the standard input, so that a question is refused instead of asked."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno() if sys.stdin is not None else 0)


def called_as_other() -> bool:
    """Return whether this program was called by the name of the other one."""
    return os.path.basename(sys.argv[0]) == PROGRAM
