"""The real command line in a process of its own: forked from one that has it imported, or started afresh."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from tests.e2e.zygote import Zygote
from tests.proof import patience
from tests.proof.endings import at_end


class Configured(Protocol):
    """What has a holdfast.toml."""

    config: Path


class Placed(Configured, Protocol):
    """And a folder beside which a command's output goes."""

    folder: Path


def arguments_of(site: Configured, *arguments: str) -> list[str]:
    """Return the arguments of a command on a site; what follows `--` stays behind it."""
    command, separator, rest = (
        (arguments[: arguments.index("--")], ["--"], arguments[arguments.index("--") + 1 :])
        if "--" in arguments
        else (arguments, [], ())
    )
    return [*command, "--yes", "--config", str(site.config), *separator, *rest]


def argv(site: Configured, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "holdfast", *arguments_of(site, *arguments)]


@functools.cache
def _zygote() -> Zygote:
    made = Zygote()
    at_end(made.close)
    return made


def run(
    site: Configured,
    *arguments: str,
    timeout: float = 240,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    afresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. `afresh`: in an interpreter that is started for it, as users do."""
    timeout = patience.limit(timeout)
    if not afresh and _zygote().lock.acquire(blocking=False):
        try:
            return _zygote().run(arguments_of(site, *arguments), timeout, stdin)
        finally:
            _zygote().lock.release()
    return subprocess.run(
        argv(site, *arguments), capture_output=True, text=True, timeout=timeout, stdin=stdin, check=False
    )


def succeed(site: Configured, *arguments: str) -> str:
    """What a command printed that is to end well."""
    done = run(site, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_json(site: Configured, *arguments: str) -> dict[str, Any]:
    done = run(site, *arguments, "--json")
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def start(site: Placed, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Starts a command and leaves it running; its output goes to a file beside the site."""
    with open(site.folder / "command.log", "ab") as log:
        return subprocess.Popen(argv(site, *arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)


def output(site: Placed) -> str:
    return Path(site.folder / "command.log").read_text()


def script(site: Placed, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of an old script: by a link of the other program's name, with nothing of its command line changed."""
    link = site.folder / "orocloud-cli"
    if not link.is_symlink():
        link.symlink_to(Path(sys.executable).with_name("holdfast"))
    environment = {**os.environ, "HOLDFAST_CONFIG": str(site.config), "PATH": f"{site.folder}:{os.environ['PATH']}"}
    return subprocess.run(
        shlex.split(line),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=patience.limit(120),
    )
