"""Opens what builds packages: archives of a commit, and images of a Compose project beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass
from holdfast.drivers.protocols.packages import Packages, Registry
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.packages.images.driver import ComposeCommand


def _archive() -> Callable[..., Packages]:
    from holdfast.drivers.packages.archive import ArchivePackages

    return ArchivePackages


def _images() -> Callable[..., Packages]:
    from holdfast.drivers.packages.images.driver import ImagePackages

    return ImagePackages


KINDS: Mapping[str, DriverClass[Packages]] = {"archive": _archive, "images": _images}


def open_packages(
    loaded: ResolvedConfig, host: Host, compose: tuple[Callable[..., ComposeCommand], str] | None
) -> Packages:
    """Return what builds packages; with images where there is a Compose command for sources, given with its engine."""
    archives = _open_archives(loaded, host)
    return archives if compose is None else _open_images(loaded, host, archives, *compose)


def open_registry(loaded: ResolvedConfig, host: Host) -> Registry | None:
    """Return the registry that environments share; None where none is configured. It is not asked yet."""
    configured = loaded.configuration.packages.registry
    if configured is None:
        return None
    from holdfast.drivers.packages.registry.client import RegistryClient
    from holdfast.drivers.packages.registry.store import OciRegistry

    scheme, server, repository = configured.parts()
    client = RegistryClient(
        scheme,
        server,
        host,
        user=configured.user,
        password=configured.password,
        authority=loaded.path(configured.ca) if configured.ca else None,
        timeout_seconds=configured.timeout_seconds,
    )
    return OciRegistry(client, repository)


def _open_archives(loaded: ResolvedConfig, host: Host) -> Packages:
    source = loaded.configuration.source
    return _archive()(
        loaded.state / "packages",
        loaded.path(source.repository),
        host,
        build=source.build,
        assets=source.assets,
        patches=source.patches,
        requirements=source.python.requirements if source.python else "",
        python=source.python.interpreter if source.python else "python3",
        timeout_seconds=loaded.configuration.limits.build_timeout_seconds,
    )


def _open_images(
    loaded: ResolvedConfig, host: Host, archives: Packages, commands: Callable[..., ComposeCommand], engine: str
) -> Packages:
    from holdfast.drivers.packages.images.build_script import BuildScript

    source, application = loaded.configuration.source, loaded.configuration.application
    # Two applications of one name would else remove each other's images, each by its own list of releases.
    digest = hashlib.sha256(str(loaded.state).encode()).hexdigest()[:8]
    prefix = f"holdfast/{application.name}.{application.environment}.{digest}"
    return _images()(
        loaded.state / "packages",
        archives,
        commands,
        host,
        engine=engine,
        instance=loaded.root,
        prefix=prefix,
        script=BuildScript(source.images, loaded.path(source.repository), prefix) if source.images else None,
        links=_files_beside(loaded),
        services=list(loaded.configuration.services),
        timeout_seconds=loaded.configuration.limits.build_timeout_seconds,
    )


def _files_beside(loaded: ResolvedConfig) -> dict[str, Path]:
    """Return what Compose files may name and no commit has: environment files and others next to holdfast.toml."""
    configuration = loaded.configuration
    names = [*configuration.runtime.env_files, *configuration.backup.config_files]
    names = [name for name in (".env", *names) if (loaded.root / name).exists() and not Path(name).is_absolute()]
    found = {name: loaded.root / name for name in names}
    return found | {inside: loaded.path(shared) for inside, shared in configuration.source.shared.items()}
