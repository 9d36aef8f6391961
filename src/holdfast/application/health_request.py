"""The request that asks a web whether it is healthy."""

from __future__ import annotations

import http
import http.client
import re
from collections.abc import Mapping
from typing import NamedTuple

_MOST_BYTES = 8 << 20
_QUOTED = 200


class Answer(NamedTuple):
    """Whether a service is healthy, what it said, and the status if it answered by HTTP."""

    is_healthy: bool
    said: str
    status: int | None = None


def answers(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    contains: str = "",
    timeout_seconds: float = 5,
) -> Answer:
    """Ask the web on a loopback port for a path, which it should answer with 2xx and a text that it contains."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET", path, headers={"Host": "localhost", "User-Agent": "holdfast", **(headers or {})})
        response = connection.getresponse()
        content = response.read(_MOST_BYTES if contains else None)
        said = f"GET {path} answered {response.status}{_advice(response)}"
        if contains and 200 <= response.status < 300 and contains.encode() not in content:
            size = f"{len(content)} bytes" if content else "nothing"
            told = f"{said}, and {size} without the text of `health_contains`"
            return Answer(False, f"{told}{_quoted(content)}", response.status)
        return Answer(200 <= response.status < 300, said, response.status)
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"GET {path}: {error or type(error).__name__}")
    finally:
        connection.close()


def _advice(response: http.client.HTTPResponse) -> str:
    """Return what to change if a healthy application answers like this, without the query of a location."""
    if 300 <= response.status < 400:
        place = response.getheader("Location", "").partition("?")[0]
        return (
            f", a redirect to {place or 'nowhere'}; only 2xx counts: set `health` to that page, or `health_headers` to"
            " what the application expects of its proxy (such as X-Forwarded-Proto)"
        )
    if response.status == http.HTTPStatus.BAD_REQUEST:
        return "; if it accepts only requests to its own name, set that as Host in `health_headers`"
    return ""


def _quoted(content: bytes) -> str:
    """Return the first words that a page shows, which often are the reason, such as those of an error page."""
    shown = re.sub(r"<(script|style|title)\b.*?</\1>|<[^>]*>", " ", content.decode(errors="replace"), flags=re.DOTALL)
    words = " ".join(shown.split())
    return f": {words[:_QUOTED]}{'...' if len(words) > _QUOTED else ''}" if words else ""
