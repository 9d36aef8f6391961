"""Message queues of the application, which `holdfast queue` shows and changes."""

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from holdfast.config.schema.section import Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


class Queues(Section, frozen=True):
    kind: Annotated[
        Literal["rabbitmq", "redis", "table"],
        Meta(description="rabbitmq: by AMQP; redis: lists; table: rows of one of the databases."),
    ]
    url: Annotated[
        str,
        Meta(
            description="Address of the broker, such as `redis://127.0.0.1:6379/0`; a secret reference where it has a"
            " password (rabbitmq, redis)."
        ),
    ] = ""
    names: Annotated[list[str], Meta(description="The queues (rabbitmq, redis).")] = []
    database: Annotated[str, Meta(description="Database with the rows (table).")] = ""
    count: Annotated[str, Meta(description="SELECT of the names of queues and how many messages wait (table).")] = ""
    peek: Annotated[
        str,
        Meta(description="SELECT of id and body of waiting messages, the oldest first; {queue} is the name (table)."),
    ] = ""
    purge: Annotated[str, Meta(description="DELETE of the waiting messages of {queue} (table).")] = ""
    reroute: Annotated[str, Meta(description="UPDATE that moves waiting messages of {queue} to {target} (table).")] = ""

    def problems(self) -> list[str]:
        if self.kind == "table":
            return [f"{key}: is needed for kind table" for key in ("database", "count") if not getattr(self, key)]
        needed = [key for key in ("url", "names") if not getattr(self, key)]
        return [f"{key}: is needed for kind {self.kind}" for key in needed]

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.database and self.database not in configuration.databases:
            return [f"database: there is no database {self.database!r}"]
        return []
