"""A container engine: facts about containers and images, by its API where it has one here, and their removal.

An error of the client is never taken for the absence of something: the engine may be restarting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from functools import cached_property

from holdfast.containers.api import EngineApi
from holdfast.containers.facts import Known
from holdfast.errors import CommandFailedError, CommandTimeoutError, StepError
from holdfast.system.host import Host

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
_ASK_SECONDS = 60
_DO_SECONDS = 600  # an engine may be slow, but one that hangs must not make Holdfast hang
_GRACE_SECONDS = 10  # a container's default time for its end (documentation of `docker stop`)
_REMOVAL_SECONDS = 20.0
_BACK_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_KILLED = 128 + 9  # the exit code of a container whose process was killed
# Containers in these states always refuse a stop: Podman's is `removing` after a removal that was killed half-way.
_BEYOND_A_STOP = ("removing", "dead")


class Engine:
    """The Docker engine; subclasses override what differs in another one."""

    version_arguments: tuple[str, ...] = ("version", "--format={{.Server.Version}}")
    storage_words: tuple[str, ...] = ("info", "--format={{.DockerRootDir}}")
    not_one_off: tuple[str, ...] = ("com.docker.compose.oneoff=False",)
    changes_policies = True
    has_api = True

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self._host = host

    @cached_property
    def _api(self) -> EngineApi | None:
        return EngineApi.of(self._host.environment()) if self.has_api else None

    def ask(self, *arguments: str) -> str:
        return self._host.capture([self.name, *arguments], timeout_seconds=_ASK_SECONDS)

    def do(self, *arguments: str, timeout_seconds: float = _DO_SECONDS) -> None:
        """Run a command that a Ctrl-C must not leave half done."""
        self._host.run([self.name, *arguments], ignore_cancel=True, timeout_seconds=timeout_seconds)

    def prepare(self) -> None:
        """Raise StepError where the engine does not answer."""
        if self._api is not None and self._api.answers():
            return
        try:
            self.ask(*self.version_arguments)
        except (CommandFailedError, CommandTimeoutError) as error:
            raise StepError(
                f"{self.name} does not answer: {error.state.strip() or error.what}",
                next_step=f"Start it, or give this user the right to use it. Test it with `{self.name} version`.",
            ) from error

    def wait_available(self) -> None:
        """Wait for an engine that may be restarting, for example after a crash. Raise StepError."""
        deadline = time.monotonic() + _BACK_SECONDS
        while True:
            try:
                return self.prepare()
            except StepError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_SECONDS)

    # --- containers --------------------------------------------------------------------------------

    def containers(self, *labels: str) -> list[Known]:
        """Return containers, running or not, with all of these labels, each `NAME=VALUE`."""
        if self._api is not None:
            return self._api.containers(labels)
        given = [f"--filter=label={text}" for text in labels]
        return self.inspected(self.ask("ps", "--all", "--quiet", "--no-trunc", *given).split())

    def running(self) -> list[Known]:
        """Return all running containers. Raise CommandFailedError."""
        if self._api is not None:
            return self._api.containers([], all=False)
        return self.inspected(self.ask("ps", "--quiet", "--no-trunc").split())

    def of_project(self, project: str, *labels: str) -> list[Known]:
        """Return containers of the project's services, whoever started them."""
        found = self.containers(f"{PROJECT}={project}", *self.not_one_off, *labels) if project else []
        return [item for item in found if not self.is_one_off(item)]

    def blocked_by_dependents(self, project: str, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Return names of containers of these services that cannot be removed, each with the one that prevents it.

        Containers of services earlier in `order` count as removed already.
        """
        return {}

    def is_one_off(self, container: Known) -> bool:
        """Return whether a container that the labels did not exclude is a one-off one."""
        return False

    def inspected(self, ids: Sequence[str]) -> list[Known]:
        """Return the facts about those of these containers, by id or name, that exist."""
        if not ids:
            return []
        if self._api is not None:
            return self._api.inspected(ids)
        try:
            found: list[Known] = json.loads(self.ask("container", "inspect", *ids))
        except CommandFailedError:
            known = self.ask("ps", "--all", "--no-trunc", "--format={{.ID}} {{.Names}}").replace(",", " ").split()
            left = [id for id in ids if id in known]
            if left == list(ids):
                raise
            return Engine.inspected(self, left)  # some are gone meanwhile
        return found

    def remove(self, container: Known) -> float | None:
        """End and remove a container with its own stop signal and grace period; its volumes stay.

        Nothing may start it again from here on, even if the machine crashes meanwhile. Return the seconds after which
        the engine had to kill it; None where it ended by itself. Raise StepError.
        """
        id = container["Id"]
        killed = None
        grace = container["Config"].get("StopTimeout") or _GRACE_SECONDS
        deadline = time.monotonic() + grace + _REMOVAL_SECONDS
        while True:
            try:
                if self.changes_policies and container["HostConfig"]["RestartPolicy"]["Name"] not in ("no", ""):
                    self.do("update", "--restart=no", id)
                if container["State"]["Status"] == "paused":  # a paused one would not receive the stop signal
                    self.do("unpause", id)
                if container["State"]["Status"] not in _BEYOND_A_STOP:
                    began = time.monotonic()
                    self.do("stop", id, timeout_seconds=grace + _ASK_SECONDS)
                    if time.monotonic() - began >= grace and self._was_killed(id):
                        killed = float(grace)
                self.do("rm", "--force", id)
                return killed
            except CommandFailedError as error:  # perhaps the container is removing itself
                if not (found := self.inspected([id])):
                    return killed
                container = found[0]
                if time.monotonic() > deadline:
                    raise StepError(f"container {id[:12]} cannot be ended: {error.output_tail.strip()}") from error
            time.sleep(_LOOK_SECONDS)

    def _was_killed(self, id: str) -> bool:
        """Return whether a stopped container was ended by SIGKILL."""
        return any(item["State"].get("ExitCode") == _KILLED for item in self.inspected([id]))

    def storage(self) -> str:
        """Return the folder in which the engine keeps images and containers."""
        return self._api.storage() if self._api is not None else self.ask(*self.storage_words).strip()

    # --- volumes -----------------------------------------------------------------------------------

    def place_of(self, project: str, volume: str) -> str:
        """Return the folder of a project's volume on this machine. Raise StepError.

        `volume` is its name in the project's files or in the engine.
        """
        labels = (f"--filter=label=com.docker.compose.{key}" for key in (f"project={project}", f"volume={volume}"))
        labelled = self.ask("volume", "ls", "--quiet", *labels).split()
        known = self.ask("volume", "ls", "--quiet").split()
        named = [name for name in (f"{project}_{volume}", volume) if name in known]
        for name in (*labelled, *named):
            return self.ask("volume", "inspect", "--format={{.Mountpoint}}", name).strip()
        raise StepError(
            f"project {project} has no volume {volume}",
            next_step=f"Run `{self.name} volume ls` to see the existing ones.",
        )

    # --- images ------------------------------------------------------------------------------------

    def image(self, name: str) -> str:
        """Return the id of the image with this name and tag, or digest; empty where there is none."""
        if self._api is not None:
            found = self._api.images(reference=[name])
            return str(found[0]["Id"]) if found else ""
        listed = self.ask("image", "ls", "--quiet", "--no-trunc", name).split()
        return listed[0] if listed else ""

    def names(self, reference: str) -> list[tuple[str, str]]:
        """Return names with their tags, and ids, of images that match a reference, and perhaps of others."""
        if self._api is not None:
            images = self._api.images(reference=[reference])
            return [(name, str(item["Id"])) for item in images for name in item["RepoTags"] or []]
        listed = self.ask("image", "ls", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}", reference)
        pairs = (line.split() for line in listed.splitlines() if "<none>" not in line)
        return [(name, id) for name, id in pairs]

    def image_ids(self) -> list[str]:
        """Return the ids of all images."""
        if self._api is not None:
            return [str(item["Id"]) for item in self._api.images()]
        return self.ask("image", "ls", "--quiet", "--no-trunc").split()

    def nameless(self, label: str) -> list[str]:
        """Return the ids of images with a label that have no name."""
        if self._api is not None:
            return [str(item["Id"]) for item in self._api.images(dangling=["true"], label=[label])]
        filters = ("--filter=dangling=true", f"--filter=label={label}")
        return list(dict.fromkeys(self.ask("image", "ls", "--quiet", "--no-trunc", *filters).split()))

    def volumes_of(self, image: str) -> list[str]:
        """Return the folders that an image declares as volumes. Raise CommandFailedError where there is no image."""
        if self._api is not None and (known := self._api.image(image)) is not None:
            return list((known.get("Config") or {}).get("Volumes") or {})
        return list(json.loads(self.ask("image", "inspect", "--format={{json .Config.Volumes}}", image)) or {})
