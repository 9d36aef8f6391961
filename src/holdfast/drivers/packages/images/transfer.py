"""Images between a container engine and a registry, by the engine's own commands.

Facts (docker(1), podman-push(1)): a push to a registry on the loopback interface needs no TLS with Docker, and
`--tls-verify=false` with Podman; Docker reads logins from `config.json` in the folder of `--config`, Podman from the
file of `--authfile`. After a push, Docker knows the digest in the registry as one of the image's `RepoDigests`; Podman
writes it to the file of `--digestfile`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from holdfast.drivers.packages.images.names import ImageNames
from holdfast.drivers.protocols.packages import EngineLogin
from holdfast.errors import StepError
from holdfast.model.packages import StoredImage
from holdfast.system.host import Host

_PODMAN = "podman"


class ImageCarrier:
    """Pushes and pulls images by their digests; the names that this needs are taken away again."""

    def __init__(self, engine: str, names: ImageNames, host: Host, login: EngineLogin, timeout_seconds: float) -> None:
        self._engine = engine
        self._names = names
        self._host = host
        self._login = login
        self._timeout_seconds = timeout_seconds

    def push(self, id: str, service: str, tag: str) -> str:
        """Push an image; return its repository with its digest there. Raise CommandFailedError or StepError."""
        repository = f"{self._login.address}/{service}"
        name = f"{repository}:{tag}"
        self._names.give(name, id)
        try:
            digest = self._pushed(name, repository)
        finally:
            self._names.take_away(name)
        if not digest:
            raise StepError(f"the engine pushed {name} and does not say its digest")
        return f"{repository}@{digest}"

    def _pushed(self, name: str, repository: str) -> str:
        if Path(self._engine).name == _PODMAN:
            with tempfile.NamedTemporaryFile() as digest:
                self._run("push", "--digestfile", digest.name, name)
                return Path(digest.name).read_text().strip()
        self._run("push", name)
        listed = self._host.capture([self._engine, "image", "inspect", "--format={{json .RepoDigests}}", name])
        found = [one for one in json.loads(listed) or [] if one.rpartition("@")[0] == repository]
        return found[0].rpartition("@")[2] if found else ""

    def pull(self, stored: StoredImage, keep_under: str) -> tuple[str, str]:
        """Pull an image and keep it under a name of Holdfast's; return that name and the image's id."""
        self._run("pull", stored.reference)
        id = self._names.id(stored.reference)
        if not id:
            raise StepError(f"the engine pulled {stored.reference} and does not have it")
        tag = f"{keep_under}:{id.rpartition(':')[2][:20]}"
        self._names.give(tag, id)
        self._names.take_away(stored.reference)
        return tag, id

    def _run(self, verb: str, *arguments: str) -> None:
        folder = self._login.folder
        if Path(self._engine).name == _PODMAN:
            options = ["--tls-verify=false"] if self._login.plain else []
            options += ["--authfile", str(folder / "config.json")] if folder is not None else []
            argv = [self._engine, verb, *options, *arguments]
        else:
            options = ["--config", str(folder)] if folder is not None else []
            argv = [self._engine, *options, verb, *arguments]
        self._host.run(argv, timeout_seconds=self._timeout_seconds)
