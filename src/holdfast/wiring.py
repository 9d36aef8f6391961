"""From a configuration to an application whose drivers are opened; the one place where they are put together."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.application.context import ApplicationContext
from holdfast.application.fixed_settings import keep_fixed_settings
from holdfast.config.load import ResolvedConfig
from holdfast.drivers.databases.discovery import discover
from holdfast.drivers.databases.factory import open_data_directories, open_databases, open_sanitizers
from holdfast.drivers.files.factory import open_files
from holdfast.drivers.gates.factory import open_gate, open_proxy
from holdfast.drivers.indices.factory import open_indices
from holdfast.drivers.packages.factory import open_packages, open_registry
from holdfast.drivers.runtimes import factory as runtimes
from holdfast.drivers.vaults.factory import open_vault
from holdfast.engine.cancellation import Cancellation
from holdfast.engine.journal import Journal
from holdfast.engine.observer import Observer, SilentObserver
from holdfast.engine.operation_log import OperationLog
from holdfast.engine.runner import Runner
from holdfast.steps.handlers import StepHandlers
from holdfast.system.host import Host


def open_app(
    loaded: ResolvedConfig, *, command: str = "", observer: Observer | None = None, host: Host | None = None
) -> App:
    """Open state, journal and drivers. Raise RefusedError, ConfigurationError. Change nothing but the state folder."""
    host = host or Host()
    journal = Journal(loaded.state)
    try:
        application = _open_drivers(loaded, journal, host)
    except BaseException:
        journal.close()
        raise
    if observer is not None:
        host.warn = lambda line: observer.say(f"warning: {line}")
    host.log = OperationLog(loaded.state / "logs", host).write
    runner = Runner(
        journal,
        StepHandlers(application),
        host,
        observer or SilentObserver(),
        Cancellation(),
        end_sessions=application.end_sessions,
        make_room=application.release_reserves,
    )
    return App(application, runner, host.redactor.text(command), _rewire)


def _open_drivers(loaded: ResolvedConfig, journal: Journal, host: Host) -> ApplicationContext:
    keep_fixed_settings(loaded, host)
    host.store = loaded.secret_store()
    supervisor = runtimes.open_supervisor(loaded, host)
    compose = runtimes.open_compose(loaded, host)
    if compose is not None:
        loaded = runtimes.with_volume_folders(loaded, compose)
    loaded, problem = discover(loaded, host, compose)
    proxy = open_proxy(loaded, host, compose)
    return ApplicationContext(
        loaded=loaded,
        host=host,
        journal=journal,
        runtime=compose or supervisor,
        gate_runtime=supervisor,
        containers=compose,
        databases=open_databases(loaded, host, compose),
        indices=open_indices(loaded, host),
        cold=open_data_directories(loaded, host, compose),
        sanitizers=open_sanitizers(loaded, host, compose),
        files=open_files(loaded, host),
        vault=open_vault(loaded, host),
        gate=proxy or open_gate(loaded),
        proxy=proxy,
        packages=open_packages(loaded, host, runtimes.compose_commands(loaded)),
        undiscovered=problem,
        registry=open_registry(loaded, host),
    )


def _rewire(application: ApplicationContext) -> None:
    compose = runtimes.open_compose(application.loaded, application.host)
    if application.loaded.configuration.databases.keys() != application.databases.keys():
        containers = compose or application.containers
        application.databases = open_databases(application.loaded, application.host, containers)
    if compose is not None:
        application.runtime = application.containers = compose
        application.packages = open_packages(
            application.loaded, application.host, runtimes.compose_commands(application.loaded)
        )
