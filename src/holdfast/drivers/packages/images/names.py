"""Names of images in an engine: the images that they refer to, and the restoration of these references.

Facts measured on Docker 20.10: a name is moved by tagging again; an image whose last name is removed is deleted unless
a container uses it; an image that adds only a label to another one has an id of its own and no content of its own.
Podman 4.3 also finds images by the end of their name, and prints names with their registry: its own is `localhost`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.containers.docker import Engine
from holdfast.errors import CommandFailedError
from holdfast.system.host import Host

_ENGINE_SECONDS = 60
_UNSAID = ("localhost/", "docker.io/library/", "docker.io/")
_STAND_IN_LABEL = "holdfast.before"


def exact(name: str) -> str:
    """Return a name with its tag."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def repository_of(name: str) -> str:
    """Return a name without its tag."""
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition("@")[0].partition(":")[0]


def _short(name: str) -> str:
    """Return a name without the registry that an engine adds."""
    for registry in _UNSAID:
        if name.startswith(registry):
            return name.removeprefix(registry)
    return name


class ImageNames:
    def __init__(self, engine: Engine, host: Host) -> None:
        self._engine = engine
        self._host = host

    def id(self, name: str) -> str:
        """Return the image's id; empty where the engine has no image of that name."""
        if "@" in name:
            return self._engine.image(name)
        listed = self._engine.names(exact(name))
        return next((id for found, id in listed if _short(found) == _short(exact(name))), "")

    def tagged(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.id(name) for name in names}

    def below(self, repositories: Iterable[str]) -> dict[str, str]:
        """Return all names of these repositories, with their image ids."""
        found: dict[str, str] = {}
        for repository in repositories:
            # The engine lists an image that has a name there with its other names too.
            found.update(
                (_short(name), id)
                for name, id in self._engine.names(repository)
                if _short(repository_of(name)) == _short(repository)
            )
        return found

    def tag(self, ids: Mapping[str, str]) -> None:
        """Give names to images by their id; remove a name whose id is empty. Idempotent.

        Raise CommandFailedError where the engine does not answer.
        """
        for name, id in ids.items():
            if self.id(name) == id:
                continue
            if not self._give(name, id):
                continue
            # A name must not stay on the other image because the engine was down for a moment: it answers now, or the
            # step fails. But a name is only for the operator's convenience: one whose image somebody removed, or that a
            # container still needs, must not stop an undo.
            known = self._ids()
            if not id or id.removeprefix("sha256:") in known:
                why = self._give(name, id)
                if why and id:
                    raise CommandFailedError(f"image {name}: {why}", exit_code_of_command=1, output_tail=why)

    def give(self, name: str, id: str) -> None:
        """Give a name with its tag to an image. Raise CommandFailedError."""
        if why := self._engine.tag(id, name):
            raise CommandFailedError(f"image {name}: {why}", exit_code_of_command=1, output_tail=why)

    def take_away(self, name: str) -> None:
        """Take a name away, with the image if it was the last one, unless something needs it."""
        self._engine.untag(name, prune=True)

    def _give(self, name: str, id: str) -> str:
        """Give a name to an image, or take it away; return what went wrong, empty if nothing."""
        return self._engine.tag(id, exact(name)) if id else self._engine.untag(name)

    def _ids(self) -> set[str]:
        """Return the ids of all images.

        Raise CommandFailedError where the engine does not answer, because its images are then unknown.
        """
        return {id.removeprefix("sha256:") for id in self._engine.image_ids()}

    # --- detection of images that were made ----------------------------------------------------------

    def stand_in(self, name: str, prefix: str) -> str:
        """Make a name refer to an equal image with another id; return that id.

        A container that starts by the name meanwhile runs as before, and a build that makes nothing leaves this id
        in place, which reveals it.
        """
        recipe = f"FROM {name}\nLABEL {_STAND_IN_LABEL}={prefix}\n"
        self._host.feed([self._engine.name, "build", "--quiet", "--tag", name, "-"], [recipe.encode()])
        return self.id(name)

    def remove_stand_ins(self, prefix: str) -> None:
        """Remove stand-ins that have no name any more. Idempotent.

        An image that was built on one has the label too, but also a name.
        """
        for id in self._engine.nameless(f"{_STAND_IN_LABEL}={prefix}"):
            argv = [self._engine.name, "rmi", id]
            self._host.run(argv, ignore_cancel=True, check=False, timeout_seconds=_ENGINE_SECONDS)
