"""One configured application with its drivers opened: the only wiring."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shlex
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from holdfast.application.context import Opened
from holdfast.config.load import Loaded
from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers import registry
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Database
from holdfast.drivers.protocols.packages import Packages
from holdfast.engine.cancellation import Cancellation
from holdfast.engine.journal import Journal
from holdfast.engine.observer import Observer, SilentObserver
from holdfast.engine.runner import Result, Runner
from holdfast.errors import RefusedError, StepError
from holdfast.model import Plan, Server
from holdfast.steps.table import handlers
from holdfast.system import child_environment, durable
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.gates.proxy.driver import ProxyGate
    from holdfast.drivers.runtimes.compose.project import Compose, Project


@dataclass
class App:
    opened: Opened
    runner: Runner
    command: str

    @property
    def loaded(self) -> Loaded:
        return self.opened.loaded

    @property
    def journal(self) -> Journal:
        return self.opened.journal

    def follow(self, loaded: Loaded) -> None:
        """Lets another configuration rule from now on: the same one with what a release brings of its own."""
        self.opened.loaded = loaded
        if self.opened.containers is not None:
            compose = _compose(loaded, self.opened.host)
            self.opened.runtime = self.opened.containers = compose
            self.opened.packages = _packages(loaded, self.opened.host)

    def run(self, plan: Plan, *, wait_seconds: float = 0) -> Result:
        """Runs a plan as one operation of this application. Raises what Runner.run raises."""
        return self.runner.run(
            plan,
            command=self.command,
            configuration=self.loaded.dump(),
            user=getpass.getuser(),
            wait_seconds=wait_seconds,
        )

    def end_backup(self) -> bool:
        """Asks a running backup to stop and undo itself, as Ctrl-C does; True if one ran."""
        holder = self.runner.lock("backup").holder()
        if holder is None or not holder.alive() or not holder.what.startswith("backup"):
            return False
        os.kill(holder.pid, signal.SIGTERM)
        return True

    def close(self) -> None:
        self.journal.close()


def open_app(loaded: Loaded, *, command: str = "", observer: Observer | None = None, host: Host | None = None) -> App:
    """Opens state, journal and drivers. Raises RefusedError or ConfigurationError; changes nothing but the state folder."""
    host = host or Host()
    try:
        journal = Journal(loaded.state)
    except PermissionError as error:
        raise RefusedError(
            f"the state directory {loaded.state} cannot be used: {error.strerror}",
            next_step="Run Holdfast as root, or set `application.state` to a folder of this user.",
        ) from error
    try:
        return _open_drivers(loaded, journal, command, observer, host)
    except BaseException:
        journal.close()
        raise


def _open_drivers(loaded: Loaded, journal: Journal, command: str, observer: Observer | None, host: Host) -> App:
    configuration = loaded.configuration
    _keep_kinds(loaded, host)
    supervisor = registry.driver(registry.RUNTIMES, "supervisor", "runtime.kind")(
        loaded.state / "supervisor", _mark(loaded), host
    )
    compose = _compose(loaded, host) if configuration.runtime.kind == "compose" else None
    if compose is not None:
        loaded = _with_places(loaded, compose)
        configuration = loaded.configuration
    proxied = _proxied(loaded, host, compose) if configuration.gate.kind in registry.PROXIES else None
    opened = Opened(
        loaded=loaded,
        host=host,
        journal=journal,
        runtime=compose or supervisor,
        gate_runtime=supervisor,
        containers=compose,
        databases={
            name: _database(loaded, host, name, item, compose) for name, item in configuration.databases.items()
        },
        cold={
            name: registry.driver(registry.COLD, item.kind, f"databases.{name}.kind")(
                name, item.name, _server(item, compose), _mark(loaded), host
            )
            for name, item in configuration.databases.items()
            if item.kind in registry.COLD
        },
        files={
            name: registry.driver(registry.FILES, "local", "files")(
                name,
                loaded.path(item.path),
                [*item.exclude, *_databases_in(loaded, item.path)],
                host,
                loaded.state / "files" / name,
            )
            for name, item in configuration.files.items()
        },
        vault=_vault(loaded, host),
        gate=proxied or _gate(loaded),
        proxy=proxied,
        packages=_packages(loaded, host),
    )
    if observer is not None:
        host.warn = lambda line: observer.say(f"warning: {line}")
    host.log = OperationLog(loaded.state / "logs", host).write
    cancellation = Cancellation()
    runner = Runner(
        journal,
        handlers(opened),
        host,
        observer or SilentObserver(),
        cancellation,
        end_sessions=opened.end_sessions,
        make_room=opened.release_reserves,
    )
    return App(opened, runner, host.redactor.text(command))


def _mark(loaded: Loaded) -> str:
    """Tells the processes of this application from those of every other on the machine."""
    return f"{loaded.configuration.application.name}.{loaded.configuration.application.environment}@{loaded.state}"


def _databases_in(loaded: Loaded, files_path: str) -> list[str]:
    """A database file inside a files dataset is saved as a database, never as a file."""
    root = loaded.path(files_path)
    patterns = []
    for item in loaded.configuration.databases.values():
        if not item.path:
            continue
        path = loaded.path(item.path)
        for place in {path, Path(os.path.realpath(path))}:  # a link and what it leads to
            if root not in place.parents:
                continue
            inside = str(place.relative_to(root))
            patterns += [inside, *(f"{inside}{ending}" for ending in ("-wal", "-shm", "-journal"))]
    return patterns


def _with_places(loaded: Loaded, compose: Any) -> Loaded:
    """With the folders of this machine where the engine keeps the volumes that datasets are.

    While it is not answering those count that it said last, for a recovery may come before the engine is back. One that
    answers and has no such volume is believed. Raises StepError.
    """
    configuration = loaded.configuration
    volumes = {name: item for name, item in configuration.files.items() if item.volume and not item.path}
    if not volumes:
        return loaded
    memory = loaded.state / "volumes.json"
    known: dict[str, str] = durable.read_json(memory) if memory.exists() else {}
    try:
        compose.prepare()
    except StepError:
        if not {item.volume for item in volumes.values()} <= set(known):
            raise
        places = known
    else:
        places = {item.volume: compose.place_of(item.volume) for item in volumes.values()}
    if places != known:
        durable.write_file(memory, json.dumps(places, indent=1))
    found = {name: structs.replace(item, path=places[item.volume]) for name, item in volumes.items()}
    return replace(loaded, configuration=structs.replace(configuration, files={**configuration.files, **found}))


def _database(loaded: Loaded, host: Host, name: str, item: DatabaseSettings, containers: Containers | None) -> Database:
    driver = registry.driver(registry.DATABASES, item.kind, f"databases.{name}.kind")
    if item.kind == "sqlite":
        return driver(name, loaded.path(item.path))
    return driver(name, item.name, _server(item, containers), host)


def _server(item: DatabaseSettings, containers: Containers | None) -> Server:
    container, find = item.container, None
    if containers is not None and container.startswith("compose:"):
        find = partial(containers.container_of, container.removeprefix("compose:"))
        container = f"{containers.engine_name}:"
    return Server(
        host=item.host,
        port=item.port,
        user=item.user,
        password=item.password,
        maintenance=item.maintenance,
        end_sessions=item.end_sessions,
        jobs=item.jobs,
        container=container,
        find_container=find,
    )


def _vault(loaded: Loaded, host: Host) -> Any:
    for name, item in loaded.configuration.vaults.items():
        return registry.driver(registry.VAULTS, item.kind, f"vaults.{name}.kind")(
            loaded.path(item.path), loaded.owner, host
        )
    return None


def _gate(loaded: Loaded) -> Any:
    gate = loaded.configuration.gate
    folder = loaded.state / "front"
    if gate.kind == "none":
        return registry.driver(registry.GATES, "none", "gate.kind")(folder)
    return registry.driver(registry.GATES, gate.kind, "gate.kind")(
        folder,
        gate.listen,
        message=gate.message,
        template=str(loaded.path(gate.template)) if gate.template else "",
        drain_seconds=gate.drain_seconds,
    )


def _proxied(loaded: Loaded, host: Host, compose: Any) -> ProxyGate:
    from holdfast.drivers.gates.proxy.driver import ProxyGate
    from holdfast.drivers.gates.proxy.location import Place
    from holdfast.drivers.gates.proxy.probe import Door

    gate = loaded.configuration.gate
    engine, _, name = gate.container.partition(":")
    if engine == "compose":
        place = Place(host, compose.engine_name, partial(compose.container_of, name))
    else:
        place = Place(host, engine, partial(str, name))
    product = registry.driver(registry.PROXIES, gate.kind, "gate.kind")(place, gate.config)
    return ProxyGate(
        loaded.state / "front",
        loaded.path(gate.include),
        product,
        place,
        Door(gate.check_url, gate.check_host),
        message=gate.message,
        template=str(loaded.path(gate.template)) if gate.template else "",
        drain_seconds=gate.drain_seconds,
    )


def _packages(loaded: Loaded, host: Host) -> Packages:
    source = loaded.configuration.source
    limit = loaded.configuration.limits.build_timeout_seconds
    archive = registry.driver(registry.PACKAGES, "archive", "packages")(
        loaded.state / "packages",
        loaded.path(source.repository),
        host,
        build=source.build,
        requirements=source.python.requirements if source.python else "",
        python=source.python.interpreter if source.python else "python3",
        timeout_seconds=limit,
    )
    if loaded.configuration.runtime.kind != "compose":
        return archive
    from holdfast.drivers.packages.images.build_script import BuildScript

    application = loaded.configuration.application
    # Two applications of one name would else remove each other's images, each by its own list of releases.
    digest = hashlib.sha256(str(loaded.state).encode()).hexdigest()[:8]
    prefix = f"holdfast/{application.name}.{application.environment}.{digest}"
    script = BuildScript(source.images, loaded.path(source.repository), prefix) if source.images else None
    return registry.driver(registry.PACKAGES, "images", "packages")(
        loaded.state / "packages",
        archive,
        partial(_commands, loaded),
        host,
        engine=_project(loaded, loaded.root, loaded.root).engine,
        instance=loaded.root,
        prefix=prefix,
        script=script,
        links=_beside_sources(loaded),
        services=list(loaded.configuration.services),
        timeout_seconds=limit,
    )


def _beside_sources(loaded: Loaded) -> dict[str, Path]:
    """What Compose files may name and no commit has: environment files, and what else lies beside holdfast.toml."""
    configuration = loaded.configuration
    names = [*configuration.runtime.env_files, *configuration.backup.config_files]
    names = [name for name in (".env", *names) if (loaded.root / name).exists() and not Path(name).is_absolute()]
    found = {name: loaded.root / name for name in names}
    return found | {inside: loaded.path(shared) for inside, shared in configuration.source.shared.items()}


def _project(loaded: Loaded, sources: Path, folder: Path, name: str = "") -> Project:
    """The Compose project by the files of a tree of sources, with `folder` as what its paths are relative to."""
    from holdfast.drivers.runtimes.compose.project import Project, env_files_in, files_in

    runtime = loaded.configuration.runtime
    return Project(
        tuple(runtime.command),
        folder,
        files_in(runtime.files, sources, loaded.root),
        env_files_in(runtime.env_files, loaded.root),
        tuple(runtime.profiles),
        name or runtime.project,
    )


def _commands(loaded: Loaded, sources: Path, folder: Path, name: str = "") -> Compose:
    from holdfast.drivers.runtimes.compose.cli.select import compose_of

    return compose_of(_project(loaded, sources, folder, name))


def _compose(loaded: Loaded, host: Host) -> Any:
    ports = {name: service.port for name, service in loaded.configuration.services.items()}
    web = next((name for name in ports if loaded.configuration.service_kind(name) == "web"), "")
    return registry.driver(registry.RUNTIMES, "compose", "runtime.kind")(
        loaded.state / "compose",
        _mark(loaded),
        host,
        _project(loaded, loaded.root, loaded.root),
        ports=ports,
        web=web,
        keep_ports=loaded.configuration.gate.kind == "none",
        reached_inside=bool(loaded.configuration.gate.container),
    )


def _keep_kinds(loaded: Loaded, host: Host) -> None:
    """An environment that was once `prod` is not made something less by editing a file, nor its runtime another one.

    Nor does a variable of another shell, or the want of it after a reboot, lead to another container engine.

    Raises RefusedError: what the other runtime started would run on beside this one's.
    """
    path = loaded.state / "environment.json"
    runtime = loaded.configuration.runtime.kind
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    if known.get("type", loaded.environment_type) != loaded.environment_type and known["type"] == "prod":
        raise RefusedError(
            f"this environment was set up as prod; {loaded.environment_type} in the configuration is refused",
            next_step=f"Put `type` back, or, if it really is no production any more, remove {path}.",
        )
    if known.get("runtime", runtime) != runtime:
        raise RefusedError(
            f"services of this environment run by {known['runtime']}; runtime.kind {runtime!r} is refused",
            next_step=f"Put it back, `holdfast service stop`, change it, and remove {path}.",
        )
    engine = known.get("engine") or {
        name: os.environ[name] for name in child_environment.ENGINE if os.environ.get(name)
    }
    host.engine = engine
    wanted = {"type": loaded.environment_type, "runtime": runtime, "engine": engine}
    if known != wanted:
        durable.write_file(path, json.dumps(wanted))


class OperationLog:
    """One JSON-lines file per operation; best effort, for a full disk must not fail an upgrade."""

    def __init__(self, folder: Path, host: Host) -> None:
        self._folder = folder
        self._host = host

    def write(self, record: Mapping[str, Any]) -> None:
        if self._host.operation is None:
            return
        line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **record}) + "\n"
        try:
            durable.make_directory(self._folder)
            descriptor = os.open(
                self._folder / f"{self._host.operation}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError:
            pass


def command_line(arguments: list[str]) -> str:
    return shlex.join(["holdfast", *arguments])
