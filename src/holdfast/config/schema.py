"""Every key of holdfast.toml with its type, default and meaning; the reference page is generated from here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
Argv = Annotated[list[str], Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Application(Section):
    name: Name = Field(description="Short name of the application; part of paths and messages.")
    environment: Name = Field("production", description="Which of its environments this is; names the overlay file.")
    type: Literal["dev", "stag", "uat", "prod"] | None = Field(
        None,
        description="What is forbidden here. Default: prod for `production`, stag for `staging`, uat for `uat`, else dev."
        " Sticky: once used it cannot be lowered from prod by editing this file.",
    )
    state: str = Field(
        "",
        description="Folder of journal, locks and logs, on a local disk."
        " Default: /var/lib/holdfast/<name>.<environment>.",
    )


class PythonSource(Section):
    requirements: str = Field(
        "requirements.txt", description="Requirements file in the repository; its wheels go into the package."
    )
    interpreter: str = Field("python3", description="Interpreter that makes the virtual environment of a release.")


class Source(Section):
    repository: str = Field(".", description="Path of the git repository, relative to holdfast.toml.")
    build: list[Argv] = Field(
        [], description="Commands run in the built tree before it is packed; each a list of words."
    )
    images: list[Argv] = Field(
        [],
        description="The project's own commands that build its images, run in a checkout of the commit instead of"
        " `compose build`; believed by the images that they made, not by how they ended (compose).",
    )
    shared: dict[str, str] = Field(
        {}, description="Links made in each release: path in the release -> path that all releases share."
    )
    python: PythonSource | None = Field(None, description="For Python: a virtual environment `.venv` in each release.")


class Runtime(Section):
    kind: Literal["supervisor", "compose"] = Field(
        "supervisor",
        description="Where services run. supervisor: supervisord, owned by Holdfast; compose: containers of a Compose project.",
    )
    command: list[str] = Field(
        ["docker", "compose"],
        min_length=1,
        description="Your own Compose command as a list of words: `docker compose`, `docker-compose` (1.29, 2) or"
        " `podman-compose` (compose).",
    )
    files: list[str] = Field(
        [],
        description="Compose files, as after `docker compose -f`: from the release where its sources have them, else from"
        " beside holdfast.toml. Default: those that Compose itself takes (compose).",
    )
    env_files: list[str] = Field(
        [],
        description="Files beside holdfast.toml that variables come from, as after `docker compose --env-file`."
        " Default: `.env` if it is there (compose).",
    )
    profiles: list[str] = Field([], description="Profiles that are on (compose).")
    project: str = Field("", description="Name of the project. Default: what its files and variables say (compose).")
    task_service: str = Field(
        "", description="Service whose image the tasks run in. Default: the backend, else the web (compose)."
    )


class Service(Section):
    command: list[str] = Field(
        [],
        description="Command as a list of words; {port}, {release}, {root} and {python} are replaced."
        " In containers by default the one of their image.",
    )
    port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port that the web listens on in its container. Default: the only one it publishes.",
    )
    kind: Literal["web", "backend", "worker", "scheduler"] | None = Field(
        None,
        description="Order of stop: schedulers, workers, web, backend; start in reverse. backend: what a web leads to by"
        " itself, as by a socket in a volume. Default: web if named so, else worker.",
    )
    health: str = Field("", description="Path that answers 2xx when the web is well, asked on its loopback port.")
    health_headers: dict[str, str] = Field(
        {},
        description="Headers of that request, as the site's name (`Host`) and what the proxy before it says"
        " (`X-Forwarded-Proto`); else `Host: localhost`.",
    )
    health_command: list[str] = Field(
        [], description="Command in the release that ends with 0 when the service is well."
    )
    health_timeout_seconds: float = Field(
        60,
        gt=0,
        description="How long a start may take until the service is well. An undo that goes back to it waits up to two minutes longer.",
    )
    settle_seconds: float = Field(
        1.0, ge=0, description="How long a service must stay up, with one process, to count as started."
    )
    stop_signal: Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"] = Field(
        "TERM", description="Signal that stops it."
    )
    stop_timeout_seconds: int = Field(10, gt=0, description="After that it is killed.")
    user: str = Field("", description="Account it runs as, where Holdfast runs as root.")
    environment: dict[str, str] = Field(
        {}, description="Environment; a value may be a secret reference `env:NAME`, `file:PATH` or `command:ARGV`."
    )


class Tasks(Section):
    install: list[str] = Field([], description="First installation on empty data.")
    migrate: list[str] = Field([], description="Brings the data to the release.")
    warm_cache: list[str] = Field([], description="Runs after migrate and before the start.")
    after_restore: list[str] = Field([], description="Runs after a restore and before the start, as for a reindex.")
    after_clone: list[str] = Field([], description="Runs in the target after a clone.")
    reindex: list[str] = Field(
        [], description="Rebuilds the search index; runs after `after_restore`, wherever data were replaced."
    )
    console: list[str] = Field([], description="`holdfast console -- ARGS` runs this with ARGS.")


class Limits(Section):
    task_timeout_seconds: float = Field(
        3600, gt=0, description="A task that runs longer is ended and the operation undone."
    )
    build_timeout_seconds: float = Field(3600, gt=0, description="The same for each command of a build.")


class Database(Section):
    kind: Literal["sqlite", "postgresql", "mariadb", "mysql"] = Field(description="Engine.")
    path: str = Field("", description="The database file, relative to holdfast.toml (sqlite).")
    name: str = Field("", description="Name of the database in its server.")
    host: str = Field(
        "",
        description="The server's host; or the folder of its socket (postgresql), the socket itself (mariadb, mysql). Default: the client's own.",
    )
    port: int = Field(0, ge=0, le=65535, description="The server's port. Default: the client's own.")
    user: str = Field(
        "",
        description="Role that owns the database and may create others: CREATEDB (postgresql), all on `hf-%` (mariadb, mysql).",
    )
    password: str = Field(
        "", pattern=r"^((env|file|command):.+)?$", description="Secret reference of that role's password."
    )
    container: str = Field(
        "",
        pattern=r"^((docker|podman|compose):[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
        description="Container of the server, as `docker:guestbook-db`, or `compose:SERVICE` for that of the Compose project:"
        " its client programs are run inside, where host and port are seen from; dumps come out through a pipe.",
    )
    maintenance: str = Field("postgres", description="Another database of the server to connect to (postgresql).")
    jobs: int = Field(
        2,
        ge=1,
        le=64,
        description="Parallel jobs of a restore, and of dumps and copies where the engine can; of MariaDB and MySQL, more than"
        " one lets up to three dump programs run at a time.",
    )
    import_from: list[str] = Field(
        [],
        description="Folders of this machine, relative to holdfast.toml, where the application's own scripts leave dumps:"
        " `import list` shows them.",
    )
    end_sessions: bool = Field(
        False, description="End sessions of strangers after the stop, where they would else refuse the operation."
    )

    @model_validator(mode="after")
    def place_is_named(self) -> Database:
        if self.kind == "sqlite" and not self.path:
            raise ValueError("path: is needed for kind sqlite")
        if self.kind != "sqlite" and not self.name:
            raise ValueError(f"name: is needed for kind {self.kind}")
        if self.kind == "sqlite" and self.container:
            raise ValueError("container: a sqlite file is read by Holdfast itself, where it lies")
        return self


class Files(Section):
    path: str = Field("", description="Folder, relative to holdfast.toml.")
    volume: str = Field(
        "",
        description="Instead of a path: a named volume, by the name that the Compose files give it; read where the engine keeps"
        " it (compose).",
    )
    exclude: list[str] = Field([], description="Shell patterns of what can be made again: caches, thumbnails, locks.")

    @model_validator(mode="after")
    def place_is_named(self) -> Files:
        if not self.path and not self.volume:
            raise ValueError("path: is missing; name a folder, or a volume of the Compose project as `volume`")
        return self


class Gate(Section):
    kind: Literal["front", "nginx", "caddy", "none"] = Field(
        "none",
        description="`front`: a small proxy of Holdfast's own before the web; `nginx` or `caddy`: your own, which"
        " includes a file of Holdfast's.",
    )
    listen: str = Field(
        "127.0.0.1:8000", pattern=r"^\S+:\d{1,5}$", description="Public address of the front, host:port."
    )
    message: str = Field("", description="What the maintenance page says.")
    template: str = Field("", description="Own page: HTML with $message, $comment and $retry_after_seconds.")
    drain_seconds: float = Field(10, ge=0, description="How long requests under way may take before they are cut.")
    include: str = Field(
        "",
        description="File that Holdfast writes and your proxy's configuration includes, relative to holdfast.toml; its folder"
        " is mounted into the proxy's container (nginx, caddy).",
    )
    container: str = Field(
        "",
        pattern=r"^((docker|podman|compose):[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
        description="Container of your proxy, as `docker:NAME`, or `compose:SERVICE` of the project; else it runs on this"
        " machine (nginx, caddy).",
    )
    config: str = Field(
        "",
        description="Your proxy's configuration file, where the proxy sees it. Default: the program's own (nginx, caddy).",
    )
    check_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="Where visitors come in at your proxy, asked to prove that it follows: a path that leads to the web (nginx, caddy).",
    )
    check_host: str = Field(
        "", description="Name of the site that is asked for at check_url, if another (nginx, caddy)."
    )


class Vault(Section):
    kind: Literal["local"] = Field("local", description="`local`: plain files on a local disk.")
    path: str = Field(description="Folder of this vault alone, best on another disk than the data.")


class Keep(Section):
    last: int = Field(3, ge=1, description="So many of the newest are kept; of whole ones never fewer than three.")
    hourly: int = Field(0, ge=0, description="The newest of each of so many hours.")
    daily: int = Field(0, ge=0, description="The newest of each of so many days.")
    weekly: int = Field(0, ge=0, description="The newest of each of so many weeks.")
    monthly: int = Field(0, ge=0, description="The newest of each of so many months.")
    yearly: int = Field(0, ge=0, description="The newest of each of so many years.")


class References(Section):
    database: Name = Field(description="Database that lists the files.")
    files: Name = Field(description="Files dataset that holds them.")
    query: str = Field(
        description="SELECT of paths below the dataset's folder, and in a second column, if any, their SHA-256."
    )


class Backup(Section):
    consistency: Literal["live", "pause", "quiesce"] = Field(
        "pause", description="How writers are held while databases and files are brought to one instant."
    )
    fallback: Literal["fail", "live"] = Field("fail", description="What to do when that level cannot be reached.")
    pause_limit_seconds: float = Field(5, gt=0, description="Longest time that `pause` may hold writers.")
    code: Literal["archive", "commit", "none"] = Field(
        "archive", description="How the set holds the code of its release."
    )
    config_files: list[str] = Field(
        [],
        description="Files and folders beside holdfast.toml to keep in each set, such as `.env`; datasets in them are not.",
    )
    prove: bool = Field(
        True,
        description="After the first backup of a database, and after its engine, extensions, tables or migrations changed,"
        " `backup create` loads it once beside the live one and drops it, and warns if it cannot be restored.",
    )
    keep: Keep = Field(
        default_factory=lambda: Keep(last=3, daily=7, weekly=4, monthly=6),
        description="What `backup prune` keeps; without it the last 3, and those of 7 days, 4 weeks and 6 months. Pinned"
        " sets, three whole ones, and the data for a rollback to a kept release are kept besides.",
    )
    references: References | None = Field(None, description="Paths stored in the database that must exist in each set.")
    wait_seconds: float = Field(3600, ge=0, description="How long an upgrade waits for a running backup.")


class Migrations(Section):
    kind: Literal["none", "files", "version", "django", "alembic", "doctrine", "rails", "flyway"] = Field(
        "none",
        description="How migrations are known. files: by the names of files in the release; version: by one"
        " version in the database and one in a file of the release, as WordPress and many others have it; django: by its own"
        " list; the others by their own tables and files.",
    )
    database: str = Field("", description="Database that records the applied ones; default: the only one.")
    applied: str = Field(
        "",
        description="SELECT of the names of applied migrations (kind = files), or of the database's version (kind = version).",
    )
    shipped: str = Field(
        "",
        description="Pattern of migration files in the release; their stems are the names (kind = files). The file that has"
        " the version (kind = version)."
        " For alembic, doctrine, rails and flyway another place than their usual one.",
    )
    pattern: str = Field(
        "", description="Regular expression whose one group is the version in that file (kind = version)."
    )
    on_start: bool = Field(
        False,
        description="The web, or its backend, migrates by itself when it starts. What it left undone is found out before its workers start and"
        " before the commit, for such start scripts serve after a failed migration too.",
    )
    compatible: list[str] = Field(
        [], description="Patterns of migrations that the old code tolerates: a rolling upgrade needs it."
    )
    transactional: bool = Field(True, description="False if a migration that fails half-way leaves its changes.")


class Guard(Section):
    may_shrink: list[str] = Field([], description="Tables that an upgrade may empty or drop.")
    budget_seconds: float = Field(
        0.75,
        ge=0,
        description="Time for counting rows before and after a migration, each; visitors wait for it. Small tables come"
        " first; what is not reached is only a warning.",
    )


class Releases(Section):
    path: str = Field(
        "releases", description="Folder of the releases, relative to holdfast.toml; `current` points into it."
    )
    keep: int = Field(3, ge=1, description="Releases and packages kept for a rollback.")


class Upgrade(Section):
    keep_restore_point: str = Field(
        "", pattern=r"^(\d+[hd])?$", description="How long a restore point stays after the commit, as `24h`."
    )
    keep_replaced: str = Field(
        "7d", pattern=r"^\d+[hd]$", description="How long data replaced by a restore or rollback are kept."
    )


class Configuration(Section):
    extends: str = Field(
        "", pattern=r"^(preset:[a-z][a-z0-9-]*)?$", description="Preset to start from, as `preset:django`."
    )
    application: Application = Field(description="Which application this is.")
    source: Source = Field(default_factory=Source, description="Where its code comes from.")
    runtime: Runtime = Field(default_factory=Runtime, description="Where its services run.")
    environment: dict[str, str] = Field(
        {}, description="Environment of all services and tasks; a value may be a secret reference."
    )
    services: dict[Name, Service] = Field({}, description="Its services.")
    tasks: Tasks = Field(default_factory=Tasks, description="Its one-off commands, each a list of words.")
    limits: Limits = Field(default_factory=Limits, description="Time-outs.")
    databases: dict[Name, Database] = Field({}, description="Its databases.")
    files: dict[Name, Files] = Field({}, description="Its trees of files.")
    gate: Gate = Field(default_factory=Gate, description="How visitors are held.")
    vaults: dict[Name, Vault] = Field({}, description="Where backups are kept.")
    backup: Backup = Field(default_factory=Backup, description="What a backup is.")
    migrations: Migrations = Field(default_factory=Migrations, description="How its migrations are known.")
    guard: Guard = Field(default_factory=Guard, description="Checks of the world beside exit codes.")
    releases: Releases = Field(default_factory=Releases, description="Where releases stand.")
    upgrade: Upgrade = Field(default_factory=Upgrade, description="What an upgrade keeps.")

    @field_validator("vaults")
    @classmethod
    def one_vault(cls, value: dict[str, Vault]) -> dict[str, Vault]:
        if len(value) > 1:
            raise ValueError("only one vault is supported")
        return value

    def task_service(self) -> str:
        """Whose image the tasks run in, where they run in containers; empty without services."""
        found = [name for kind in ("backend", "web") for name in self.services if self.service_kind(name) == kind]
        return self.runtime.task_service or next(iter([*found, *self.services]), "")

    def service_kind(self, name: str) -> str:
        return self.services[name].kind or ("web" if name == "web" else "worker")
