"""A container engine: facts about containers and images, by its API where it has one here, and changes of containers.

An error of the client is never taken for the absence of something: the engine may be restarting.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from holdfast.containers.api import Change, EngineApi
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
_NOT_FOUND = 127  # the client program could not be started
_KILLED = 128 + 9  # the exit code of a container whose process was killed
# Containers in these states need no stop, or always refuse it: Podman's is `removing` after a removal that was killed
# half-way.
_WITHOUT_A_STOP = ("created", "removing", "dead")


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
            silent = StepError(
                f"{self.name} does not answer: {error.state.strip() or error.what}",
                next_step=f"Start it, or give this user the right to use it. Test it with `{self.name} version`.",
            )
            silent.may_pass = not (isinstance(error, CommandFailedError) and error.exit_code_of_command == _NOT_FOUND)
            raise silent from error

    def wait_available(self) -> None:
        """Wait for an engine that may be restarting, for example after a crash. Raise StepError."""
        deadline = time.monotonic() + _BACK_SECONDS
        while True:
            try:
                return self.prepare()
            except StepError as error:
                if time.monotonic() > deadline or not error.may_pass:
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

    def start(self, ids: Sequence[str]) -> dict[str, str]:
        """Start containers side by side; return by container why it did not start."""
        return self._change("start", (), ids, {id: Change.container(id, "start", seconds=_DO_SECONDS) for id in ids})

    def stop(self, id: str, *, seconds: int) -> None:
        """Stop a container, which stays as it is, with its restart policy; it is killed after these seconds.

        Raise CommandFailedError.
        """
        limit = seconds + _ASK_SECONDS
        changes = {id: Change.container(id, f"stop?t={seconds}", seconds=limit, may_be_gone=True)}
        _raise_first(self._change("stop", (f"--time={seconds}",), [id], changes, limit=limit))

    def set_policies(self, policies: Mapping[str, str]) -> None:
        """Set the restart policies of containers, each in the syntax of `docker update`. Raise CommandFailedError."""
        for policy in sorted(set(policies.values())):
            name, _, attempts = policy.partition(":")
            wanted = {"Name": name, **({"MaximumRetryCount": int(attempts)} if attempts else {})}
            ids = [id for id, given in policies.items() if given == policy]
            changes = {id: Change.container(id, "update", body={"RestartPolicy": wanted}) for id in ids}
            _raise_first(self._change("update", (f"--restart={policy}",), ids, changes))

    def _change(
        self, verb: str, options: Sequence[str], ids: Sequence[str], changes: Mapping[str, Change], *, limit: float = 0
    ) -> dict[str, str]:
        """Change containers side by side, which a Ctrl-C must not leave half done; return by container what failed.

        `options` are those of the client, `limit` the seconds that it may take.
        """
        if not ids:
            return {}
        if self._api is None:
            return self._changed_by_the_client(verb, options, ids, limit or _DO_SECONDS)
        self._tell(verb, *options, *(id[:12] for id in ids))
        failed = self._api.change(f"{verb} {len(ids)}", [changes[id] for id in ids])
        for text in failed.values():
            self._host.log({"kind": "output", "text": text})
        return failed

    def _tell(self, *arguments: str) -> None:
        """Announce and log a change by the API as the command of the client that does the same."""
        argv = [self.name, *arguments]
        self._host.announce(" ".join(argv))
        self._host.log({"kind": "command", "argv": argv, "cwd": ""})

    def _changed_by_the_client(
        self, verb: str, options: Sequence[str], ids: Sequence[str], limit: float
    ) -> dict[str, str]:
        try:
            self.do(verb, *options, *ids, timeout_seconds=limit)
        except CommandFailedError as error:
            if len(ids) == 1:
                return {ids[0]: error.output_tail.strip() or error.what}
            failed: dict[str, str] = {}  # of several, the client does not say clearly which one
            for id in ids:
                failed |= self._changed_by_the_client(verb, options, [id], limit)
            return failed
        return {}

    def remove(self, container: Known) -> float | None:
        """End and remove one container, as `end` does; return the seconds after which it had to be killed."""
        return self.end([container]).get(container["Id"])

    def end(
        self, containers: Sequence[Known], *, keep: Collection[str] = (), at_most_seconds: float | None = None
    ) -> dict[str, float]:
        """End containers side by side, each with its own stop signal and grace period; remove all but those to `keep`.

        `at_most_seconds` shortens the grace periods. Volumes stay. Nothing may start one of them again from here on,
        even if the machine crashes meanwhile. Return the seconds after which the engine had to kill a container, by id;
        such a container is removed in any case. Raise StepError.
        """
        killed: dict[str, float] = {}
        left = list(containers)
        graces = {item["Id"]: float(item["Config"].get("StopTimeout") or _GRACE_SECONDS) for item in left}
        if at_most_seconds is not None:
            graces = {id: min(grace, at_most_seconds) for id, grace in graces.items()}
        deadline = time.monotonic() + max(graces.values(), default=0) + _REMOVAL_SECONDS
        while left:
            try:
                self._end_once(left, graces, keep, killed, hurried=at_most_seconds is not None)
                return killed
            except CommandFailedError as error:  # perhaps a container is removing itself
                left = self.inspected([item["Id"] for item in left])
                if left and time.monotonic() > deadline:
                    names = ", ".join(item["Id"][:12] for item in left)
                    raise StepError(f"container {names} cannot be ended: {error.output_tail.strip()}") from error
            time.sleep(_LOOK_SECONDS)
        return killed

    def _end_once(
        self,
        containers: Sequence[Known],
        graces: Mapping[str, float],
        keep: Collection[str],
        killed: dict[str, float],
        *,
        hurried: bool,
    ) -> None:
        if self.changes_policies:
            policies = {item["Id"]: item["HostConfig"]["RestartPolicy"]["Name"] for item in containers}
            self.set_policies({id: "no" for id, policy in policies.items() if policy not in ("no", "")})
        paused = [item["Id"] for item in containers if item["State"]["Status"] == "paused"]
        # A paused one would not receive the stop signal.
        _raise_first(self._change("unpause", (), paused, {id: Change.container(id, "unpause") for id in paused}))
        running = [item["Id"] for item in containers if item["State"]["Status"] not in _WITHOUT_A_STOP]
        if running:
            began = time.monotonic()
            limit = max(graces[id] for id in running) + _ASK_SECONDS
            # One limit for all where the client stops them, because it takes only one.
            shortest = int(min(graces[id] for id in running))
            verbs = {id: f"stop?t={int(graces[id])}" if hurried else "stop" for id in running}
            stops = {id: Change.container(id, verbs[id], seconds=limit, may_be_gone=True) for id in running}
            _raise_first(self._change("stop", (f"--time={shortest}",) if hurried else (), running, stops, limit=limit))
            took = time.monotonic() - began
            late = [id for id in running if took >= graces[id]]
            found = self.inspected(late)
            killed |= {item["Id"]: graces[item["Id"]] for item in found if item["State"].get("ExitCode") == _KILLED}
        gone = [item["Id"] for item in containers if item["Id"] not in keep or item["Id"] in killed]
        _raise_first(self._change("rm", ("--force",), gone, {id: Change.removal(id) for id in gone}))

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

    def tag(self, id: str, name: str) -> str:
        """Give an image a name with its tag; return what went wrong, empty if nothing."""
        if self._api is None or "@" in name:
            return self._asked_of_the_client("tag", id, name)
        self._tell("tag", id, name)
        return self._api.change("tag", [Change.name(id, name)]).get(name, "")

    def untag(self, name: str, *, prune: bool = False) -> str:
        """Take a name from an image; return what went wrong, empty if nothing.

        `prune`: also delete images without a name that only this one was built on.
        """
        arguments = ["rmi", *([] if prune else ["--no-prune"]), name]
        if self._api is None or "@" in name:
            return self._asked_of_the_client(*arguments)
        self._tell(*arguments)
        return self._api.change("rmi", [Change.nameless(name, prune=prune)]).get(name, "")

    def _asked_of_the_client(self, *arguments: str) -> str:
        """Run a command of the client; return what went wrong, empty if nothing."""
        found = self._host.run([self.name, *arguments], ignore_cancel=True, check=False, timeout_seconds=_ASK_SECONDS)
        return "" if found.exit_code == 0 else found.output_tail.strip() or "it failed"

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


def _raise_first(failed: Mapping[str, str]) -> None:
    for id, text in failed.items():
        raise CommandFailedError(f"container {id[:12]}: {text}", exit_code_of_command=1, output_tail=text)
