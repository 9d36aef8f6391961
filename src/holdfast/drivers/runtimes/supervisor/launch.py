"""`python -m holdfast.drivers.runtimes.supervisor.launch FILE`: become the service that FILE describes.

The definition is JSON, so no command or value has to be quoted for supervisord's own syntax; secret references are
resolved here, at the start, and are written to no file. A service gets a small environment, whoever starts it.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import sys
import warnings  # noqa: F401 # os.execvpe imports it, from a folder that the account may not be able to read
from pathlib import Path

from holdfast.system import child_environment, proc

_PRESET = "preset:"
_TEMPLATES = Path(__file__).parents[3] / "presets" / "templates"
_VARIABLE = re.compile(r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_UMASK = 0o022  # supervisord has a stricter one for its own files; another account reads what a service writes


def main() -> None:
    path = Path(sys.argv[1])
    definition = json.loads(path.read_text())
    user = definition["user"] if os.geteuid() == 0 else None
    environment = child_environment.for_the_application(user, definition["directory"])
    for name, value in definition["environment"].items():
        is_secret = value.startswith(("env:", "file:", "command:", "secret:"))
        environment[name] = _resolved(value, definition.get("secrets")) if is_secret else value
    # Definitions that were written before this key had its name are read, too.
    environment["HOLDFAST_INSTANCE"] = definition.get("instance") or definition["mark"]
    environment["HOLDFAST_RELEASE"] = definition["release"]
    try:
        _record(path.with_suffix(".started"), definition["release"])
    except OSError:  # for example on a full disk: its environment identifies it too, unless it overwrites its title
        pass
    files = definition.get("files", {})
    templates = {}
    if files:  # most services have none; the account may not be able to read the modules of this interpreter
        from holdfast.config import placeholders  # noqa: F401

        own = {text for text in files.values() if text.startswith(_PRESET)}
        templates = {text: (_TEMPLATES / text.removeprefix(_PRESET)).read_text() for text in own}
    if user:
        _become(user)
    os.umask(_UMASK)
    os.chdir(definition["directory"])
    if files:
        _write_files(files, templates, environment)
    command = definition["command"]
    os.execvpe(command[0], command, environment)


def _write_files(files: dict[str, str], templates: dict[str, str], environment: dict[str, str]) -> None:
    """Write files of the service from their templates, with the values of this start in place of placeholders.

    `templates` are those that Holdfast contains; the others are files of the release.
    """
    from holdfast.config.placeholders import fill

    python = Path(".venv/bin/python").absolute()
    values = {
        "port": environment.get("PORT", ""),
        "release": os.getcwd(),
        "root": environment["HOLDFAST_ROOT"],
        "python": str(python) if python.exists() else "python3",
    }
    for name, template in files.items():
        target = Path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = fill(templates[template] if template in templates else Path(template).read_text(), values)
        filled = _VARIABLE.sub(lambda found: environment.get(found[1], found[0]), text)
        # What has a variable in it may have a secret in it, which is for this account alone.
        mode = 0o600 if filled != text else 0o666
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(filled)


def _become(user: str) -> None:
    account = pwd.getpwnam(user)
    for stream in (1, 2):  # nginx, php-fpm and others open /dev/stderr, for which they need to own the pipe
        if stat.S_ISFIFO(os.fstat(stream).st_mode):
            os.fchown(stream, account.pw_uid, account.pw_gid)
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def _record(path: Path, release: str) -> None:
    """Record which process becomes the service, in the form that `started.py` reads; imports are few for speed."""
    pid = os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    record = {
        "pid": pid,
        "started": proc.stat().started,
        "release": release,
        "where": f"{boot} {os.readlink('/proc/self/ns/pid')}",
    }
    new = path.with_name(f".{path.name}.{pid}")
    new.write_text(json.dumps(record))
    new.replace(path)


def _resolved(reference: str, store: list[str] | None) -> str:
    from holdfast.system.host import Host  # most services have no secret
    from holdfast.system.secret_store import SecretStore

    paths = [Path(path) for path in store] if store is not None else []
    return Host(store=SecretStore(*paths) if paths else None).resolve_secret(reference)


if __name__ == "__main__":
    main()
