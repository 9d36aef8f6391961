"""Hooks: commands of the operator and of the application that run around operations, and are no part of the change."""

from typing import TYPE_CHECKING, Annotated, Literal, get_args

from msgspec import Meta

from holdfast.config.schema.section import Section
from holdfast.config.schema.services import Task, problems_of

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration

HookName = Literal[
    "before_build",
    "after_build",
    "pre_upgrade",
    "pre_maintenance",
    "post_maintenance",
    "post_upgrade",
    "before_backup",
    "after_backup",
    "after_restore",
    "after_clone",
    "on_failure",
]
"""A key of `[hooks]`."""

BEFORE: tuple[HookName, ...] = ("before_build", "after_build", "pre_upgrade", "pre_maintenance", "before_backup")
"""The hooks whose failure can still end the operation, because nothing is committed yet."""
OF_MACHINE: tuple[HookName, ...] = ("before_build", "after_build")
"""The hooks that always run on this machine, where packages are built."""
OF_OPERATOR: tuple[HookName, ...] = (*OF_MACHINE, "on_failure")
"""The hooks that a release's own holdfast.toml cannot set."""


class Hook(Task, frozen=True):
    timeout_seconds: Annotated[
        float, Meta(ge=0, description="Time for each command. Default: `limits.hook_timeout_seconds`.")
    ] = 0
    where: Annotated[
        Literal["application", "machine"] | None,
        Meta(
            description="`application`: like a task, in the release, in containers as a one-off container. `machine`:"
            " on this machine, in the folder of holdfast.toml, as the account of Holdfast. Default: application;"
            " `before_build` and `after_build` always run on the machine."
        ),
    ] = None
    failure: Annotated[
        Literal["abort", "warn"] | None,
        Meta(
            description="What a command that fails does. `abort`: the operation is undone. `warn`: it goes on, and the"
            " warning is recorded. Default: abort, and warn for hooks after the commit or after a failure, for which"
            " nothing else is possible."
        ),
    ] = None

    def on_machine(self, name: HookName) -> bool:
        """Return whether the commands run on this machine and not as those of the application."""
        return name in OF_MACHINE or self.where == "machine"

    def aborts(self, name: HookName) -> bool:
        """Return whether a command that fails ends the operation."""
        return name in BEFORE and self.failure != "warn"


HookCommands = list[str | list[str]] | Hook
"""A key of `[hooks]`: one command, a list of commands, or a table with them and with what they need."""


class Hooks(Section, frozen=True):
    before_build: Annotated[HookCommands, Meta(description="Runs before a package is built.")] = []
    after_build: Annotated[HookCommands, Meta(description="Runs after a package was built.")] = []
    pre_upgrade: Annotated[
        HookCommands,
        Meta(description="Runs in the new release after its migrations were compared, before the backup."),
    ] = []
    pre_maintenance: Annotated[
        HookCommands,
        Meta(description="Runs in the new release just before an upgrade closes the gate (maintenance mode)."),
    ] = []
    post_maintenance: Annotated[
        HookCommands,
        Meta(
            description="Runs just after an upgrade opened the gate (maintenance mode). If it is set, workers and"
            " schedulers start after it."
        ),
    ] = []
    post_upgrade: Annotated[
        HookCommands, Meta(description="Runs after an upgrade, when everything of the new release runs.")
    ] = []
    before_backup: Annotated[HookCommands, Meta(description="Runs before `backup create`.")] = []
    after_backup: Annotated[HookCommands, Meta(description="Runs after `backup create`, even if it failed.")] = []
    after_restore: Annotated[
        HookCommands, Meta(description="Runs after a restore, import or rollback with data, when visitors are served.")
    ] = []
    after_clone: Annotated[
        HookCommands, Meta(description="Runs in the target after a clone, when visitors are served.")
    ] = []
    on_failure: Annotated[
        HookCommands,
        Meta(description="Runs after an operation failed and was undone, when the old version serves again."),
    ] = []

    def hook(self, name: HookName) -> Hook | None:
        """Return a hook; None if the application has none of that name."""
        found: list[str | list[str]] | Hook = getattr(self, name)
        if isinstance(found, Hook):
            return found
        return Hook(found) if found else None

    def problems(self) -> list[str]:
        found = []
        for key in self.__struct_fields__:
            value: object = getattr(self, key)
            if isinstance(value, list):
                found += [f"{key}: {problem}" for problem in problems_of(value)]
            elif isinstance(value, Hook):
                if value.failure == "abort" and key not in BEFORE:
                    found.append(f"{key}.failure: nothing can be undone any more at {key}; it can only warn")
                if value.where == "application" and key in OF_MACHINE:
                    found.append(f"{key}.where: {key} runs on the machine on which packages are built")
        return found

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind != "compose":
            return []
        problems = []
        for key in get_args(HookName):
            hook = getattr(self, key)
            if isinstance(hook, Hook) and hook.user and not hook.on_machine(key):
                problems.append(f"{key}.user: is for kind supervisor; the Compose files set the user")
        return problems
