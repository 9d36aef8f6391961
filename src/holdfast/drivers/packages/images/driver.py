"""Packages as the images of a Compose project, together with the source tree of the same commit.

A build does not change the project's own names: new images are kept under Holdfast's tags, which contain the image's id
and so never move, and a container that starts meanwhile does not use them. Facts measured on Docker 20.10: a tag is
moved by tagging again; an image whose last tag is removed is deleted unless a container uses it; a prune of all images
removes tagged ones too, unless a container uses them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from holdfast.containers.engines import engine_named
from holdfast.drivers.compose_model import Model
from holdfast.drivers.packages.images.build_script import BuildScript
from holdfast.drivers.packages.images.names import ImageNames, exact
from holdfast.drivers.packages.images.transfer import ImageCarrier
from holdfast.drivers.protocols.packages import EngineLogin, Packages
from holdfast.errors import StepError
from holdfast.model.packages import AppliedPatch, Newer, Package, Patch, PatchFit, StoredImage
from holdfast.system import durable
from holdfast.system.host import Host

MODEL = "compose.json"
IMAGES = "images.json"
NAMES = "names.json"
_RECIPE = "images.recipe"
_EARLIER = "images.earlier.json"
_TAGS = "tags.json"
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
_QUIET = {"COMPOSE_ANSI": "never", "COMPOSE_PROGRESS": "plain", "BUILDKIT_PROGRESS": "plain"}
_ENGINE_SECONDS = 60


class ComposeCommand(Protocol):
    """The Compose commands for a tree of sources: to resolve its model, and to build it."""

    def config_argv(self) -> list[str]: ...
    def model(self, output: str) -> Model: ...
    def build_argv(self) -> list[str]: ...


class Projects(Protocol):
    """A factory of the commands for the files of a source tree: paths in the model are those of `folder`."""

    def __call__(self, sources: Path, folder: Path, name: str = "") -> ComposeCommand: ...


@dataclass(frozen=True)
class Image:
    """One service's kept image: `name` is the project's, `tag` is Holdfast's; `built`: the project builds it."""

    name: str
    tag: str
    id: str
    built: bool


class ImagePackages:
    def __init__(
        self,
        folder: Path,
        sources: Packages,
        projects: Projects,
        host: Host,
        *,
        engine: str,
        instance: Path,
        prefix: str,
        links: Mapping[str, Path],
        services: Sequence[str] = (),
        script: BuildScript | None = None,
        timeout_seconds: float = 3600,
    ) -> None:
        """Keep the images of `services`, and all that the project builds.

        `instance` is the project's folder, `prefix` begins Holdfast's tags; `links` are added to a tree before a build.
        With a `script`, that builds instead of Compose.
        """
        self._folder = folder
        self._sources = sources
        self._projects = projects
        self._host = host
        self._engine = engine
        self._names = ImageNames(engine_named(engine, host), host)
        self._script = script
        self._instance = instance
        self._prefix = prefix
        self._links = links
        self._services = services
        self._timeout_seconds = timeout_seconds

    # --- sources -----------------------------------------------------------------------------------

    def resolve(self, reference: str) -> tuple[str, str]:
        return self._sources.resolve(reference)

    def file_of(self, commit: str, name: str) -> str | None:
        return self._sources.file_of(commit, name)

    def fetch(self) -> None:
        self._sources.fetch()

    def precedes(self, commit: str, later: str) -> bool:
        return self._sources.precedes(commit, later)

    def newer(self, commit: str) -> Newer:
        return self._sources.newer(commit)

    def adopt(self, archive: Path) -> Package:
        return self._sources.adopt(archive)

    def configuration_of(self, package: Package) -> str | None:
        return self._sources.configuration_of(package)

    def whole(self, package: Package) -> bool:
        return self._sources.whole(package)

    def incoming(self, run: str) -> Path:
        return self._sources.incoming(run)

    def receive(self, package: Package, configuration: str, run: str) -> Package:
        return self._sources.receive(package, configuration, run)

    def push_images(self, package: Package, login: EngineLogin) -> Mapping[str, StoredImage]:
        kept = self._kept(package)
        carrier = ImageCarrier(self._engine, self._names, self._host, login, self._timeout_seconds)
        return {
            service: StoredImage(image.name, carrier.push(image.id, fit_for_tag(service), package.id), image.built)
            for service, image in kept.items()
        }

    def pull_images(self, package: Package, images: Mapping[str, StoredImage], login: EngineLogin, run: str) -> None:
        kept = self._kept(package)
        if kept and all(self._names.id(image.tag) == image.id for image in kept.values()):
            return
        if not images:
            self._make_images(package, run)
            return
        carrier = ImageCarrier(self._engine, self._names, self._host, login, self._timeout_seconds)
        pulled = {
            service: carrier.pull(stored, f"{self._prefix}/{fit_for_tag(service)}")
            for service, stored in images.items()
        }
        found = {
            service: Image(stored.name, *pulled[service], stored.built) for service, stored in sorted(images.items())
        }
        self._record(package, found, "", {})

    def fit_patch(self, package: Package, name: str, text: bytes, strip: int | None, run: str) -> PatchFit:
        return self._sources.fit_patch(package, name, text, strip, run)

    def patch_text(self, package: Package, patch: AppliedPatch, run: str) -> bytes:
        return self._sources.patch_text(package, patch, run)

    def why_not_reverted(self, package: Package, patch: AppliedPatch, run: str) -> str:
        return self._sources.why_not_reverted(package, patch, run)

    # --- images ------------------------------------------------------------------------------------

    def _kept(self, package: Package) -> dict[str, Image]:
        return _images_in(self._folder / package.id)

    def _tags_of(self, package: Package) -> list[str]:
        """Return all tags that the package got, including those of builds that later ones replaced."""
        earlier = self._folder / package.id / _EARLIER
        known: list[str] = json.loads(earlier.read_text()) if earlier.exists() else []
        return [*(image.tag for image in self._kept(package).values()), *known]

    def _whole(self, package: Package, model: Model) -> bool:
        """Return whether all of its images exist, made in the way in which they would be made now."""
        kept = self._kept(package)
        made = self._folder / package.id / _RECIPE
        if not made.exists() or made.read_text() != self._recipe(model) or not {*self._of(model)} <= {*kept}:
            return False
        return all(self._names.id(image.tag) == image.id for image in kept.values())

    def recipe(self, *, assets: bool) -> str:
        return self._sources.recipe(assets=assets)

    def named(self, commit: str, label: str, *, assets: bool = True) -> str:
        return self._sources.named(commit, label, assets=assets)

    def build(self, commit: str, label: str, run: str, *, id: str = "", note: str = "", assets: bool = True) -> Package:
        package = self._sources.build(commit, label, run, id=id, note=note, assets=assets)
        self._make_images(package, run)
        return package

    def patch(
        self, package: Package, add: Sequence[Patch], remove: Sequence[str], run: str, *, applied_at: str
    ) -> Package:
        made = self._sources.patch(package, add, remove, run, applied_at=applied_at)
        self._make_images(made, run)
        return made

    def keep(self, commit: str, label: str, run: str, images: Mapping[str, str]) -> Package:
        package = self._sources.build(commit, label, run)
        tree = self._tree(package, run)
        model = self._resolved(self._projects(tree, self._instance))
        names = _names(model)
        found = {name: images.get(name) or self._names.id(names[name]) for name in self._of(model)}
        kept = {name: self._tagged(model, name, id) for name, id in found.items() if id}
        self._record(package, kept, self._recipe(model), {})
        durable.remove_tree(tree.parent)
        return package

    def tags(self, release: Path) -> dict[str, str]:
        more: dict[str, str] = json.loads((release / NAMES).read_text()) if (release / NAMES).exists() else {}
        return {image.name: image.id for image in _read_images(release / IMAGES).values() if image.built} | more

    def moved(self, release: Path) -> list[str]:
        wanted = {image.name: image.id for image in _read_images(release / IMAGES).values()} | self.tags(release)
        return [name for name, id in self.tagged(wanted).items() if id and id != wanted[name]]

    def tagged(self, names: Iterable[str]) -> dict[str, str]:
        return self._names.tagged(names)

    def tag(self, ids: Mapping[str, str]) -> None:
        self._names.tag(ids)

    def refresh(self, release: Path, package: Package) -> None:
        known = _images_in(release)
        own = {service: image for service, image in known.items() if self._names.id(image.tag) == image.id}
        made = self._kept(package) | own
        if made == known:
            return
        durable.write_file(release / IMAGES, _written(made))
        if (self._folder / package.id / NAMES).exists():
            durable.write_file(release / NAMES, (self._folder / package.id / NAMES).read_text())

    def _tree(self, package: Package, run: str) -> Path:
        """Return a folder with the sources in the state in which they are built."""
        work = self._folder / "tmp" / f"{run}-images"
        self._forget(work)
        tree = work / "tree"
        durable.make_directory(work)
        self._sources.unpack(package, tree, {})
        _set_apart(tree, package.commit)
        for inside, target in self._links.items():
            link = tree / inside
            if not link.exists() and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
        return tree

    def _make_images(self, package: Package, run: str) -> None:
        tree = self._tree(package, run)
        ours = self._resolved(self._projects(tree, self._instance))
        if self._whole(package, ours):
            durable.remove_tree(tree.parent)
            return
        if self._script is not None:
            self._make_by_script(self._script, package, tree, ours)
            return
        # It is built in the tree, under the project's name at its own folder.
        command = self._projects(tree, tree, ours["name"])
        model = self._resolved(command)
        built = [name for name, item in model["services"].items() if item.get("build")]
        before = self.tagged(_names(model)[name] for name in built)
        durable.write_file(tree.parent / _TAGS, json.dumps(before, indent=1))
        try:
            if built:
                self._host.run(
                    command.build_argv(), environment=_QUIET, cwd=tree, timeout_seconds=self._timeout_seconds
                )
            kept = {service: self._keep(model, service) for service in self._of(model)}
        finally:
            self.tag(before)
        self._record(package, kept, self._recipe(ours), {})
        durable.remove_tree(tree.parent)

    def _make_by_script(self, script: BuildScript, package: Package, tree: Path, model: Model) -> None:
        wanted = _names(model)
        names = list(dict.fromkeys(wanted[name] for name in self._of(model)))
        try:
            made = script.run(names, tree, package.commit, self._names, self._host, _QUIET, self._timeout_seconds)
            by_name = {service: made[name] for service in self._of(model) if (name := exact(wanted[service])) in made}
            kept = {service: self._tagged(model, service, id, built=True) for service, id in by_name.items()}
        finally:
            script.give_back(tree.parent, self._names)
        kept |= {service: self._keep(model, service, built=False) for service in self._of(model) if service not in kept}
        self._record(package, kept, self._recipe(model), made)
        durable.remove_tree(tree.parent)

    def _recipe(self, model: Model) -> str:
        """Return a digest of the names, arguments and files of the images, which environment files may set too."""
        made: dict[str, object] = {
            name: [item.get("image"), item.get("build")] for name, item in model["services"].items()
        }
        if self._script is not None:
            made["by"] = self._script.commands
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()

    def _of(self, model: Model) -> list[str]:
        """Return the services whose images are kept."""
        return [name for name, item in model["services"].items() if name in self._services or item.get("build")]

    def _record(self, package: Package, kept: Mapping[str, Image], recipe: str, names: Mapping[str, str]) -> None:
        """Record the kept images; `names` are a release's image names besides those in the Compose files."""
        # Releases of an earlier build still use its tags, which are removed with the package.
        earlier = {*self._tags_of(package)} - {image.tag for image in kept.values()}
        durable.write_file(self._folder / package.id / _EARLIER, json.dumps(sorted(earlier)))
        if self._script is not None:
            durable.write_file(self._folder / package.id / NAMES, json.dumps(names, indent=1))
        durable.write_file(self._folder / package.id / IMAGES, _written(kept))
        durable.write_file(self._folder / package.id / _RECIPE, recipe)

    def _resolved(self, command: ComposeCommand) -> Model:
        return command.model(self._host.capture(command.config_argv(), timeout_seconds=_ENGINE_SECONDS))

    def _keep(self, model: Model, service: str, *, built: bool | None = None) -> Image:
        name = _names(model)[service]
        if not self._names.id(name):
            self._host.run([self._engine, "pull", "--quiet", name], timeout_seconds=self._timeout_seconds)
        id = self._names.id(name)
        if not id:
            raise StepError(f"the build ended without an error, but there is no image {name} of service {service}")
        return self._tagged(model, service, id, built=built)

    def _tagged(self, model: Model, service: str, id: str, *, built: bool | None = None) -> Image:
        """Tag an image; its tag contains its id, so that it never refers to another image."""
        tag = f"{self._prefix}/{fit_for_tag(service)}:{id.rpartition(':')[2][:20]}"
        self._names.give(tag, id)
        by_compose = bool(model["services"][service].get("build"))
        return Image(_names(model)[service], tag, id, by_compose if built is None else built)

    def _forget(self, work: Path) -> None:
        """Remove an unfinished build, after restoring the names of images."""
        if (work / _TAGS).exists():
            self.tag(json.loads((work / _TAGS).read_text()))
        if self._script is not None:
            self._script.give_back(work, self._names)
        durable.remove_tree(work)

    def abandon(self, run: str) -> None:
        """Remove an unfinished build, including those that a restore began: no other build runs during an undo."""
        for work in (self._folder / "tmp").glob("*-images"):
            self._forget(work)
        self._sources.abandon(run)

    # --- the store ---------------------------------------------------------------------------------

    def packages(self) -> list[Package]:
        """Return the packages whose images were all made."""
        return [package for package in self._sources.packages() if self._kept(package)]

    def unpack(self, package: Package, target: Path, marker: Mapping[str, object]) -> None:
        if not self._kept(package) or any(
            self._names.id(image.tag) != image.id for image in self._kept(package).values()
        ):
            self._make_images(package, f"unpack-{package.id}")
        self._sources.unpack(package, target, marker)
        for name in (IMAGES, NAMES):  # the sources may have files with these names
            durable.unlink(target / name)
        model = self._resolved(self._projects(target, self._instance))
        durable.write_file(target / MODEL, json.dumps(model, indent=1))
        self.refresh(target, package)
        durable.sync_filesystem(target)

    def remove(self, *ids: str) -> None:
        """Remove packages with tags that no other one has.

        The engine deletes an image unless a container or another tag uses it.
        """
        known = self._sources.packages()
        others = {tag for package in known if package.id not in ids for tag in self._tags_of(package)}
        for package in known:
            for tag in self._tags_of(package) if package.id in ids else ():
                if tag not in others and self._names.id(tag):
                    self._names.take_away(tag)
        self._sources.remove(*ids)


def fit_for_tag(service: str) -> str:
    """Return the name of a service as the name of an image may have it."""
    return _UNFIT.sub("-", service).lower()


def _images_in(folder: Path) -> dict[str, Image]:
    """Return the kept images of a package or release by service; none where there is no record."""
    try:
        return _read_images(folder / IMAGES)
    except FileNotFoundError:
        return {}


def _read_images(path: Path) -> dict[str, Image]:
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Image])


def _written(images: Mapping[str, Image]) -> str:
    return json.dumps({service: asdict(image) for service, image in images.items()}, indent=1)


def _set_apart(tree: Path, commit: str) -> None:
    """Give files times that no other commit's have, to the nanosecond; their second stays.

    BuildKit takes a file for unchanged if it has the size and the time of the one sent before, and commits that were
    made within one second, for example by a rebase, have the same time.
    """
    part = int(commit[:12], 16) % 1_000_000_000
    for place, _, names in os.walk(tree):
        for name in names:
            path = Path(place) / name
            status = path.lstat()
            times = (status.st_atime_ns, status.st_mtime_ns // 1_000_000_000 * 1_000_000_000 + part)
            os.utime(path, ns=times, follow_symlinks=False)


def _names(model: Model) -> dict[str, str]:
    """Return per service the project's own name of its image; a built one without a name has Compose's name for it."""
    return {name: item.get("image") or f"{model['name']}-{name}" for name, item in model["services"].items()}
