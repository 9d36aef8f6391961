"""Sanitized backups: where their rules are, and how their files are written."""

from typing import Annotated, Literal

from msgspec import Meta

from holdfast.config.schema.section import SecretReference, Section


class Sanitize(Section, frozen=True):
    rules: Annotated[
        str,
        Meta(
            description="File with the rules, relative to holdfast.toml. Beside it, the file of the same name that ends"
            " in .lock has the decision for each column."
        ),
    ] = "sanitize.toml"
    key: Annotated[
        SecretReference,
        Meta(
            description="Secret reference of the key of all digests. Default: sanitize.key in the state directory, made"
            " with the first sanitized backup."
        ),
    ] = ""
    compression: Annotated[
        Literal["gz", "zst"], Meta(description="Compression of the dumps: gzip, or the faster zstd.")
    ] = "gz"
    encrypt_to: Annotated[
        list[str],
        Meta(description="Public keys of age (age1...) of those who may read the dumps. Default: not encrypted."),
    ] = []
    jobs: Annotated[
        int, Meta(ge=1, le=16, description="Tables that are read at the same time, where the engine allows it.")
    ] = 2

    def problems(self) -> list[str]:
        return [f"encrypt_to: {one!r} is not a public key of age" for one in self.encrypt_to if one[:4] != "age1"]
