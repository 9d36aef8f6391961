"""Names of images in an engine: what they mean, and that they mean it again afterwards.

Facts measured on Docker 20.10: a name is moved by tagging anew; an image whose last name goes is removed unless a container
has it; an image that is built of another one with nothing but a label more has an id of its own and no content of its own.
Podman 4.3 finds images by the end of their name too, and tells names with the registry that they stand for: its own is
`localhost`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from holdfast.system.host import CommandResult, Host

_ENGINE_SECONDS = 60
_UNSAID = ("localhost/", "docker.io/library/", "docker.io/")
_STAND_IN_LABEL = "holdfast.before"


def exact(name: str) -> str:
    """A name with its tag."""
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def repository_of(name: str) -> str:
    """A name without its tag."""
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition("@")[0].partition(":")[0]


def _short(name: str) -> str:
    """A name without the registry that an engine takes it to be of."""
    for registry in _UNSAID:
        if name.startswith(registry):
            return name.removeprefix(registry)
    return name


class ImageNames:
    def __init__(self, engine: str, host: Host) -> None:
        self.engine = engine
        self._host = host

    def _ask(self, *words: str) -> str:
        return self._host.capture([self.engine, *words], timeout_seconds=_ENGINE_SECONDS)

    def id(self, name: str) -> str:
        """Empty where the engine has no image of that name."""
        if "@" in name:
            return (self._ask("image", "ls", "--quiet", "--no-trunc", name).split() or [""])[0]
        listed = self._listed(exact(name))
        return next((id for found, id in listed if _short(found) == _short(exact(name))), "")

    def _listed(self, reference: str) -> list[tuple[str, str]]:
        """Names with their tags, and ids, of images that the engine finds by a reference, and perhaps of others."""
        listed = self._ask("image", "ls", "--no-trunc", "--format={{.Repository}}:{{.Tag}} {{.ID}}", reference)
        pairs = (line.split() for line in listed.splitlines() if "<none>" not in line)
        return [(name, id) for name, id in pairs]

    def tagged(self, names: Iterable[str]) -> dict[str, str]:
        return {name: self.id(name) for name in names}

    def below(self, repositories: Iterable[str]) -> dict[str, str]:
        """All names of these repositories, with what they mean."""
        found: dict[str, str] = {}
        for repository in repositories:
            # Of an image that has a name there the engine lists its other names too.
            found.update(
                (_short(name), id)
                for name, id in self._listed(repository)
                if _short(repository_of(name)) == _short(repository)
            )
        return found

    def tag(self, ids: Mapping[str, str]) -> None:
        """Gives names to images by their id, and takes a name away where that is empty. May be repeated.

        Raises CommandFailedError where the engine does not answer.
        """
        for name, id in ids.items():
            if self.id(name) == id:
                continue
            words = ["tag", id, name] if id else ["rmi", "--no-prune", name]
            if self._do(*words, check=False).exit_code == 0:
                continue
            # An engine that was away for a moment must not leave a name on the other image: it answers now, or the step
            # fails. But a name is the operator's convenience: one whose image somebody removed, or that a container
            # still needs, must not stop an undo.
            known = self._ids()
            if not id or id.removeprefix("sha256:") in known:
                self._do(*words, check=bool(id))

    def _do(self, *words: str, check: bool) -> CommandResult:
        return self._host.run([self.engine, *words], ignore_cancel=True, check=check, timeout_seconds=_ENGINE_SECONDS)

    def _ids(self) -> set[str]:
        """Raises CommandFailedError where the engine does not answer: what it has is not known then."""
        return {id.removeprefix("sha256:") for id in self._ask("image", "ls", "--quiet", "--no-trunc").split()}

    # --- what tells whether somebody made an image ---------------------------------------------------

    def stand_in(self, name: str, mark: str) -> str:
        """Lets a name mean an image that is the same and has another id; returns that id.

        What starts by the name meanwhile runs as before, and a build that says it went well and made nothing leaves it.
        """
        recipe = f"FROM {name}\nLABEL {_STAND_IN_LABEL}={mark}\n"
        self._host.feed([self.engine, "build", "--quiet", "--tag", name, "-"], [recipe.encode()])
        return self.id(name)

    def remove_stand_ins(self, mark: str) -> None:
        """Those that have no name any more; what was built on one has the label too, and a name. May be repeated."""
        filters = ("--filter=dangling=true", f"--filter=label={_STAND_IN_LABEL}={mark}")
        ids = self._ask("image", "ls", "--quiet", "--no-trunc", *filters).split()
        for id in dict.fromkeys(ids):
            argv = [self.engine, "rmi", id]
            self._host.run(argv, ignore_cancel=True, check=False, timeout_seconds=_ENGINE_SECONDS)
