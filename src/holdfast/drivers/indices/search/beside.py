"""The indices of one dataset in its server: the live one, candidates and replaced ones.

An index next to the live one has an alias that begins with `hf-` and ends with a token, so that a swap moves the
application's alias and the tokens in one request, which the server makes durable. A candidate that is not complete has
no alias yet; its name begins with the same letters.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Callable, Sequence

import msgspec

from holdfast.drivers.indices.search.client import JsonObject, SearchClient
from holdfast.errors import RefusedError, StepError

_RANDOM_BYTES = 4
_BLOCKED = ".block"
_BUILT = "built"


def digest_of(owner: str, alias: str) -> str:
    """Return what tells the indices and snapshots of one environment from those of every other one."""
    return hashlib.sha256(f"{owner}\n{alias}".encode()).hexdigest()


class FoundIndex(msgspec.Struct, frozen=True):
    """One index as the server has it; `aliases` are their properties by name."""

    name: str
    identity: str
    aliases: dict[str, JsonObject]


class _Inner(msgspec.Struct):
    uuid: str


class _Settings(msgspec.Struct):
    index: _Inner


class _Described(msgspec.Struct):
    settings: _Settings
    aliases: dict[str, JsonObject] = {}


class Beside:
    """Everything that belongs to one alias of the application."""

    def __init__(self, section: str, alias: str, owner: str, client: SearchClient) -> None:
        self._section = section
        self.alias = alias
        self._client = client
        self.prefix = f"hf-{digest_of(owner, alias)[:10]}-"

    # --- what there is -----------------------------------------------------------------------------

    def found(self) -> list[FoundIndex]:
        """Return the live index and those next to it."""
        wanted = f"{self.alias},{self.prefix}*"
        more = "ignore_unavailable=true&allow_no_indices=true&filter_path=*.aliases,*.settings.index.uuid"
        described = self._client.ask(dict[str, _Described], "GET", f"/{wanted}?{more}")
        return [FoundIndex(name, one.settings.index.uuid, one.aliases) for name, one in sorted(described.items())]

    def live(self, found: Sequence[FoundIndex] | None = None) -> FoundIndex | None:
        """Return the index that the application uses. Raise StepError where it uses several."""
        having = [one for one in (found if found is not None else self.found()) if self._is_live(one)]
        if len(having) > 1:
            names = ", ".join(one.name for one in having)
            raise StepError(
                f"indices.{self._section}: {self.alias} is an alias of several indices: {names}",
                next_step="Give each of them an alias and a section of its own.",
            )
        return having[0] if having else None

    def _is_live(self, one: FoundIndex) -> bool:
        return self.alias in (one.name, *one.aliases)

    def require_alias(self) -> None:
        """Raise RefusedError where the application uses an index by its own name."""
        live = self.live()
        if live is not None and live.name == self.alias:
            raise RefusedError(
                f"indices.{self._section}: {self.alias} is an index and not an alias, so nothing can take its place",
                next_step=f"Let the application use an alias of it, or set `content` of indices.{self._section} to"
                ' "rebuild".',
            )

    def find(self, identity: str) -> FoundIndex:
        """Return an index next to the live one. Raise StepError where it is gone."""
        for one in self.found():
            if one.identity == identity and not self._is_live(one):
                return one
        raise StepError(f"indices.{self._section}: the index {identity} is gone")

    def tokens_of(self, one: FoundIndex) -> list[str]:
        """Return the tokens under which an index next to the live one is kept."""
        own = [alias.removeprefix(self.prefix) for alias in one.aliases if alias.startswith(self.prefix)]
        if own or one.aliases or not one.name.startswith(self.prefix):
            return own
        return [one.name.removeprefix(self.prefix).rpartition("-")[0]]

    def beside(self) -> list[FoundIndex]:
        return [one for one in self.found() if not self._is_live(one) and self.tokens_of(one)]

    # --- names -------------------------------------------------------------------------------------

    def new_name(self, token: str) -> str:
        return f"{self.prefix}{token}-{secrets.token_hex(_RANDOM_BYTES)}"

    def built_name(self, token: str) -> str:
        """Return the name under which the application itself builds an index."""
        return f"{self.prefix}{token}-{_BUILT}"

    # --- changes -----------------------------------------------------------------------------------

    def mark(self, name: str, token: str) -> None:
        """Note an index as one of a token, with the properties of the live alias."""
        live = self.live()
        properties = live.aliases.get(self.alias, {}) if live is not None else {}
        self._change([self._add(name, f"{self.prefix}{token}", properties)])

    def _change(self, actions: Sequence[JsonObject]) -> None:
        self._client.tell("POST", "/_aliases", {"actions": list(actions)})

    @staticmethod
    def _add(index: str, alias: str, properties: JsonObject) -> JsonObject:
        return {"add": {"index": index, "alias": alias, **properties}}

    @staticmethod
    def _remove(index: str, alias: str) -> JsonObject:
        return {"remove": {"index": index, "alias": alias}}

    def swap(self, identity: str | None, aside: str) -> None:
        """Move the application's alias to another index and keep the present one under `aside`, in one request."""
        self.require_alias()
        found = self.found()
        live = self.live(found)
        if (live.identity if live is not None else None) == identity:
            return
        target = self.find(identity) if identity is not None else None
        taken = {token for one in found for token in self.tokens_of(one)}
        names = (aside if number == 1 else f"{aside}.{number}" for number in itertools.count(1))
        kept = self.prefix + next(name for name in names if name not in taken)
        properties: JsonObject = {}
        actions: list[JsonObject] = []
        if live is not None:
            properties = live.aliases[self.alias]
            actions += [self._remove(live.name, self.alias), self._add(live.name, kept, properties)]
        if target is not None:
            own = [alias for alias in target.aliases if alias.startswith(self.prefix)]
            if live is None and own:
                properties = target.aliases[own[0]]
            actions += [self._add(target.name, self.alias, properties)]
            actions += [self._remove(target.name, alias) for alias in own]
        self._change(actions)

    def hand_over(self, token: str, name: str, *, rehearsal: bool) -> None:
        """Give the candidate of a token another alias, and none of Holdfast's any more. Idempotent."""
        candidate = next((one for one in self.beside() if token in self.tokens_of(one)), None)
        if candidate is None:
            return
        more = "ignore_unavailable=true&allow_no_indices=true&filter_path=*.settings.index.uuid"
        if self._client.ask(JsonObject, "GET", f"/{name}?{more}"):
            raise RefusedError(f"indices.{self._section}: the server has {name} already")
        if not rehearsal:
            self._change([self._add(candidate.name, name, {}), self._remove(candidate.name, self.prefix + token)])

    def remove(self, wanted: Callable[[str], bool]) -> None:
        """Delete indices next to the live one by their tokens, and let writers of the live one go on."""
        for one in self.beside():
            if any(wanted(token) for token in self.tokens_of(one)):
                self._client.tell("DELETE", f"/{one.name}")
        live = self.live()
        for token in self.blocks(live):
            if live is not None and wanted(token):
                self.unblock(live.name, token)

    def blocks(self, live: FoundIndex | None) -> list[str]:
        """Return the tokens whose copy of the live index was never completed, so that it may refuse writes."""
        aliases = live.aliases if live is not None else {}
        marks = [alias for alias in aliases if alias.startswith(self.prefix) and alias.endswith(_BLOCKED)]
        return [alias[len(self.prefix) : -len(_BLOCKED)] for alias in marks]

    # --- a copy of the live index ------------------------------------------------------------------

    def block(self, name: str, token: str) -> None:
        """Refuse writes to the live index until `unblock`; `remove` of the same token ends that too."""
        self._change([self._add(name, f"{self.prefix}{token}{_BLOCKED}", {})])
        self._client.tell("PUT", f"/{name}/_settings", {"index.blocks.write": True})

    def unblock(self, name: str, token: str) -> None:
        self._client.tell("PUT", f"/{name}/_settings", {"index.blocks.write": None})
        self._change([self._remove(name, f"{self.prefix}{token}{_BLOCKED}")])
