"""What runs: the runtime, its services, the one-off commands and their time-outs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field

from holdfast.config.placeholders import unknown_placeholders
from holdfast.config.schema.section import Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


PRESET = "preset:"
TEMPLATES = Path(__file__).parents[2] / "presets" / "templates"
"""The templates of files of services that Holdfast contains."""
_OF_COMPOSE = ("files", "env_files", "profiles", "project", "task_service")


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
            description="Your own Compose command as a list of arguments: `docker compose`, `docker-compose` (1.29, 2)"
            " or `podman-compose` (compose).",
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

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.kind == "compose":
            if self.task_service and self.task_service not in configuration.services:
                return [f"task_service: there is no service {self.task_service!r}"]
            return []
        given = [key for key in _OF_COMPOSE if getattr(self, key)]
        given += ["command"] if self.command != Runtime().command else []
        return [f"{key}: is for kind compose" for key in given]


class Service(Section, frozen=True):
    command: Annotated[
        list[str],
        Meta(
            description="Command as a list of arguments. In every command, {port}, {release}, {root}, {python} and"
            " {php_fpm}, the newest php-fpm of the machine, are replaced; write {{port}} for the plain text {port}."
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
        Literal["web", "backend", "worker", "consumer", "scheduler", "cron", "websocket"] | None,
        Meta(
            description="Order of stop: schedulers, workers, websocket servers, web, backend; start in reverse."
            " backend: a service that the web reaches by itself, for example through a socket in a volume."
            " websocket: a server at a fixed port, of which only one runs at a time. consumer is another word for"
            " worker, cron for scheduler. Default: web for the name `web`, else worker."
        ),
    ] = None
    health: Annotated[
        str, Meta(description="Path that answers 2xx when the web is healthy, requested on its loopback port.")
    ] = ""
    health_contains: Annotated[
        str, Meta(description="Text that this answer must contain, for a web that answers 2xx even without content.")
    ] = ""
    health_answer_seconds: Annotated[float, Meta(gt=0, description="How long this path may take to answer.")] = 5
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
            description="How long a start may take until the service is healthy. A web that answers 500 or 501 from its"
            " first answer on is given up after 3 seconds, or after three times `settle_seconds` if that is longer. An"
            " undo that starts it again waits up to two minutes longer.",
        ),
    ] = 60
    settle_seconds: Annotated[
        float, Meta(ge=0, description="How long a service must stay up with one process to count as started.")
    ] = 1.0
    stop_signal: Annotated[
        Literal["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "KILL"], Meta(description="Signal that stops it.")
    ] = "TERM"
    stop_timeout_seconds: Annotated[int, Meta(gt=0, description="Time to stop; after it the service is killed.")] = 10
    instances: Annotated[
        int,
        Meta(
            ge=1,
            le=99,
            description="How many equal services run, named NAME-1, NAME-2 and so on; NAME means all of them"
            " (supervisor).",
        ),
    ] = 1
    drain: Annotated[
        list[str],
        Meta(
            description="Command in the release that exits with 0 when the service has nothing left to do, such as a"
            " look at its queue. Before an operation stops the service, it is repeated until it does."
        ),
    ] = []
    drain_timeout_seconds: Annotated[float, Meta(gt=0, description="How long an operation waits for that at most.")] = (
        60
    )
    drain_failure: Annotated[
        Literal["warn", "abort"],
        Meta(description="At that limit: `warn`, say so and stop the service; `abort`, undo the operation."),
    ] = "warn"
    user: Annotated[str, Meta(description="Account that it runs as, if Holdfast runs as root.")] = ""
    beside: Annotated[
        bool,
        Meta(
            description="Whether two versions of it can run next to each other in a rolling or source upgrade. Set it"
            " to false for a worker that listens at a fixed port: the new one starts after the old one has stopped."
        ),
    ] = True
    files: Annotated[
        dict[str, str],
        Meta(
            description="Files in the release that are written when it starts, each with its template in the release,"
            " in which the placeholders of commands are replaced, and {env:NAME} by a variable of its environment,"
            " which may be a secret: for programs such as nginx that read their port only from a file. `preset:NAME` is"
            " a template that Holdfast contains. Its account must be able to write there."
        ),
    ] = {}
    environment: Annotated[
        dict[str, str],
        Meta(
            description="Environment; a value may be a secret reference `env:NAME`, `file:PATH`, `command:ARGV` or"
            " `secret:NAME`, which `holdfast secret set` keeps."
        ),
    ] = {}

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        kind, runtime = configuration.service_kind(name), configuration.runtime.kind
        problems = [f"command: {problem}" for problem in unknown_placeholders(self.command)]
        problems += [f"health_command: {problem}" for problem in unknown_placeholders(self.health_command)]
        if runtime == "compose":
            if self.health_command:
                problems.append("health_command: a container has a health check of its own")
            if self.files:
                problems.append("files: is for kind supervisor; the image has the files")
            if self.user:
                problems.append("user: is for kind supervisor; the Compose files set the user")
        else:
            if not self.command:
                problems.append(f"command: is needed for runtime.kind {runtime}")
            if self.port:
                problems.append("port: is for kind compose")
        if kind == "backend" and not any(configuration.services[web].health for web in configuration.webs()):
            problems.append("kind: a backend needs a web with `health`, by which both are asked")
        problems += [f"drain: {problem}" for problem in unknown_placeholders(self.drain, port=False)]
        if self.instances > 1:
            problems += self._problems_of_instances(configuration, name)
        if self.health and kind != "web":
            instead = "a container has a health check of its own" if runtime == "compose" else "use health_command"
            problems.append(f"health: only the web has a port; {instead}")
        for key in ("health_headers", "health_contains"):
            if getattr(self, key) and not self.health:
                problems.append(f"{key}: belongs to the request of `health`, which is not set")
        if not self.beside and kind in ("web", "backend"):
            problems.append("beside: is for workers; a web and its backend always run next to the old ones")
        templates = [text for text in self.files.values() if not text.startswith(PRESET)]
        known = sorted(path.name for path in TEMPLATES.iterdir())
        problems += [
            f"files: there is no template {text!r}; known: {', '.join(PRESET + name for name in known)}"
            for text in self.files.values()
            if text.startswith(PRESET) and text.removeprefix(PRESET) not in known
        ]
        for path in (*self.files, *templates):
            if path.startswith("/") or ".." in path.split("/"):
                problems.append(f"files: {path} is not a path inside the release")
        if self.health and not self.health.startswith("/"):
            problems.append("health: is a path and starts with /")
        return problems

    def _problems_of_instances(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind == "compose":
            return ["instances: is for kind supervisor; write one service for each into the Compose files"]
        kind = configuration.service_kind(name)
        if kind in ("web", "backend", "websocket"):
            return [f"instances: only one of kind {kind} can run, because it has an address"]
        made = [f"{name}-{number}" for number in range(1, self.instances + 1)]
        return [f"instances: there is another service {one}" for one in made if one in configuration.services]


class Task(Section, frozen=True):
    commands: Annotated[
        list[str | list[str]],
        Meta(min_length=1, description="One command as a list of arguments, or a list of commands that run in turn."),
    ]
    user: Annotated[
        str, Meta(description="Account that it runs as, if Holdfast runs as root. Default: `tasks.user`.")
    ] = ""
    timeout_seconds: Annotated[
        float, Meta(ge=0, description="Time for each command. Default: `limits.task_timeout_seconds`.")
    ] = 0
    environment: Annotated[
        dict[str, str],
        Meta(description="More environment; a value may be a secret reference, as in that of a service."),
    ] = {}

    def argvs(self) -> list[list[str]]:
        """Return the commands."""
        words = [one for one in self.commands if isinstance(one, str)]
        return [words] if words else [one for one in self.commands if not isinstance(one, str)]

    def problems(self) -> list[str]:
        return [f"commands: {problem}" for problem in problems_of(self.commands)]


def problems_of(commands: Sequence[str | list[str]]) -> list[str]:
    """Return the problems of one command, or of a list of commands."""
    texts = [isinstance(one, str) for one in commands]
    if any(texts) and not all(texts):
        return ["is one command or a list of commands, not a mixture of both"]
    if any(not one for one in commands if not isinstance(one, str)):
        return ["contains an empty command"]
    words = [word for one in commands for word in ([one] if isinstance(one, str) else one)]
    return unknown_placeholders(words, port=False)


Commands = list[str | list[str]] | Task
"""A key of `[tasks]`: one command, a list of commands, or a table with them and with what they need."""


class Tasks(Section, frozen=True):
    user: Annotated[
        str,
        Meta(
            description="Account that tasks, the console and questions for migrations run as, if Holdfast runs as root."
            " Default: that of the web."
        ),
    ] = ""
    prepare: Annotated[
        Commands,
        Meta(
            description="Runs in the unpacked release while the old one still serves visitors, for what needs no change"
            " of data, such as collecting static files."
        ),
    ] = []
    install: Annotated[Commands, Meta(description="Runs at the first installation, on empty data.")] = []
    migrate: Annotated[Commands, Meta(description="Brings the data to the release.")] = []
    warm_cache: Annotated[Commands, Meta(description="Runs after migrate and before the start.")] = []
    after_rollback: Annotated[
        Commands, Meta(description="Runs in the earlier release at a rollback, before its start.")
    ] = []
    after_start: Annotated[
        Commands,
        Meta(
            description="Runs when visitors are served again, for what need not hold them, after everything that starts"
            " a release. If it fails, the operation goes on, and the warning is recorded."
        ),
    ] = []
    after_restore: Annotated[Commands, Meta(description="Runs after a restore and before the start.")] = []
    after_clone: Annotated[Commands, Meta(description="Runs in the target after a clone.")] = []
    reindex: Annotated[
        Commands,
        Meta(description="Rebuilds the search index; runs after `after_restore`, whenever data was replaced."),
    ] = []
    console: Annotated[list[str], Meta(description="`holdfast console -- ARGS` runs this with ARGS.")] = []
    scripts: Annotated[
        dict[Literal["prepare", "install", "migrate", "warm_cache", "after_restore", "after_clone", "reindex"], str],
        Meta(
            description="Scripts of the release's composer.json that replace a task where it has them, by the key of"
            ' the task, such as `migrate = "upgrade"`.'
        ),
    ] = {}

    def task(self, name: str) -> Task | None:
        """Return a task; None if the application has none of that name."""
        found: list[str | list[str]] | Task = getattr(self, name)
        if isinstance(found, Task):
            return found
        return Task(found) if found else None

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind != "compose":
            return []
        tasks = {key: getattr(self, key) for key in self.__struct_fields__}
        given = ["user"] if self.user else []
        given += [f"{key}.user" for key, task in tasks.items() if isinstance(task, Task) and task.user]
        return [f"{key}: is for kind supervisor; the Compose files set the user" for key in given]

    def problems(self) -> list[str]:
        found = []
        for key in self.__struct_fields__:
            value: object = getattr(self, key)
            if isinstance(value, list):
                found += [f"{key}: {problem}" for problem in problems_of(value)]
        return found


class Limits(Section, frozen=True):
    task_timeout_seconds: Annotated[
        float, Meta(gt=0, description="A task that runs longer is ended, and the operation is undone.")
    ] = 3600
    build_timeout_seconds: Annotated[float, Meta(gt=0, description="The same for each command of a build.")] = 3600
    schedule_stop_seconds: Annotated[
        int, Meta(gt=0, description="How long a stop waits for scheduled tasks in progress; then they are ended.")
    ] = 60
    hook_timeout_seconds: Annotated[
        float, Meta(gt=0, description="A command of a hook that runs longer is ended, and has failed.")
    ] = 600
    console_timeout_seconds: Annotated[
        float, Meta(gt=0, description="A `holdfast console` without a terminal is ended after this time.")
    ] = 3600
