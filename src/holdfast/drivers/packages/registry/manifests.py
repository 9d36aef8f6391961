"""What a registry keeps of a package, as OCI artifacts: one manifest, a configuration and the archive as its layer.

A package is also what `oras pull` understands: the layer has the name of its file. An environment records what it runs
in the annotations of an artifact without content, under a tag of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from holdfast.errors import DamagedError
from holdfast.model.packages import EnvironmentUse, Package, StoredImage, StoredPackage

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.holdfast.package.config.v1+json"
_LAYER = "application/vnd.holdfast.package.v1.tar+zstd"
_EMPTY = "application/vnd.oci.empty.v1+json"
_USE = "application/vnd.holdfast.environment.v1+json"
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
EMPTY = b"{}"
ARCHIVE = "package.tar.zst"
ENVIRONMENT_TAGS = "holdfast-env-"
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OCI = "org.opencontainers.image."
_OWN = "holdfast."


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A reference to a content by its digest."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A manifest; one of another kind, such as the index of an image, has no configuration and no layers."""

    schema_version: int
    config: Descriptor = Descriptor("", "", 0)
    layers: tuple[Descriptor, ...] = ()
    media_type: str = ""
    artifact_type: str = ""
    annotations: dict[str, str] = {}

    @property
    def is_package(self) -> bool:
        return self.config.media_type == _CONFIG

    @property
    def is_use(self) -> bool:
        return self.config.media_type == _USE


class PackageConfig(msgspec.Struct, frozen=True):
    """The configuration of a package's artifact."""

    application: str
    package: Package
    configuration: str = ""
    images: Mapping[str, StoredImage] = {}


class Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


def of_package(config: Descriptor, layer: Descriptor, package: Package, application: str, pushed_at: str) -> Manifest:
    """Return the manifest of a package."""
    return Manifest(
        schema_version=2,
        media_type=MANIFEST,
        artifact_type=_LAYER,
        config=config,
        layers=(layer,),
        annotations={
            f"{_OCI}created": package.built_at,
            f"{_OCI}revision": package.commit,
            f"{_OCI}title": application,
            f"{_OCI}version": package.id,
            f"{_OWN}label": package.note,
            f"{_OWN}reference": package.label,
            f"{_OWN}content": package.content,
            f"{_OWN}pushed": pushed_at,
            f"{_OWN}recipe": package.recipe,
        },
    )


def of_use(use: EnvironmentUse, empty: Descriptor) -> Manifest:
    """Return the manifest that records what an environment runs."""
    return Manifest(
        schema_version=2,
        media_type=MANIFEST,
        artifact_type=_USE,
        config=msgspec.structs.replace(empty, media_type=_USE),
        layers=(empty,),
        annotations={f"{_OWN}use": msgspec.json.encode(use).decode()},
    )


def config_descriptor(digest: str, size: int) -> Descriptor:
    return Descriptor(_CONFIG, digest, size)


def layer_descriptor(digest: str, size: int) -> Descriptor:
    return Descriptor(_LAYER, digest, size, {f"{_OCI}title": ARCHIVE})


def empty_descriptor(digest: str) -> Descriptor:
    return Descriptor(_EMPTY, digest, len(EMPTY))


def package_in(manifest: Manifest, name: str, digest: str, tag: str) -> StoredPackage:
    """Return a package as its manifest announces it. Raise DamagedError for another artifact, and for odd values."""
    (layer,) = manifest.layers if len(manifest.layers) == 1 else (None,)
    if not manifest.is_package or layer is None or not DIGEST.fullmatch(layer.digest) or layer.size < 0:
        raise DamagedError(f"{name} is not a package that Holdfast pushed")
    said = manifest.annotations
    if not _COMMIT.fullmatch(said.get(f"{_OCI}revision", "")):
        raise DamagedError(f"{name} does not say of which git commit it is")
    return StoredPackage(
        name=name,
        manifest=digest,
        package=Package(
            id=tag or said.get(f"{_OCI}version", ""),
            label=said.get(f"{_OWN}reference", ""),
            commit=said.get(f"{_OCI}revision", ""),
            digest=layer.digest.removeprefix("sha256:"),
            size_bytes=layer.size,
            built_at=said.get(f"{_OCI}created", ""),
            path="",
            content=said.get(f"{_OWN}content", ""),
            note=said.get(f"{_OWN}label", ""),
            recipe=said.get(f"{_OWN}recipe", ""),
        ),
        pushed_at=said.get(f"{_OWN}pushed", ""),
        application=said.get(f"{_OCI}title", ""),
    )


def use_in(manifest: Manifest) -> EnvironmentUse | None:
    """Return what an environment recorded; None for another artifact. Raise DamagedError."""
    if not manifest.is_use:
        return None
    try:
        return msgspec.json.decode(manifest.annotations.get(f"{_OWN}use", ""), type=EnvironmentUse)
    except msgspec.DecodeError as error:
        raise DamagedError(f"the record of an environment in the registry is damaged: {error}") from error
