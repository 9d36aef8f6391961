"""The code of `init`: a commented holdfast.toml for a folder, from its contents or from a preset."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.config.load import FILE_NAME, load, presets
from holdfast.config.schema import Configuration
from holdfast.errors import ConfigurationError, NotFoundError, RefusedError
from holdfast.scaffold import compose, guesses, php
from holdfast.scaffold.guesses import Guess
from holdfast.system import durable
from holdfast.system.host import Host

SCHEMA_NAME = "holdfast.schema.json"
_SKIPPED = {".git", ".venv", "venv", "node_modules", "releases", "__pycache__"}
_UPLOADS = ("media", "uploads", "attachments", "files")


def write(
    folder: Path,
    *,
    preset: str | None = None,
    force: bool = False,
    host: Host | None = None,
    ask: Callable[[Guess], str] | None = None,
) -> tuple[Path, list[str]]:
    """Write holdfast.toml; return its path and the findings behind it. Raise RefusedError or NotFoundError.

    With a host, ask Compose for the model of its files, if there are any. `ask` returns what somebody answers to a
    guess; without it guesses stay marked.
    """
    path = folder / FILE_NAME
    if path.exists() and not force:
        raise RefusedError(f"{path} already exists", next_step="Edit it, or use --force to replace it.")
    if preset is not None and preset not in presets():
        raise NotFoundError(f"there is no preset {preset!r}", next_step=f"Known: {', '.join(sorted(presets()))}.")
    text, findings = propose(folder, preset, host)
    if ask is not None:
        text = guesses.answered(text, ask)
    durable.write_file(folder / SCHEMA_NAME, schema(), 0o644)
    durable.write_file(path, text, 0o644)
    return path, findings


def propose(folder: Path, preset: str | None, host: Host | None = None) -> tuple[str, list[str]]:
    """Return the text and the findings, without writing."""
    findings: list[str] = []
    name = re.sub(r"[^a-z0-9_-]", "-", folder.name.lower()).strip("-_") or "application"
    name = name if name[0].isalpha() else f"app-{name}"
    repository = next(
        (candidate for candidate in (".", "repository", "repo", "source") if (folder / candidate / ".git").exists()),
        None,
    )
    code = folder / (repository or ".")
    project = compose.project_in(folder, host) if preset is None and host is not None else None
    model = compose.model_of(project, host, findings) if project is not None and host is not None else None
    django = (code / "manage.py").is_file() and _is_django(code)
    if django and preset is None and model is None:
        preset = "django"
        findings.append("a Django project: uses preset:django")
    of_php = php.preset_of(code) if preset is None and model is None else None
    if of_php is not None:
        preset = of_php[0]
        findings.append(f"{of_php[1]}: uses preset:{preset}")
    lines = [
        f"#:schema ./{SCHEMA_NAME}",
        "# Written by `holdfast init`. `holdfast config help KEY` explains each key; check the lines marked ?.",
        *([f'extends = "preset:{preset}"', ""] if preset else []),
        "[application]",
        f'name = "{name}"   # ? from the name of the folder',
        'environment = "production"',
        *_state(name),
        "",
    ]
    made = (
        compose.propose(project, model, host)
        if project is not None and model is not None and host is not None
        else None
    )
    found = made.repository if made is not None else repository
    findings.insert(0, f"git repository: {found}" if found else "no git repository found: set source.repository")
    lines += ["[source]", f'repository = "{found or "."}"' + ("" if found else "   # ?")]
    if made is not None and made.script:
        unsure = "" if made.is_sure_of_script else "   # ? with which arguments"
        lines.append(f"images = {json.dumps([list(made.script)])}{unsure}")
    lines.append("")
    config_files: list[str] = []
    if made is not None:
        lines += [*made.lines, "[gate]", 'kind = "none"   # ? "front" puts a proxy before the web', ""]
        findings += made.findings
        config_files = made.config_files
    elif preset is None:
        lines += _services(code, findings) + _data(folder, findings)
        lines += ["[gate]", 'kind = "front"', 'listen = "127.0.0.1:8000"   # ? the address that visitors use', ""]
    elif of_php is not None:
        lines += php.lines(preset, name)
    else:
        module = _wsgi_module(code)
        if module:
            lines += [
                "[services.web]",
                f'command = ["gunicorn", "{module}", "--bind", "127.0.0.1:{{port}}"]   # ? the program that answers',
                'health = "/"   # ? a page that answers 2xx and needs the database',
                "",
            ]
            findings.append(f"WSGI module: {module}")
    lines += [
        "[vaults.local]",
        'kind = "local"',
        f'path = "{_vault(name)}"   # ? a folder for backups, best on another disk than the data',
        "",
        *(
            ["[backup]", "keep = { last = 3, daily = 7, weekly = 4, monthly = 12 }"]
            if of_php is None
            else []  # the preset has it
        ),
        *([f"config_files = {json.dumps(config_files)}"] if config_files else []),
        "",
    ]
    return "\n".join(lines), findings


def schema() -> str:
    """Return the JSON Schema of holdfast.toml, with which editors complete and check it."""
    return json.dumps(msgspec.json.schema(Configuration), indent=1) + "\n"


def _state(name: str) -> list[str]:
    """Return the state directory for somebody who may not write into the usual one."""
    if os.geteuid() == 0:
        return []
    return [f'state = "{Path.home()}/.local/state/holdfast/{name}.production"   # ? a folder that you own']


def _vault(name: str) -> str:
    return f"/var/backups/{name}" if os.geteuid() == 0 else f"{Path.home()}/backups/{name}"


def is_of_containers(path: Path) -> bool:
    """Return whether a written file is for containers, which are already running and can be adopted."""
    try:
        return load(str(path)).configuration.runtime.kind == "compose"
    except ConfigurationError:
        return False  # some keys must be filled in first


def _is_django(code: Path) -> bool:
    return "django" in (code / "manage.py").read_text(errors="replace").lower()


def _wsgi_module(code: Path) -> str | None:
    found = sorted(path for path in code.glob("*/wsgi.py") if path.parent.name not in _SKIPPED)
    return f"{found[0].parent.name}.wsgi" if found else None


def _services(code: Path, findings: list[str]) -> list[str]:
    """Return services from a Procfile, or one to fill in."""
    procfile = code / "Procfile"
    lines: list[str] = []
    if procfile.is_file():
        for line in procfile.read_text().splitlines():
            name, _, command = line.partition(":")
            if not command or name.strip() == "release":
                continue
            argv = [argument.replace("$PORT", "{port}") for argument in command.split()]
            lines += [f"[services.{name.strip().lower()}]", f"command = {json.dumps(argv)}   # ? from the Procfile"]
            lines += ['health = "/"   # ? a page that answers 2xx and needs the database'] if name == "web" else []
            lines.append("")
        findings.append("services from the Procfile")
        return lines
    for name in ("app.py", "main.py", "server.py"):
        if (code / name).is_file():
            findings.append(f"web: {name}")
            return [
                "[services.web]",
                f'command = ["python3", "{name}"]   # ? it must listen on 127.0.0.1 and port {{port}}',
                'health = "/"   # ? a page that answers 2xx and needs the database',
                "",
            ]
    findings.append("the start command was not found: fill in services.web.command")
    return [
        "[services.web]",
        'command = ["./start"]   # ? it must listen on 127.0.0.1 and port {port}',
        'health = "/"   # ? a page that answers 2xx and needs the database',
        "",
    ]


def _data(folder: Path, findings: list[str]) -> list[str]:
    """Return SQLite files, recognized by their first bytes, and folders with the usual names of uploads."""
    lines: list[str] = []
    number = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if _SKIPPED & set(inside.parts):
            continue
        if path.is_file() and path.stat().st_size >= 100 and path.suffix in (".db", ".sqlite", ".sqlite3"):
            with open(path, "rb") as file:
                if file.read(16) != b"SQLite format 3\0":
                    continue
            number += 1
            lines += [
                f"[databases.{'main' if number == 1 else f'db{number}'}]",
                'kind = "sqlite"',
                f'path = "{inside}"   # ? found here: is it the data of the application',
                "",
            ]
            findings.append(f"SQLite database: {inside}")
        elif path.is_dir() and path.name in _UPLOADS:
            lines += [f"[files.{path.name}]", f'path = "{inside}"   # ? found here: does the application write it', ""]
            findings.append(f"files: {inside}")
    if not number:
        findings.append("no SQLite database found: add [databases.main] if there is one")
    return lines
