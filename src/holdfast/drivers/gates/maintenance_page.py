"""The maintenance page while the gate is closed: HTML or JSON, 503, with Retry-After and without caching."""

from __future__ import annotations

import html
import json
import string
import time
from collections.abc import Mapping
from pathlib import Path

DEFAULT_MESSAGE = "We are working on this site. It will be back in a few minutes."
_DEFAULT_RETRY_SECONDS = 60
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><meta http-equiv="refresh" content="$retry_after_seconds">
<title>Maintenance</title><style>
body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f4f2ec;color:#23323a;
font:18px/1.6 Georgia,"Times New Roman",serif}
main{max-width:34rem;padding:2rem}h1{font-size:1.5rem;margin:0 0 .75rem}p{margin:.25rem 0}small{color:#5b6b73}
</style></head><body><main><h1>Maintenance</h1><p>$message</p><small>$comment</small></main></body></html>
"""


def retry_after_seconds(reason: Mapping[str, object]) -> int:
    """Return the seconds until the expected end where one was given, else a minute; at least ten seconds."""
    until = reason.get("until")
    if isinstance(until, int | float):
        return max(10, int(until - time.time()))
    return _DEFAULT_RETRY_SECONDS


def wants_json(accept: str) -> bool:
    """Return whether the client names JSON and does not prefer HTML."""
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    return any(kind == "application/json" or kind.endswith("+json") for kind in kinds) and "text/html" not in kinds


def render(
    reason: Mapping[str, object], message: str, template: Path | None, accept: str
) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the answer."""
    seconds = retry_after_seconds(reason)
    headers = {
        "Retry-After": str(seconds),
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex",
        "Vary": "Accept",
    }
    if wants_json(accept):
        body = {
            "error": "maintenance",
            "message": message,
            "comment": reason.get("comment", ""),
            "retry_after_seconds": seconds,
        }
        return {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
    text = _TEMPLATE
    if template is not None:
        try:
            text = template.read_text()
        except OSError:
            pass  # the built-in template is used, because it is better than no page
    page = string.Template(text).safe_substitute(
        message=html.escape(message),
        comment=html.escape(str(reason.get("comment", ""))),
        retry_after_seconds=seconds,
    )
    return {**headers, "Content-Type": "text/html; charset=utf-8"}, page.encode()
