"""The whole of holdfast.toml."""

import sys
from typing import Annotated, Literal

from msgspec import Meta, field

from holdfast.config.schema.backup import Backup, Vault
from holdfast.config.schema.datasets import Database, Files
from holdfast.config.schema.gate import Gate
from holdfast.config.schema.hooks import Hooks
from holdfast.config.schema.indices import Index
from holdfast.config.schema.packages import Packages
from holdfast.config.schema.queues import Queues
from holdfast.config.schema.sanitize import Sanitize
from holdfast.config.schema.schedule import SERVICE, Schedule
from holdfast.config.schema.section import Name, Section
from holdfast.config.schema.services import Limits, Runtime, Service, Tasks
from holdfast.config.schema.upgrade import Guard, Migrations, Releases, Source, Upgrade

KINDS = {"consumer": "worker", "cron": "scheduler"}
"""Other words for kinds of services."""


class Application(Section, frozen=True):
    name: Annotated[Name, Meta(description="Short name of the application; part of paths and messages.")]
    environment: Annotated[Name, Meta(description="Which of its environments this is; it names the overlay file.")] = (
        "production"
    )
    type: Annotated[
        Literal["dev", "stag", "uat", "prod"] | None,
        Meta(
            description="Protection level: which commands are refused; it names another overlay, holdfast.TYPE.toml."
            " Default: prod for `production` and `prod`, stag for `staging` and `stag`, uat for `uat`, else dev."
            " Sticky: once used it cannot be lowered from prod by editing this file."
        ),
    ] = None
    state: Annotated[
        str,
        Meta(
            description="Folder of the journal, locks and logs, on a local disk. Default:"
            " /var/lib/holdfast/<name>.<environment>."
        ),
    ] = ""


class Secrets(Section, frozen=True):
    identity: Annotated[
        str,
        Meta(
            description="File with the identity of age for which secrets are encrypted; it is made if it does not"
            " exist. Keep a copy of it elsewhere. Default: secrets.identity in the state directory."
        ),
    ] = ""


class Configuration(Section, frozen=True, kw_only=True):
    extends: Annotated[
        str,
        Meta(
            pattern=r"^(preset:[a-z][a-z0-9-]*)?$",
            description="Preset to start from, such as `preset:django`.",
            extra={"expected": "preset:NAME, such as preset:django"},
        ),
    ] = ""
    application: Annotated[Application, Meta(description="Which application this is.")]
    source: Annotated[Source, Meta(description="Where its code comes from.")] = field(default_factory=Source)
    packages: Annotated[Packages, Meta(description="Where its packages are shared.")] = field(default_factory=Packages)
    runtime: Annotated[Runtime, Meta(description="Where its services run.")] = field(default_factory=Runtime)
    environment: Annotated[
        dict[str, str], Meta(description="Environment of all services and tasks; a value may be a secret reference.")
    ] = {}
    secrets: Annotated[Secrets, Meta(description="Secrets that Holdfast keeps itself, encrypted.")] = field(
        default_factory=Secrets
    )
    services: Annotated[dict[Name, Service], Meta(description="Its services.")] = {}
    tasks: Annotated[
        Tasks,
        Meta(
            description="Its one-off commands. Each is a list of arguments, a list of such lists that run in turn, or a"
            " table with them."
        ),
    ] = field(default_factory=Tasks)
    schedule: Annotated[
        dict[Name, Schedule],
        Meta(description="Tasks that run at given times, in UTC (supervisor). Each has the keys of a task."),
    ] = {}
    hooks: Annotated[Hooks, Meta(description="Commands that run around operations. Each has the forms of a task.")] = (
        field(default_factory=Hooks)
    )
    limits: Annotated[Limits, Meta(description="Time-outs.")] = field(default_factory=Limits)
    databases: Annotated[dict[Name, Database], Meta(description="Its databases.")] = {}
    files: Annotated[dict[Name, Files], Meta(description="Its trees of files.")] = {}
    indices: Annotated[dict[Name, Index], Meta(description="Its search indices.")] = {}
    queues: Annotated[dict[Name, Queues], Meta(description="Its message queues, for `holdfast queue`.")] = {}
    gate: Annotated[Gate, Meta(description="How visitors are held during maintenance.")] = field(default_factory=Gate)
    vaults: Annotated[dict[Name, Vault], Meta(description="Where backups are kept.")] = {}
    backup: Annotated[Backup, Meta(description="What a backup contains, and which backups are kept.")] = field(
        default_factory=Backup
    )
    sanitize: Annotated[Sanitize, Meta(description="Sanitized backups, for those who may not see personal data.")] = (
        field(default_factory=Sanitize)
    )
    migrations: Annotated[Migrations, Meta(description="How its migrations are listed.")] = field(
        default_factory=Migrations
    )
    guard: Annotated[Guard, Meta(description="Row counts before and after a migration.")] = field(default_factory=Guard)
    releases: Annotated[Releases, Meta(description="Where releases are kept.")] = field(default_factory=Releases)
    upgrade: Annotated[Upgrade, Meta(description="What an upgrade keeps.")] = field(default_factory=Upgrade)

    def problems(self) -> list[str]:
        return ["vaults: only one vault is supported"] if len(self.vaults) > 1 else []

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        webs = self.webs()
        problems = [f"services: only one may be of kind web, not {', '.join(webs)}"] if len(webs) > 1 else []
        if self.schedule and SERVICE in self.services:
            problems.append(f"services.{SERVICE}: is the name of the service that runs [schedule]; use another one")
        return problems

    def webs(self) -> list[str]:
        """Return the services of kind web; a valid configuration has at most one."""
        return [name for name in self.running_services() if self.service_kind(name) == "web"]

    def task_service(self) -> str:
        """Return the service whose image the tasks run in, if they run in containers; empty without services."""
        found = [
            name for kind in ("backend", "web") for name in self.running_services() if self.service_kind(name) == kind
        ]
        return self.runtime.task_service or next(iter([*found, *self.services]), "")

    def task_user(self) -> str:
        """Return the account of tasks; empty for that of Holdfast."""
        webs = [self.services[name].user for name in self.webs()]
        return self.tasks.user or next((user for user in webs if user), "")

    def owner(self) -> str:
        """Return the account to which folders belong that the application writes into; empty for that of Holdfast."""
        webs = [self.services[name].user for name in self.webs()]
        return next((user for user in webs if user), "") or self.tasks.user

    def service_kind(self, name: str) -> str:
        """Return the kind of a service, or of one of several equal ones, as it is called everywhere else."""
        service = self.services.get(name) or self.running_services()[name]
        kind = service.kind or ("web" if name == "web" else "worker")
        return KINDS.get(kind, kind)

    def running_services(self) -> dict[str, Service]:
        """Return what runs: the services, and in place of one with several instances each of these."""
        found = {}
        for name, service in self.services.items():
            if service.instances == 1:
                found[name] = service
            else:
                found |= dict.fromkeys(self.instance_names(name), service)
        if self.schedule:
            found[SERVICE] = self._scheduler()
        return found

    def _scheduler(self) -> Service:
        """Return the service that starts scheduled tasks. It is isolated from what the application can write."""
        module = "holdfast.drivers.runtimes.supervisor.schedule"
        return Service(
            [sys.executable, "-I", "-m", module, "{root}", self.application.environment],
            kind="scheduler",
            stop_timeout_seconds=self.limits.schedule_stop_seconds,
        )

    def instance_names(self, name: str) -> list[str]:
        """Return the names under which a service runs."""
        count = self.services[name].instances
        return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
