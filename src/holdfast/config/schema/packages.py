"""Packages: the registry that the environments of a project share."""

import re
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from holdfast.config.schema.section import SecretReference, Section

if TYPE_CHECKING:
    from holdfast.config.schema.configuration import Configuration

_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_URL = re.compile(rf"(https?)://([A-Za-z0-9.:\[\]-]+)/({_PART}(?:/{_PART})*)")
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")


class Registry(Section, frozen=True):
    url: Annotated[
        str,
        Meta(
            description="Address of an OCI registry and a repository in it, such as"
            " `https://registry.example.org/shop/packages`; plain http only on the loopback interface."
        ),
    ]
    user: Annotated[str, Meta(description="Account there; empty for none.")] = ""
    password: Annotated[SecretReference, Meta(description="Secret reference of its password or token.")] = ""
    ca: Annotated[
        str, Meta(description="File with the certificates of an authority of your own, relative to holdfast.toml.")
    ] = ""
    push: Annotated[
        bool, Meta(description="Push each package that `package build` and `upgrade` make; `--no-push` does not.")
    ] = True
    timeout_seconds: Annotated[
        float, Meta(gt=0, description="Limit for each answer of the registry, and each pause within one.")
    ] = 30

    def parts(self) -> tuple[str, str, str]:
        """Return scheme, host and repository of a valid address."""
        found = _URL.fullmatch(self.url)
        assert found is not None
        return found[1], found[2], found[3]

    def problems(self) -> list[str]:
        found = _URL.fullmatch(self.url)
        if found is None:
            return ["url: expected https://HOST/REPOSITORY, the repository in lower-case letters"]
        if found[1] == "http" and not _LOOPBACK.fullmatch(found[2]):
            return ["url: plain http is accepted on the loopback interface only; use https"]
        return ["user: needs a password"] if self.user and not self.password else []


class Packages(Section, frozen=True):
    registry: Annotated[
        Registry | None, Meta(description="Registry in which all environments of the project share packages.")
    ] = None

    def problems_with(self, configuration: "Configuration", name: str) -> list[str]:
        if self.registry is not None and self.registry.ca and self.registry.url.startswith("http:"):
            return ["registry.ca: is for https"]
        return []
