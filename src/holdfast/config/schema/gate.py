"""The gate, which holds visitors during maintenance."""

import os
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, field

from holdfast.config.schema.section import Name, Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration


_OF_PROXIES = ("include", "container", "config", "check_url", "check_host")


def _loopback() -> list[str]:
    # Whoever runs a program on this machine can reach the web without the front.
    return ["127.0.0.0/8", "::1"]


class Switch(Section, frozen=True):
    kind: Annotated[
        Literal["yaml", "file", "command"],
        Meta(
            description="What is switched when the gate closes: `yaml` sets keys of a file, `file` writes one,"
            " `command` runs one."
        ),
    ]
    path: Annotated[str, Meta(description="The file, relative to holdfast.toml (yaml, file).")] = ""
    set: Annotated[
        dict[str, str],
        Meta(
            description="Values while the gate is closed, each as YAML, by their keys such as `main.logs`; after it the"
            " file is byte for byte what it was. The application must still answer its health check with them (yaml)."
        ),
    ] = {}
    announce: Annotated[
        dict[str, str],
        Meta(
            description="Values while an announcement of `maintenance announce` is shown; {text} is its text, quoted"
            " (yaml)."
        ),
    ] = {}
    content: Annotated[str, Meta(description="Content of the file (file).")] = ""
    on: Annotated[list[str], Meta(description="Command when the gate has closed, in the release (command).")] = []
    off: Annotated[list[str], Meta(description="Command before the gate opens, in the release (command).")] = []
    after: Annotated[
        list[str],
        Meta(description="Command after each change, in the release, such as one that clears a cache (yaml, file)."),
    ] = []

    def problems(self) -> list[str]:
        wanted = {"yaml": ("path",), "file": ("path",), "command": ("on", "off")}[self.kind]
        found = [f"{key}: is needed for kind {self.kind}" for key in wanted if not getattr(self, key)]
        allowed = {"yaml": ("path", "set", "announce", "after"), "file": ("path", "content", "after")}
        others = {"path", "set", "announce", "content", "on", "off", "after"} - {*allowed.get(self.kind, wanted)}
        found += [f"{key}: is not for kind {self.kind}" for key in sorted(others) if getattr(self, key)]
        if self.kind == "yaml" and not (self.set or self.announce):
            found.append("set: is needed for kind yaml, or announce")
        return found

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.kind != "yaml":
            return []
        path = os.path.normpath(self.path)
        inside = [
            one for one, item in configuration.files.items() if path.startswith(f"{os.path.normpath(item.path)}/")
        ]
        return [f"path: is in files.{one}; name the file in backup.config_files instead" for one in inside]


class Gate(Section, frozen=True):
    kind: Annotated[
        Literal["front", "nginx", "caddy", "none"],
        Meta(
            description="`front`: a small proxy of Holdfast in front of the web; `nginx` or `caddy`: your own proxy,"
            " which includes a file that Holdfast writes."
        ),
    ] = "none"
    listen: Annotated[
        str,
        Meta(
            pattern=r"^\S+:\d{1,5}$",
            description="Public address of the front, host:port.",
            extra={"expected": "HOST:PORT, such as 127.0.0.1:8000"},
        ),
    ] = "127.0.0.1:8000"
    message: Annotated[str, Meta(description="Text of the maintenance page.")] = ""
    template: Annotated[
        str,
        Meta(
            description="Your own maintenance page: HTML with $message, $comment, $until, $retry_after_seconds and"
            " $refresh_seconds."
        ),
    ] = ""
    pages: Annotated[
        str,
        Meta(
            description="Folder in the release, or else next to holdfast.toml, with your own pages: `503.HOST.html`,"
            " `503.html`, and `502` likewise for a web that does not answer. They come before `template`. nginx and"
            " caddy show `503.html` to all hosts."
        ),
    ] = ""
    drain_seconds: Annotated[
        float, Meta(ge=0, description="How long running requests may take before they are cut off.")
    ] = 10
    trusted_proxies: Annotated[
        list[str],
        Meta(
            description="Addresses and networks of proxies in front of the front, whose `X-Forwarded-*` and `Forwarded`"
            " header lines it passes on to the web; those of other visitors are dropped (front)."
        ),
    ] = field(default_factory=_loopback)
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
            extra={"expected": "docker:NAME, podman:NAME or compose:SERVICE"},
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
            extra={"expected": "a URL that begins with http:// or https://"},
            description="URL that Holdfast requests to verify that your proxy obeys it:"
            " a path that your proxy sends to the web (nginx, caddy).",
        ),
    ] = ""
    check_host: Annotated[
        str, Meta(description="`Host` header of the request to check_url, if it differs (nginx, caddy).")
    ] = ""
    switches: Annotated[
        dict[Name, Switch],
        Meta(description="What else is switched with the gate, of any kind: the application's own maintenance mode."),
    ] = {}

    def _wrong_networks(self) -> list[str]:
        if self.trusted_proxies == _loopback():
            return []
        import ipaddress

        problems = []
        for each in self.trusted_proxies:
            try:
                ipaddress.ip_network(each, strict=False)
            except ValueError:
                problems.append(f"trusted_proxies: {each!r} is not an address or network, such as 10.0.0.0/8")
        return problems

    def problems(self) -> list[str]:
        outside = self.pages.startswith("/") or ".." in self.pages.split("/")
        return [f"pages: {self.pages} is not a path inside the release"] if outside else []

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.kind in ("front", "none"):
            problems = [f"{key}: is for kinds nginx and caddy" for key in _OF_PROXIES if getattr(self, key)]
            problems += self._wrong_networks()
            if self.kind == "front" and configuration.services and not configuration.webs():
                problems.append("kind: the front needs a service of kind web")
            return problems
        problems = [
            f"{key}: is needed for kind {self.kind}" for key in ("include", "check_url") if not getattr(self, key)
        ]
        if self.container and configuration.runtime.kind != "compose":
            problems.append("container: can only send visitors to containers, so it needs runtime.kind compose")
        return problems
