"""The data of the application: databases and trees of files."""

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field

from holdfast.config import kinds
from holdfast.config.schema.section import SecretReference, Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration

    DatabaseKind = str  # which ones, the table of drivers says
else:
    DatabaseKind = Literal[tuple(kinds.DATABASES)]

RestorePoint = Literal["auto", "copy", "log"]


class Database(Section, frozen=True):
    kind: Annotated[DatabaseKind, Meta(description="Engine.")]
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
    password: Annotated[SecretReference, Meta(description="Secret reference of that role's password.")] = ""
    container: Annotated[
        str,
        Meta(
            pattern=r"^((docker|podman|compose):[A-Za-z0-9][A-Za-z0-9_.-]*)?$",
            extra={"expected": "docker:NAME, podman:NAME or compose:SERVICE"},
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
    discover: Annotated[
        str,
        Meta(
            description="Query whose first column names further databases of the same server that belong to the"
            " application, such as `SELECT dbname FROM sbas`. Each is a dataset of its own, with the settings of this"
            " section and a name that begins with this one's; it is asked at each command, so that no new one is"
            " forgotten."
        ),
    ] = ""
    discovered_by: Annotated[
        str, Meta(description="Not for you: the section whose `discover` found this database.")
    ] = ""
    restore_point: Annotated[
        RestorePoint,
        Meta(
            description="How an upgrade's restore point is made (postgresql with `container`): `copy` in the window;"
            " `log`, a base backup before it and a point in the server's log, if the server belongs to this"
            " application alone; `auto` is `log` from 2 GiB on."
        ),
    ] = "copy"
    end_sessions: Annotated[
        bool, Meta(description="End sessions of other clients after the stop, instead of refusing the operation.")
    ] = False

    def problems(self) -> list[str]:
        if self.kind != "sqlite":
            return [] if self.name else [f"name: is needed for kind {self.kind}"]
        found = [] if self.path else ["path: is needed for kind sqlite"]
        if self.discover:
            found.append("discover: is for the databases of a server")
        if self.container:
            found.append("container: is not for kind sqlite, whose file Holdfast reads itself")
        return found

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind != "compose" and self.container.startswith("compose:"):
            return [f"container: {self.container} is for runtime.kind compose"]
        return []


_TYPES: tuple[str, ...] = ("css", "gif", "ico", "jp2", "jpeg", "jpg", "js", "jxr", "mp4", "pdf", "png", "rtf")
_TYPES += ("scss", "svg", "ttf", "webp", "woff", "woff2", "xml")


class Uploads(Section, frozen=True):
    folders: Annotated[
        list[str],
        Meta(
            description="Folders of the dataset into which `media upload` may write, with those in them. Default: all."
        ),
    ] = []
    types: Annotated[
        list[str],
        Meta(description="Types of files that may be uploaded, as their names end; the content must be of that type."),
    ] = field(default_factory=lambda: list(_TYPES))

    def problems(self) -> list[str]:
        wrong = [one for one in self.folders if one.startswith("/") or {"", ".", ".."} & {*one.split("/")}]
        found = [f"folders: {one!r} is not a path below the dataset" for one in wrong]
        return found + [
            f"types: {one!r} is not the end of a name, such as jpg" for one in self.types if not one.isalnum()
        ]


class Files(Section, frozen=True):
    path: Annotated[str, Meta(description="Folder, relative to holdfast.toml.")] = ""
    volume: Annotated[
        str,
        Meta(
            description="Instead of a path: a named volume, by its name in the Compose files; read in the folder in"
            " which the engine keeps it (compose)."
        ),
    ] = ""
    uploads: Annotated[Uploads, Meta(description="What `media upload` accepts.")] = field(default_factory=Uploads)
    exclude: Annotated[
        list[str], Meta(description="Shell patterns of files that can be generated again: caches, thumbnails, locks.")
    ] = []

    def problems(self) -> list[str]:
        if self.path or self.volume:
            return []
        return ["path: is missing; name a folder, or a volume of the Compose project as `volume`"]

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if configuration.runtime.kind != "compose" and self.volume:
            return ["volume: is for runtime.kind compose"]
        return []
