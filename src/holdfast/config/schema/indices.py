"""The search indices of the application, which are made from its databases."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from holdfast.config import kinds
from holdfast.config.schema.section import Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration

    IndexKind = str  # which ones, the table of drivers says
else:
    IndexKind = Literal[tuple(kinds.INDICES)]

_LOOPBACK = r"http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?/?$"
_SECRET = r"^((env|file|command):.+)?$"


class Index(Section, frozen=True):
    kind: Annotated[IndexKind, Meta(description="Search server: Elasticsearch 6 to 9, or OpenSearch.")]
    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9._-]{0,120}$",
            description="Name by which the application reads and writes: an alias of one index. With an index instead"
            " of an alias, Holdfast can only run the application's own rebuild.",
            extra={"expected": "at most 121 lower-case letters, digits, ., - and _, no sign first"},
        ),
    ]
    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/@]+/?$",
            description="Address of the server, without an account. http:// is for this machine only.",
            extra={"expected": "a URL such as https://search.example:9200, without account and path"},
        ),
    ] = "http://127.0.0.1:9200"
    user: Annotated[str, Meta(description="Account for basic authentication.")] = ""
    password: Annotated[
        str,
        Meta(
            pattern=_SECRET,
            description="Secret reference of that account's password.",
            extra={"expected": "env:NAME, file:PATH or command:ARGV"},
        ),
    ] = ""
    api_key: Annotated[
        str,
        Meta(
            pattern=_SECRET,
            description="Instead of an account: secret reference of an API key, in its encoded form.",
            extra={"expected": "env:NAME, file:PATH or command:ARGV"},
        ),
    ] = ""
    ca: Annotated[
        str,
        Meta(description="File with the certificate authority of the server, relative to holdfast.toml."),
    ] = ""
    content: Annotated[
        Literal["rebuild", "snapshot"],
        Meta(
            description="`rebuild`: backups have nothing of the index; the application builds it again after its data"
            " went back. `snapshot`: backups have a snapshot of it in a repository of the server."
        ),
    ] = "rebuild"
    rebuild: Annotated[
        list[str],
        Meta(
            description="Command that builds the index again. With {index} in it, it builds the index of that name,"
            " and Holdfast moves the alias to it when it is complete. Default: `tasks.reindex`."
        ),
    ] = []
    repository: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$",
            description="Name of the snapshot repository in the server (snapshot).",
            extra={"expected": "at most 61 lower-case letters, digits, - and _"},
        ),
    ] = "holdfast"
    repository_type: Annotated[
        Literal["", "fs", "s3"],
        Meta(
            description="Type with which Holdfast registers the repository: `fs` is a folder below the server's"
            " `path.repo`. Empty: somebody else has registered it."
        ),
    ] = ""
    repository_settings: Annotated[
        dict[str, str],
        Meta(
            description="Settings of that repository, such as `location` (fs) or `bucket` (s3). Keys of S3 belong into"
            " the server's keystore."
        ),
    ] = {}
    timeout_seconds: Annotated[
        float, Meta(gt=0, description="How long a snapshot, a restore or a copy of the index may take.")
    ] = 3600

    def problems(self) -> list[str]:
        found = []
        if self.url.startswith("http://") and not re.match(_LOOPBACK, self.url):
            found.append("url: must begin with https:// for a server on another machine")
        if self.ca and not self.url.startswith("https://"):
            found.append("ca: is for a url with https://")
        if self.api_key and (self.user or self.password):
            found.append("api_key: contradicts user and password")
        if bool(self.user) != bool(self.password):
            found.append("user: needs a password, and a password needs a user")
        if self.repository_settings and not self.repository_type:
            found.append("repository_settings: is for a repository with a repository_type")
        if self.repository_type and self.content != "snapshot":
            found.append("repository_type: is for content snapshot")
        needed = {"fs": "location", "s3": "bucket"}.get(self.repository_type)
        if needed is not None and needed not in self.repository_settings:
            found.append(f"repository_settings: {needed} is missing for a repository of type {self.repository_type}")
        return found

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.content == "rebuild" and not self.rebuild and configuration.tasks.task("reindex") is None:
            return ["rebuild: is missing, and there is no tasks.reindex; one of them must build the index"]
        return []
