"""What `init` reads from a project's scripts: the web's port, whether its start migrates, what builds images."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.containers.facts import ImageConfig
from holdfast.drivers.compose_model import Model, Service
from holdfast.errors import CommandFailedError
from holdfast.system.host import Host

_LISTENS = re.compile(r"(?:(?:0\.0\.0\.0|\[::\]|\*):|--port[ =])(\d{2,5})\b")
_LARGEST_BYTES = 1 << 18
_SKIPPED = {".git", ".venv", "node_modules", "database", "media"}
_DEPTH = 4


@dataclass(frozen=True)
class Checkout:
    """The folder of the sources; `script` is the argv that builds the images where Compose does not."""

    folder: Path
    script: tuple[str, ...] = ()


def checkout_of(folder: Path, model: Model) -> Checkout | None:
    """Return the project's folder, or one next to it whose script builds an image that the Compose files name."""
    built = [name for name, item in model["services"].items() if item.get("build")]
    images = {str(item.get("image", "")).partition(":")[0] for item in model["services"].values()} - {""}
    for candidate in (folder, *sorted(path for path in folder.parent.iterdir() if path != folder)):
        if not (candidate / ".git").exists():
            continue
        if candidate == folder and built:
            return Checkout(folder)
        for script in _files(candidate):
            if (
                "build" in script.name
                and script.suffix in (".sh", "")
                and any(f"{name}:" in _text(script) for name in images)
            ):
                return Checkout(candidate, (f"./{script.relative_to(candidate)}",))
    return Checkout(folder) if (folder / ".git").exists() else None


def image_facts(image: str, engine: str, host: Host) -> ImageConfig:
    """Return `Config` of an image from the engine; empty if it has no such image."""
    try:
        found: ImageConfig = json.loads(host.capture([engine, "image", "inspect", "--format={{json .Config}}", image]))
    except (CommandFailedError, ValueError):
        return {}
    return found


def start_of(item: Service, image: ImageConfig) -> list[str]:
    """Return the argv that a service starts with: its own, else that of its image."""
    own = item.get("command") or image.get("Cmd") or []
    argv = shlex.split(own) if isinstance(own, str) else [str(argument) for argument in own]
    return [*(str(argument) for argument in item.get("entrypoint") or image.get("Entrypoint") or []), *argv]


def script_of(argv: list[str], checkout: Path) -> str:
    """Return the text of all scripts that a start runs and the sources contain; one script may start the next."""
    texts = []
    for argument in argv:
        name = Path(argument).name
        found = [path for path in _files(checkout) if path.name == name and _text(path).startswith("#!")]
        # Prefer the path in the sources that is most similar to that in the image; else the least deep one.
        found.sort(key=lambda path: (-len(set(path.parts) & set(Path(argument).parts)), len(path.parts)))
        texts += [_text(path) for path in found[:1]]
    return "\n".join(texts)


def port_of(item: Service, image: ImageConfig, argv: list[str], script: str) -> int | None:
    """Return the port that a web listens on in its container; None if none or several are known."""
    said = {int(port["target"]) for port in item.get("ports") or []} | {int(port) for port in item.get("expose") or []}
    exposed = {int(text.partition("/")[0]) for text in image.get("ExposedPorts") or {}}
    listens = {int(found) for found in _LISTENS.findall(f"{' '.join(argv)}\n{script}")}
    for ports in (said, listens, exposed):
        if len(ports) == 1:
            return ports.pop()
    return None


def _files(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name in _SKIPPED:
            continue
        if path.is_dir() and depth:
            yield from _files(path, depth - 1)
        elif path.is_file() and path.stat().st_size <= _LARGEST_BYTES:
            yield path


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
