"""Caddy as the gate: its site block imports a file of ours, whose routes lead each request.

Facts from its documentation and measured on 2.6: `caddy reload` comes back once the new configuration is in force and
connections are taken by it alone; requests under way go on by the old one, for as long as they take, and its
administration interface tells of them no more. Without `keepalive` towards the web a connection is a request. Text in
backquotes is taken as it is but for `{name}`, which is a placeholder; a brace after a backslash is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable

from holdfast import connections
from holdfast.drivers.gates.place import Place
from holdfast.drivers.gates.proxy import GATE_HEADER, GATE_PATH, PREVIEW_COOKIE, View
from holdfast.errors import StepError

_PROGRAM = "caddy"
_CONFIG = "/etc/caddy/Caddyfile"
_PLACEHOLDER = re.compile(r"\{(?=[$\w.:-]+\})")
_JUST_BEGUN_SECONDS = 0.3
_CUT_SECONDS = 5.0
_LOOK_SECONDS = 0.02


class Caddy:
    name = "caddy"

    def __init__(self, place: Place, config: str = "") -> None:
        self._place = place
        self._config = ["--config", config or _CONFIG, "--adapter", "caddyfile"]

    def test(self) -> None:
        self._place.run(_PROGRAM, "validate", *self._config)

    def reload(self, led_to: Collection[str] | None) -> Callable[[str, float | None], None]:
        places = [target.rpartition(":") for target in led_to or ()]
        webs = {(address, int(port)) for name, _, port in places for address in self._place.addresses_of(name)}
        self._place.run(_PROGRAM, "reload", *self._config)

        def drain(answer: str, seconds: float | None) -> None:
            if seconds is not None and not (led_to is not None and self._drained(webs, seconds)):
                time.sleep(seconds)

        return drain

    def _under_way(self, webs: Iterable[tuple[str, int]]) -> set[int]:
        return connections.to(webs, by=_PROGRAM, near=self._place.first_process())

    def _drained(self, webs: set[tuple[str, int]], seconds: float) -> bool:
        """False where it is another user's, whose connections cannot be seen."""
        try:
            self._drain(webs, seconds)
        except PermissionError:
            return False
        return True

    def _drain(self, webs: set[tuple[str, int]], seconds: float) -> None:
        begun = time.monotonic()
        known: set[int] = set()
        while (passed := time.monotonic() - begun) <= max(seconds, _JUST_BEGUN_SECONDS):
            now = self._under_way(webs)
            if passed < _JUST_BEGUN_SECONDS:  # a request that came in last may not have reached the web yet
                known |= now
            elif not known & now:
                return
            time.sleep(_LOOK_SECONDS)
        self._cut(known, webs)

    def _cut(self, known: set[int], webs: set[tuple[str, int]]) -> None:
        deadline = time.monotonic() + _CUT_SECONDS
        while left := known & self._under_way(webs):
            connections.cut(left, by=_PROGRAM)
            if time.monotonic() > deadline:
                raise StepError(f"{len(left)} requests under way in {self.name} cannot be ended")
            time.sleep(_LOOK_SECONDS)

    def text(self, view: View) -> str:
        gate = _block(f"handle {GATE_PATH}", "header Cache-Control no-store", f'respond "{view.mark}" 200')
        if view.seed is not None:
            return "\n".join([view.seed.rstrip(), *gate]) + "\n"
        lines = [
            "# Written by Holdfast, and replaced whenever visitors are led elsewhere. docs/howto/proxies.md",
            *gate,
        ]
        if view.preview_target:
            lines.append(
                f'@holdfast_preview header_regexp Cookie "(^|;\\s*){PREVIEW_COOKIE}={view.preview_token}(;|$)"'
            )
            lines += _block("handle @holdfast_preview", *_leading(view.preview_target))
        if not view.closed:
            return "\n".join([*lines, *_block("handle", *_leading(view.target))]) + "\n"
        lines += _block("@holdfast_json", "header Accept *json*", "not header Accept *text/html*")
        # A placeholder by its shape is written otherwise; a text cannot hold what ends it either.
        json = _PLACEHOLDER.sub("\\\\u007b", view.json).replace("`", "\\u0060")
        html = _PLACEHOLDER.sub("&#123;", view.html).replace("`", "&#96;")
        lines += _block("handle @holdfast_json", *_page("application/json", json, view))
        return "\n".join([*lines, *_block("handle", *_page("text/html; charset=utf-8", html, view))]) + "\n"


def _block(head: str, *lines: str) -> list[str]:
    return [f"{head} {{", *(f"    {line}" for line in lines), "}"]


def _leading(target: str) -> list[str]:
    return [f"reverse_proxy {target} {{", "    transport http {", "        keepalive off", "    }", "}"]


def _page(kind: str, body: str, view: View) -> list[str]:
    given = {**view.headers, "Content-Type": kind, GATE_HEADER: view.mark}
    text = re.sub(r"[{}]", r"\\\g<0>", body)
    return [*(f"header {name} `{value}`" for name, value in given.items()), f"respond `{text}` 503"]
