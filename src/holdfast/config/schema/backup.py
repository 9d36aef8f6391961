"""Backups: the vaults, what a backup contains, and which ones are kept."""

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field

from holdfast.config.schema.section import Name, Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


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

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        problems = []
        if self.database not in configuration.databases:
            problems.append(f"database: there is no database {self.database!r}")
        if self.files not in configuration.files:
            problems.append(f"files: there is no files dataset {self.files!r}")
        return problems


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
            " without datasets in them. One that is missing fails a backup, but not the first `install`, which may"
            " write it."
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
