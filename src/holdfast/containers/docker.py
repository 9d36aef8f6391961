"""The container engine by its own client: what it knows of containers and images, and what ends them.

An error of the client is never taken for the absence of something: the engine may be starting again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from typing import Any

from holdfast.errors import CommandFailedError, CommandTimeoutError, StepError
from holdfast.system.host import Host

Known = dict[str, Any]
"""What `inspect` says of one container."""

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
_ASK_SECONDS = 60
_DO_SECONDS = 600  # an engine that works may be slow; one that hangs must not hang us
_GRACE_SECONDS = 10  # what a container has for its end where nothing is said (documentation of `docker stop`)
_REMOVAL_SECONDS = 20.0
_BACK_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_KILLED = 128 + 9  # the exit code of a container whose process was killed
# A stop of these is refused for ever: Podman has a container in the first one whose removal was killed half done.
_BEYOND_A_STOP = ("removing", "dead")


class Engine:
    """Docker; what another engine does otherwise is in its own class."""

    version_words: tuple[str, ...] = ("version", "--format={{.Server.Version}}")
    storage_words: tuple[str, ...] = ("info", "--format={{.DockerRootDir}}")
    not_one_off: tuple[str, ...] = ("com.docker.compose.oneoff=False",)
    changes_policies = True

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self._host = host

    def ask(self, *words: str) -> str:
        return self._host.capture([self.name, *words], timeout_seconds=_ASK_SECONDS)

    def do(self, *words: str, timeout_seconds: float = _DO_SECONDS) -> None:
        """For what must not be left half done by a Ctrl-C."""
        self._host.run([self.name, *words], ignore_cancel=True, timeout_seconds=timeout_seconds)

    def prepare(self) -> None:
        """Raises StepError where it does not answer."""
        try:
            self.ask(*self.version_words)
        except (CommandFailedError, CommandTimeoutError) as error:
            raise StepError(
                f"{self.name} does not answer: {error.state.strip() or error.what}",
                next_step=f"Start it, or give this user the right to use it: `{self.name} version` tells.",
            ) from error

    def await_back(self) -> None:
        """Waits for one that may be starting again, as after its own death. Raises StepError."""
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
        """Running or not, with all of these labels, each `NAME=VALUE`."""
        given = [f"--filter=label={text}" for text in labels]
        return self.inspected(self.ask("ps", "--all", "--quiet", "--no-trunc", *given).split())

    def of_project(self, project: str, *labels: str) -> list[Known]:
        """Containers of its services, whoever started them."""
        found = self.containers(f"{PROJECT}={project}", *self.not_one_off, *labels) if project else []
        return [item for item in found if not self.is_one_off(item)]

    def tied(self, project: str, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Names of containers of these services that cannot be removed, each with the one that stands against it.

        What runs of services earlier in the order is removed before.
        """
        return {}

    def is_one_off(self, container: Known) -> bool:
        """Of those that the labels did not leave out."""
        return False

    def inspected(self, ids: Sequence[str]) -> list[Known]:
        """Those of them that are there."""
        if not ids:
            return []
        try:
            found: list[Known] = json.loads(self.ask("container", "inspect", *ids))
        except CommandFailedError:
            listed = set(self.ask("ps", "--all", "--quiet", "--no-trunc").split())
            left = [id for id in ids if id in listed]
            if left == list(ids):
                raise
            return Engine.inspected(self, left)  # some are gone by now
        return found

    def remove(self, container: Known) -> float | None:
        """End and remove a container with the time and signal that it has for its end; its volumes stay.

        Nothing may start it again from here on, should the machine die meanwhile. Return the seconds after which the
        engine had to kill it; None where it ended by itself. Raise StepError.
        """
        id = container["Id"]
        killed = None
        grace = container["Config"].get("StopTimeout") or _GRACE_SECONDS
        deadline = time.monotonic() + grace + _REMOVAL_SECONDS
        while True:
            try:
                if self.changes_policies and container["HostConfig"]["RestartPolicy"]["Name"] not in ("no", ""):
                    self.do("update", "--restart=no", id)
                if container["State"]["Status"] == "paused":  # it would not hear the signal for its end
                    self.do("unpause", id)
                if container["State"]["Status"] not in _BEYOND_A_STOP:
                    began = time.monotonic()
                    self.do("stop", id, timeout_seconds=grace + _ASK_SECONDS)
                    if time.monotonic() - began >= grace and self._was_killed(id):
                        killed = float(grace)
                self.do("rm", "--force", id)
                return killed
            except CommandFailedError as error:  # one that removes itself may be at it
                if not (found := self.inspected([id])):
                    return killed
                container = found[0]
                if time.monotonic() > deadline:
                    raise StepError(f"container {id[:12]} cannot be ended: {error.output_tail.strip()}") from error
            time.sleep(_LOOK_SECONDS)

    def _was_killed(self, id: str) -> bool:
        """Return whether a container that was stopped ended by a signal that no process can answer."""
        return any(item["State"].get("ExitCode") == _KILLED for item in self.inspected([id]))

    def storage(self) -> str:
        """Where it keeps images and containers."""
        return self.ask(*self.storage_words).strip()

    # --- volumes -----------------------------------------------------------------------------------

    def place_of(self, project: str, volume: str) -> str:
        """Where a volume of a project lies on this machine, by its name in the project's files or its own. Raises StepError."""
        labels = (f"--filter=label=com.docker.compose.{key}" for key in (f"project={project}", f"volume={volume}"))
        labelled = self.ask("volume", "ls", "--quiet", *labels).split()
        known = self.ask("volume", "ls", "--quiet").split()
        named = [name for name in (f"{project}_{volume}", volume) if name in known]
        for name in (*labelled, *named):
            return self.ask("volume", "inspect", "--format={{.Mountpoint}}", name).strip()
        raise StepError(
            f"project {project} has no volume {volume}",
            next_step=f"`{self.name} volume ls` shows those that there are.",
        )

    # --- images ------------------------------------------------------------------------------------

    def image(self, name: str) -> str:
        """The id of what has this name with its tag; empty where nothing has."""
        listed = self.ask("image", "ls", "--quiet", "--no-trunc", name).split()
        return listed[0] if listed else ""
