"""Every key of holdfast.toml with its type, default and meaning; the reference page is generated from here."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
Argv = Annotated[list[str], Meta(min_length=1)]


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of holdfast.toml."""

    def problems(self) -> list[str]:
        """Return problems that several keys of this section show together, each as `key: problem`."""
        return []


class Application(Section, frozen=True):
    name: Annotated[Name, Meta(description="Short name of the application; part of paths and messages.")]
    environment: Annotated[Name, Meta(description="Which of its environments this is; it names the overlay file.")] = (
        "production"
    )
    type: Annotated[
        Literal["dev", "stag", "uat", "prod"] | None,
        Meta(
            description="Protection level: which commands are refused. Default: prod for `production`, stag for"
            " `staging`, uat for `uat`, else dev. Sticky: once used it cannot be lowered from prod by editing this"
            " file."
        ),
    ] = None
    state: Annotated[
        str,
        Meta(
            description="Folder of the journal, locks and logs, on a local disk. Default:"
            " /var/lib/holdfast/<name>.<environment>."
        ),
    ] = ""


class PythonSource(Section, frozen=True):
    requirements: Annotated[
        str, Meta(description="Requirements file in the repository; its wheels go into the package.")
    ] = "requirements.txt"
    interpreter: Annotated[str, Meta(description="Interpreter that creates the virtual environment of a release.")] = (
        "python3"
    )


class Source(Section, frozen=True):
    repository: Annotated[str, Meta(description="Path of the git repository, relative to holdfast.toml.")] = "."
    build: Annotated[
        list[Argv], Meta(description="Commands run in the built tree before it is packed; each a list of words.")
    ] = []
    images: Annotated[
        list[Argv],
        Meta(
            description="The project's own commands that build its images, run in a checkout of the commit instead of"
            " `compose build`. Success is judged by the images built; exit codes are ignored (compose)."
        ),
    ] = []
    shared: Annotated[
        dict[str, str],
        Meta(description="Links in each release: path in the release -> path that all releases share."),
    ] = {}
    python: Annotated[
        PythonSource | None, Meta(description="For Python: create a virtual environment `.venv` in each release.")
    ] = None


class Runtime(Section, frozen=True):
    kind: Annotated[
        Literal["supervisor", "compose"],
        Meta(
            description="Where services run. supervisor: supervisord, owned by Holdfast; compose:"
            " containers of a Compose project."
        ),
    ] = "supervisor"
    command: Annotated[
        list[str],
        Meta(
            min_length=1,
            description="Your own Compose command as a list of words: `docker compose`, `docker-compose` (1.29, 2) or"
            " `podman-compose` (compose).",
        ),
    ] = field(default_factory=lambda: ["docker", "compose"])
    files: Annotated[
        list[str],
        Meta(
            description="Compose files, as after `docker compose -f`: from the release if its sources contain them,"
            " else from the folder of holdfast.toml. Default: those that Compose itself uses (compose)."
        ),
    ] = []
    env_files: Annotated[
        list[str],
        Meta(
            description="Files with variables in the folder of holdfast.toml, as after `docker compose --env-file`."
            " Default: `.env` if it exists (compose)."
        ),
    ] = []
    profiles: Annotated[list[str], Meta(description="Active profiles (compose).")] = []
    project: Annotated[
        str, Meta(description="Name of the project. Default: what its files and variables say (compose).")
    ] = ""
    task_service: Annotated[
        str, Meta(description="Service whose image the tasks run in. Default: the backend, else the web (compose).")
    ] = ""


class Service(Section, frozen=True):
    command: Annotated[
        list[str],
        Meta(
            description="Command as a list of words; {port}, {release}, {root} and {python} are replaced."
            " Default in containers: the command of the image."
        ),
    ] = []
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Port that the web listens on in its container. Default: the only one it publishes.",
        ),
    ] = 0
    kind: Annotated[
        Literal["web", "backend", "worker", "scheduler"] | None,
        Meta(
            description="Order of stop: schedulers, workers, web, backend; start in reverse. backend: a service that"
            " the web reaches by itself, for example through a socket in a volume. Default: web for the name `web`,"
            " else worker."
        ),
    ] = None
    health: Annotated[
        str, Meta(description="Path that answers 2xx when the web is healthy, requested on its loopback port.")
    ] = ""
    health_headers: Annotated[
        dict[str, str],
        Meta(
            description="Headers of that request, such as the site's name (`Host`) and what the proxy in front of it"
            " adds (`X-Forwarded-Proto`); else `Host: localhost`."
        ),
    ] = {}
    health_command: Annotated[
        list[str], Meta(description="Command in the release that exits with 0 when the service is healthy.")
    ] = []
    health_timeout_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a start may take until the service is healthy. An undo that starts it again waits up"
            " to two minutes longer.",
        ),
    ] = 60
    settle_seconds: Annotated[
        float, Meta(ge=0, description="How long a service must stay up with one process to count as started.")
    ] = 1.0
    stop_signal: Annotated[
        Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"], Meta(description="Signal that stops it.")
    ] = "TERM"
    stop_timeout_seconds: Annotated[int, Meta(gt=0, description="Time to stop; after it the service is killed.")] = 10
    user: Annotated[str, Meta(description="Account that it runs as, if Holdfast runs as root.")] = ""
    environment: Annotated[
        dict[str, str],
        Meta(description="Environment; a value may be a secret reference `env:NAME`, `file:PATH` or `command:ARGV`."),
    ] = {}


class Tasks(Section, frozen=True):
    install: Annotated[list[str], Meta(description="Runs at the first installation, on empty data.")] = []
    migrate: Annotated[list[str], Meta(description="Brings the data to the release.")] = []
    warm_cache: Annotated[list[str], Meta(description="Runs after migrate and before the start.")] = []
    after_restore: Annotated[list[str], Meta(description="Runs after a restore and before the start.")] = []
    after_clone: Annotated[list[str], Meta(description="Runs in the target after a clone.")] = []
    reindex: Annotated[
        list[str],
        Meta(description="Rebuilds the search index; runs after `after_restore`, whenever data was replaced."),
    ] = []
    console: Annotated[list[str], Meta(description="`holdfast console -- ARGS` runs this with ARGS.")] = []


class Limits(Section, frozen=True):
    task_timeout_seconds: Annotated[
        float, Meta(gt=0, description="A task that runs longer is ended, and the operation is undone.")
    ] = 3600
    build_timeout_seconds: Annotated[float, Meta(gt=0, description="The same for each command of a build.")] = 3600


class Database(Section, frozen=True):
    kind: Annotated[Literal["sqlite", "postgresql", "mariadb", "mysql"], Meta(description="Engine.")]
    path: Annotated[str, Meta(description="The database file, relative to holdfast.toml (sqlite).")] = ""
    name: Annotated[str, Meta(description="Name of the database in its server.")] = ""
    host: Annotated[
        str,
        Meta(
            description="The server's host, or the folder of its socket (postgresql), or the socket itself (mariadb,"
            " mysql). Default: the client's own."
        ),
    ] = ""
    port: Annotated[int, Meta(ge=0, le=65535, description="The server's port. Default: the client's own.")] = 0
    user: Annotated[
        str,
        Meta(
            description="Role that owns the database and may create others: CREATEDB (postgresql),"
            " all privileges on `hf-%` (mariadb, mysql)."
        ),
    ] = ""
    password: Annotated[
        str, Meta(pattern=r"^((env|file|command):.+)?$", description="Secret reference of that role's password.")
    ] = ""
    container: Annotated[
        str,
        Meta(
            pattern=r"^((docker|podman|compose):[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
            description="Container of the server: `docker:NAME`, or `compose:SERVICE` for a service of the Compose"
            " project. Client programs run inside it, so host and port are as seen from there; dumps come out through"
            " a pipe.",
        ),
    ] = ""
    maintenance: Annotated[str, Meta(description="Another database of the server to connect to (postgresql).")] = (
        "postgres"
    )
    jobs: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Parallel jobs of a restore, and of dumps and copies if the engine supports it. For MariaDB"
            " and MySQL, more than one allows up to three dump programs at a time.",
        ),
    ] = 2
    import_from: Annotated[
        list[str],
        Meta(
            description="Folders of this machine, relative to holdfast.toml, in which the application's own scripts"
            " write dumps: `import list` shows them."
        ),
    ] = []
    end_sessions: Annotated[
        bool, Meta(description="End sessions of other clients after the stop, instead of refusing the operation.")
    ] = False

    def problems(self) -> list[str]:
        if self.kind != "sqlite":
            return [] if self.name else [f"name: is needed for kind {self.kind}"]
        found = [] if self.path else ["path: is needed for kind sqlite"]
        if self.container:
            found.append("container: is not for kind sqlite, whose file Holdfast reads itself")
        return found


class Files(Section, frozen=True):
    path: Annotated[str, Meta(description="Folder, relative to holdfast.toml.")] = ""
    volume: Annotated[
        str,
        Meta(
            description="Instead of a path: a named volume, by its name in the Compose files; read in the folder in"
            " which the engine keeps it (compose)."
        ),
    ] = ""
    exclude: Annotated[
        list[str], Meta(description="Shell patterns of files that can be generated again: caches, thumbnails, locks.")
    ] = []

    def problems(self) -> list[str]:
        if self.path or self.volume:
            return []
        return ["path: is missing; name a folder, or a volume of the Compose project as `volume`"]


class Gate(Section, frozen=True):
    kind: Annotated[
        Literal["front", "nginx", "caddy", "none"],
        Meta(
            description="`front`: a small proxy of Holdfast in front of the web; `nginx` or `caddy`: your own proxy,"
            " which includes a file that Holdfast writes."
        ),
    ] = "none"
    listen: Annotated[str, Meta(pattern=r"^\S+:\d{1,5}$", description="Public address of the front, host:port.")] = (
        "127.0.0.1:8000"
    )
    message: Annotated[str, Meta(description="Text of the maintenance page.")] = ""
    template: Annotated[
        str, Meta(description="Your own maintenance page: HTML with $message, $comment and $retry_after_seconds.")
    ] = ""
    drain_seconds: Annotated[
        float, Meta(ge=0, description="How long running requests may take before they are cut off.")
    ] = 10
    include: Annotated[
        str,
        Meta(
            description="File that Holdfast writes and your proxy's configuration includes, relative to holdfast.toml;"
            " its folder is mounted into the proxy's container (nginx, caddy)."
        ),
    ] = ""
    container: Annotated[
        str,
        Meta(
            pattern=r"^((docker|podman|compose):[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
            description="Container of your proxy: `docker:NAME`, or `compose:SERVICE` of the project. Default: it runs"
            " on this machine (nginx, caddy).",
        ),
    ] = ""
    config: Annotated[
        str,
        Meta(
            description="Your proxy's configuration file, as a path that the proxy sees. Default:"
            " the program's own (nginx, caddy)."
        ),
    ] = ""
    check_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://\S+)?$",
            description="URL that Holdfast requests to verify that your proxy obeys it:"
            " a path that your proxy sends to the web (nginx, caddy).",
        ),
    ] = ""
    check_host: Annotated[
        str, Meta(description="`Host` header of the request to check_url, if it differs (nginx, caddy).")
    ] = ""


class Vault(Section, frozen=True, kw_only=True):
    kind: Annotated[Literal["local"], Meta(description="`local`: plain files on a local disk.")] = "local"
    path: Annotated[str, Meta(description="Folder only for this vault, preferably on another disk than the data.")]


class Keep(Section, frozen=True):
    last: Annotated[
        int, Meta(ge=1, description="Keep this many of the newest, and never fewer than three whole ones.")
    ] = 3
    hourly: Annotated[int, Meta(ge=0, description="Keep the newest of each of this many hours.")] = 0
    daily: Annotated[int, Meta(ge=0, description="Keep the newest of each of this many days.")] = 0
    weekly: Annotated[int, Meta(ge=0, description="Keep the newest of each of this many weeks.")] = 0
    monthly: Annotated[int, Meta(ge=0, description="Keep the newest of each of this many months.")] = 0
    yearly: Annotated[int, Meta(ge=0, description="Keep the newest of each of this many years.")] = 0


class References(Section, frozen=True):
    database: Annotated[Name, Meta(description="Database that lists the files.")]
    files: Annotated[Name, Meta(description="Files dataset that holds them.")]
    query: Annotated[
        str,
        Meta(description="SELECT of paths below the dataset's folder; an optional second column has their SHA-256."),
    ]


class Backup(Section, frozen=True):
    consistency: Annotated[
        Literal["live", "pause", "quiesce"],
        Meta(description="How writers are held while databases and files are brought to one instant."),
    ] = "pause"
    fallback: Annotated[Literal["fail", "live"], Meta(description="What to do when that level cannot be reached.")] = (
        "fail"
    )
    pause_limit_seconds: Annotated[float, Meta(gt=0, description="Longest time that `pause` may hold writers.")] = 5
    code: Annotated[
        Literal["archive", "commit", "none"], Meta(description="How a backup stores the code of its release.")
    ] = "archive"
    config_files: Annotated[
        list[str],
        Meta(
            description="Files and folders next to holdfast.toml to store in each backup, such as `.env`,"
            " without datasets in them."
        ),
    ] = []
    prove: Annotated[
        bool,
        Meta(
            description="After the first backup of a database, and after its engine, extensions, tables or migrations"
            " changed, `backup create` loads it once as a candidate database, drops it, and warns if it cannot be"
            " restored."
        ),
    ] = True
    keep: Annotated[
        Keep,
        Meta(
            description="What `backup prune` keeps. Default: the last 3, and those of 7 days, 4 weeks and 6 months."
            " Pinned backups, three whole ones, and the data for a rollback to a kept release are also kept."
        ),
    ] = field(default_factory=lambda: Keep(last=3, daily=7, weekly=4, monthly=6))
    references: Annotated[
        References | None, Meta(description="Paths stored in the database that must exist in each backup.")
    ] = None
    wait_seconds: Annotated[float, Meta(ge=0, description="How long an upgrade waits for a running backup.")] = 3600


class Migrations(Section, frozen=True):
    kind: Annotated[
        Literal["none", "files", "version", "django", "alembic", "doctrine", "rails", "flyway"],
        Meta(
            description="How Holdfast lists migrations. files: by the names of files in the release; version: by one"
            " version in the database and one in a file of the release, as WordPress and many others do it; django: by"
            " its own command; the others: by their own tables and files."
        ),
    ] = "none"
    database: Annotated[
        str, Meta(description="Database that records the applied migrations. Default: the only one.")
    ] = ""
    applied: Annotated[
        str,
        Meta(
            description="SELECT of the names of applied migrations (kind = files), or of the database's version (kind"
            " = version)."
        ),
    ] = ""
    shipped: Annotated[
        str,
        Meta(
            description="Pattern of migration files in the release; their stems are the names (kind = files). The file"
            " that has the version (kind = version). For alembic, doctrine, rails and flyway: the pattern, if it is"
            " not their usual one."
        ),
    ] = ""
    pattern: Annotated[
        str, Meta(description="Regular expression whose one group is the version in that file (kind = version).")
    ] = ""
    on_start: Annotated[
        bool,
        Meta(
            description="The web, or its backend, migrates by itself when it starts. Holdfast looks for missing"
            " migrations before workers start and before the commit, because such start scripts serve even after a"
            " failed migration."
        ),
    ] = False
    compatible: Annotated[
        list[str], Meta(description="Patterns of migrations that the old code tolerates; a rolling upgrade needs them.")
    ] = []
    transactional: Annotated[bool, Meta(description="False if a migration that fails half-way leaves its changes.")] = (
        True
    )


class Guard(Section, frozen=True):
    may_shrink: Annotated[list[str], Meta(description="Tables that an upgrade may empty or drop.")] = []
    budget_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="Time for counting rows, once before and once after a migration; visitors wait for it. Small"
            " tables come first; a table that is not counted gives only a warning.",
        ),
    ] = 0.75


class Releases(Section, frozen=True):
    path: Annotated[
        str, Meta(description="Folder of the releases, relative to holdfast.toml; `current` points into it.")
    ] = "releases"
    keep: Annotated[int, Meta(ge=1, description="Releases and packages kept for a rollback.")] = 3


class Upgrade(Section, frozen=True):
    keep_restore_point: Annotated[
        str,
        Meta(pattern=r"^(\d+[hd])?$", description="How long to keep a restore point after the commit, such as `24h`."),
    ] = ""
    keep_replaced: Annotated[
        str,
        Meta(
            pattern=r"^\d+[hd]$",
            description="How long to keep data that a restore, rollback, import or clone replaced.",
        ),
    ] = "7d"


class Configuration(Section, frozen=True, kw_only=True):
    extends: Annotated[
        str, Meta(pattern=r"^(preset:[a-z][a-z0-9-]*)?$", description="Preset to start from, such as `preset:django`.")
    ] = ""
    application: Annotated[Application, Meta(description="Which application this is.")]
    source: Annotated[Source, Meta(description="Where its code comes from.")] = field(default_factory=Source)
    runtime: Annotated[Runtime, Meta(description="Where its services run.")] = field(default_factory=Runtime)
    environment: Annotated[
        dict[str, str], Meta(description="Environment of all services and tasks; a value may be a secret reference.")
    ] = {}
    services: Annotated[dict[Name, Service], Meta(description="Its services.")] = {}
    tasks: Annotated[Tasks, Meta(description="Its one-off commands, each a list of words.")] = field(
        default_factory=Tasks
    )
    limits: Annotated[Limits, Meta(description="Time-outs.")] = field(default_factory=Limits)
    databases: Annotated[dict[Name, Database], Meta(description="Its databases.")] = {}
    files: Annotated[dict[Name, Files], Meta(description="Its trees of files.")] = {}
    gate: Annotated[Gate, Meta(description="How visitors are held during maintenance.")] = field(default_factory=Gate)
    vaults: Annotated[dict[Name, Vault], Meta(description="Where backups are kept.")] = {}
    backup: Annotated[Backup, Meta(description="What a backup contains, and which backups are kept.")] = field(
        default_factory=Backup
    )
    migrations: Annotated[Migrations, Meta(description="How its migrations are listed.")] = field(
        default_factory=Migrations
    )
    guard: Annotated[Guard, Meta(description="Row counts before and after a migration.")] = field(default_factory=Guard)
    releases: Annotated[Releases, Meta(description="Where releases are kept.")] = field(default_factory=Releases)
    upgrade: Annotated[Upgrade, Meta(description="What an upgrade keeps.")] = field(default_factory=Upgrade)

    def problems(self) -> list[str]:
        return ["vaults: only one vault is supported"] if len(self.vaults) > 1 else []

    def task_service(self) -> str:
        """Return the service whose image the tasks run in, if they run in containers; empty without services."""
        found = [name for kind in ("backend", "web") for name in self.services if self.service_kind(name) == kind]
        return self.runtime.task_service or next(iter([*found, *self.services]), "")

    def service_kind(self, name: str) -> str:
        return self.services[name].kind or ("web" if name == "web" else "worker")
