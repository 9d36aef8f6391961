"""Packages in a repository of an OCI registry, shared by all environments of a project.

A package appears in the list when its manifest is put, which is the last thing that a push does. Whatever ends a push
earlier leaves contents that no manifest names; a registry removes those when it collects its garbage. Everything that
comes from the registry is compared with the digest by which it was announced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from holdfast.config.similar import did_you_mean
from holdfast.drivers.packages.registry import manifests
from holdfast.drivers.packages.registry.client import Body, RegistryClient
from holdfast.drivers.packages.registry.manifests import Descriptor, Manifest, PackageConfig, Tags
from holdfast.drivers.protocols.packages import EngineLogin, Progress
from holdfast.errors import DamagedError, NotFoundError, RefusedError, RegistryError
from holdfast.model.packages import EnvironmentUse, Package, StoredImage, StoredPackage

_MOST_MANIFEST_BYTES = 4 << 20
_PAGE = 100
_BLOCK_BYTES = 1 << 18
_ACCEPTED, _NOT_ALLOWED, _NOT_FOUND = 202, 405, 404
_DecodedT = TypeVar("_DecodedT")


class OciRegistry:
    def __init__(self, client: RegistryClient, repository: str) -> None:
        self.server = client.server
        self._repository = repository
        self._client = client

    @property
    def address(self) -> str:
        return f"{self.server}/{self._repository}"

    def engine_login(self, folder: Path) -> EngineLogin:
        written = self._client.write_login(folder / "config.json")
        return EngineLogin(self.address, folder if written else None, plain=self._client.plain)

    def close(self) -> None:
        self._client.close()

    def _path(self, *parts: str) -> str:
        return "/v2/" + "/".join([self._repository, *parts])

    # --- reading -------------------------------------------------------------------------------------

    def _tags(self) -> list[str]:
        found: list[str] = []
        place = self._path("tags", f"list?n={_PAGE}")
        while place:
            with self._client.ask("GET", place, "tags", allowed=(_NOT_FOUND,)) as answer:
                text = answer.content(_MOST_MANIFEST_BYTES)
                if answer.status == _NOT_FOUND:
                    return found  # nothing was ever pushed there
                found += _decoded(text, Tags, f"the list of packages of {self.address}").tags or []
                link = answer.header("Link")
            place = link.partition(">")[0].partition("<")[2] if 'rel="next"' in link else ""
        return list(dict.fromkeys(found))

    def _manifest(self, reference: str) -> tuple[Manifest, str] | None:
        """Return a manifest and its digest; None where the registry has none. Raise DamagedError."""
        place = self._path("manifests", urllib.parse.quote(reference, safe=":"))
        accepted = manifests.MANIFEST
        with self._client.ask("GET", place, "manifest", accept=accepted, allowed=(_NOT_FOUND,)) as answer:
            text = answer.content(_MOST_MANIFEST_BYTES)
            if answer.status == _NOT_FOUND:
                return None
            announced = answer.header("Docker-Content-Digest")
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        for wanted in (announced, reference if manifests.DIGEST.fullmatch(reference) else ""):
            if wanted and wanted != digest:
                raise self._damaged(f"the manifest of {reference}", wanted, digest)
        return _decoded(text, Manifest, f"the manifest of {reference}"), digest

    def require_access(self) -> None:
        self._tags()

    def packages(self) -> list[StoredPackage]:
        found = []
        for tag in self._tags():
            if tag.startswith(manifests.ENVIRONMENT_TAGS):
                continue
            known = self._manifest(tag)
            if known is not None and known[0].is_package:
                found.append(manifests.package_in(*known_as(known, f"{self.address}:{tag}", tag)))
        return sorted(found, key=lambda stored: (stored.pushed_at, stored.package.id), reverse=True)

    def find(self, reference: str) -> StoredPackage:
        name = reference.removeprefix(f"{self.address}:").removeprefix(f"{self.address}@")
        by_digest = manifests.DIGEST.fullmatch(name) is not None
        if not by_digest and not manifests.TAG.fullmatch(name):
            raise self._unknown(reference)
        known = self._manifest(name)
        if known is None:
            raise self._unknown(reference)
        full = f"{self.address}{'@' if by_digest else ':'}{name}"
        stored = manifests.package_in(*known_as(known, full, "" if by_digest else name))
        config = self._config(known[0].config)
        announced = stored.package
        package = replace(
            config.package,
            id=announced.id,
            commit=announced.commit,
            digest=announced.digest,
            size_bytes=announced.size_bytes,
            path="",
            patches=(),
        )
        return replace(
            stored,
            package=package,
            application=config.application,
            configuration=config.configuration,
            images=config.images,
        )

    def _config(self, descriptor: Descriptor) -> PackageConfig:
        if descriptor.size > _MOST_MANIFEST_BYTES:
            raise DamagedError(f"the configuration of a package in {self.address} is too large")
        with self._client.ask("GET", self._path("blobs", descriptor.digest), "configuration") as answer:
            text = answer.content(_MOST_MANIFEST_BYTES)
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        if digest != descriptor.digest:
            raise self._damaged("the configuration of a package", descriptor.digest, digest)
        return _decoded(text, PackageConfig, "the configuration of a package")

    def _unknown(self, reference: str) -> NotFoundError:
        known = [tag for tag in self._tags() if not tag.startswith(manifests.ENVIRONMENT_TAGS)]
        question = did_you_mean(reference, [*known, *(f"{self.address}:{tag}" for tag in known)])
        return NotFoundError(
            f"{self.address} has no package {reference!r}",
            next_step=f"{question} Run `holdfast package list` to see all packages.".strip(),
        )

    def _damaged(self, what: str, announced: str, found: str) -> DamagedError:
        return DamagedError(
            f"{what} in the registry {self.server} is not what was announced: its digest is {found}, not {announced}",
            next_step="Do not deploy it. Find out who changed it, then build and push it again under another name.",
        )

    # --- contents ------------------------------------------------------------------------------------

    def _content(self, stored: StoredPackage, progress: Progress) -> Iterator[bytes]:
        """Yield the archive of a package. Raise DamagedError once it shows that it is another one."""
        package = stored.package
        digest, done = hashlib.sha256(), 0
        with self._client.ask("GET", self._path("blobs", f"sha256:{package.digest}"), "archive") as answer:
            for block in answer.blocks():
                digest.update(block)
                done += len(block)
                if done > package.size_bytes:
                    break
                progress(done, package.size_bytes, "B")
                yield block
        found = digest.hexdigest()
        if done != package.size_bytes or found != package.digest:
            raise self._damaged(f"the archive of {stored.name}", f"sha256:{package.digest}", f"sha256:{found}")

    def pull(self, stored: StoredPackage, folder: Path, progress: Progress) -> None:
        target = folder / manifests.ARCHIVE
        try:
            with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                for block in self._content(stored, progress):
                    file.write(block)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def verify(self, stored: StoredPackage, progress: Progress) -> None:
        for _ in self._content(stored, progress):
            pass

    # --- writing -------------------------------------------------------------------------------------

    def push(
        self,
        package: Package,
        application: str,
        configuration: str,
        images: Mapping[str, StoredImage],
        progress: Progress,
    ) -> StoredPackage:
        name = f"{self.address}:{package.id}"
        if not manifests.TAG.fullmatch(package.id) or package.id.startswith(manifests.ENVIRONMENT_TAGS):
            why = "it was patched here" if package.patches else "a registry accepts letters, digits, `.`, `_` and `-`"
            raise RefusedError(
                f"the package {package.id} cannot be pushed under its name: {why}",
                next_step="Build it under another name: holdfast package build REF TAG",
            )
        present = self._manifest(package.id)
        if present is not None:
            stored = manifests.package_in(*known_as(present, name, package.id))
            if stored.package.digest != package.digest:
                raise RefusedError(
                    f"{name} is another package already: its digest is {stored.package.digest[:12]}, not"
                    f" {package.digest[:12]}",
                    next_step="A name never moves to another package. Build it under a new one: holdfast package build"
                    " REF TAG",
                )
            return stored
        archive = Path(package.path) / manifests.ARCHIVE
        layer = manifests.layer_descriptor(f"sha256:{package.digest}", package.size_bytes)
        self._put_file(archive, layer, progress)
        described = PackageConfig(application, replace(package, path=""), configuration, images)
        text = msgspec.json.encode(described)
        config = manifests.config_descriptor(f"sha256:{hashlib.sha256(text).hexdigest()}", len(text))
        self._put_text(text, config)
        pushed_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = manifests.of_package(config, layer, package, application, pushed_at)
        digest = self._put_manifest(package.id, manifest)
        return StoredPackage(name, digest, package, pushed_at, application, configuration, images)

    def _put_file(self, path: Path, descriptor: Descriptor, progress: Progress) -> None:
        def blocks() -> Iterator[bytes]:
            done = 0
            with open(path, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
                    done += len(block)
                    progress(done, descriptor.size, "B")

        self._put_blob("archive", descriptor.digest, Body(blocks, descriptor.size))

    def _put_text(self, text: bytes, descriptor: Descriptor) -> None:
        self._put_blob("configuration", descriptor.digest, Body(lambda: [text], len(text)))

    def _put_blob(self, what: str, digest: str, body: Body) -> None:
        """Upload a content that the registry does not have yet."""
        with self._client.ask("HEAD", self._path("blobs", digest), what, allowed=(_NOT_FOUND,)) as answer:
            if answer.status != _NOT_FOUND:
                return
        with self._client.ask("POST", self._path("blobs", "uploads", ""), f"{what} (begin of the upload)") as answer:
            answer.content(_MOST_MANIFEST_BYTES)
            place = answer.header("Location")
        if not place:
            raise RegistryError(f"the registry {self.server} does not say where to upload to")
        target = f"{place}{'&' if '?' in place else '?'}digest={urllib.parse.quote(digest, safe='')}"
        try:
            kind = "application/octet-stream"
            with self._client.ask("PUT", target, what, body=body, kind=kind) as answer:
                answer.content(_MOST_MANIFEST_BYTES)
        except BaseException:
            self._client.close()
            with contextlib.suppress(RegistryError), self._client.ask("DELETE", place, "upload") as answer:
                answer.content(_MOST_MANIFEST_BYTES)
            raise

    def _put_manifest(self, tag: str, manifest: Manifest) -> str:
        text = msgspec.json.encode(manifest)
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        body = Body(lambda: [text], len(text))
        place = self._path("manifests", tag)
        with self._client.ask("PUT", place, "manifest", body=body, kind=manifests.MANIFEST) as answer:
            answer.content(_MOST_MANIFEST_BYTES)
            said = answer.header("Docker-Content-Digest")
        if said and said != digest:
            raise self._damaged(f"the manifest of {tag}", digest, said)
        return digest

    def remove(self, stored: StoredPackage) -> None:
        place = self._path("manifests", stored.manifest)
        with self._client.ask("DELETE", place, stored.name, allowed=(_NOT_FOUND, _NOT_ALLOWED)) as answer:
            answer.content(_MOST_MANIFEST_BYTES)
            if answer.status == _NOT_ALLOWED:
                raise RegistryError(
                    f"the registry {self.server} does not allow that packages are removed",
                    next_step="Allow it in the configuration of the registry (Docker's: `storage.delete.enabled`).",
                )

    # --- environments --------------------------------------------------------------------------------

    def uses(self) -> list[EnvironmentUse]:
        found = []
        for tag in self._tags():
            known = self._manifest(tag) if tag.startswith(manifests.ENVIRONMENT_TAGS) else None
            use = manifests.use_in(known[0]) if known is not None else None
            if use is not None:
                found.append(use)
        return sorted(found, key=lambda use: (use.environment, use.key))

    def record(self, use: EnvironmentUse) -> None:
        tag = f"{manifests.ENVIRONMENT_TAGS}{use.key}"
        known = self._manifest(tag)
        before = manifests.use_in(known[0]) if known is not None else None
        if before is not None and replace(before, recorded_at=use.recorded_at) == use:
            return
        empty = manifests.empty_descriptor(f"sha256:{hashlib.sha256(manifests.EMPTY).hexdigest()}")
        self._put_text(manifests.EMPTY, empty)
        self._put_manifest(tag, manifests.of_use(use, empty))


def known_as(known: tuple[Manifest, str], name: str, tag: str) -> tuple[Manifest, str, str, str]:
    """Return the arguments with which a manifest is read as a package."""
    manifest, digest = known
    return manifest, name, digest, tag


def _decoded(text: bytes, kind: type[_DecodedT], what: str) -> _DecodedT:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{what} cannot be read: {error}") from error
