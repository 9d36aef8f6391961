"""The maintenance page while the gate is closed: HTML or JSON, 503, with Retry-After and without caching.

The front renders it for each visitor. An operator's proxy gets it as a file when the gate closes, so the text names the
instant at which the site is expected back, and only the visitor's browser says how long that is from now.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template

DEFAULT_MESSAGE = "We are working on this site. It will be back in a few minutes."
_MESSAGE_WITH_END = "We are working on this site."
_RETRY_SECONDS_OF_OPERATION = 10  # an operation holds visitors for seconds, and nobody knows its end
_RETRY_SECONDS = 60
_REFRESH_SECONDS = 8  # in a page that a proxy shows to all; its text must not change unless the state does
_END = '<p>Expected back at <time id="end" datetime="{instant}">{words}</time>.</p>'
# A dollar sign cannot be written into a page of nginx, so the script has none.
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<noscript><meta http-equiv="refresh" content="$refresh_seconds"></noscript>
<title>Maintenance</title><style>
body{margin:0;min-height:100vh;display:grid;place-items:center;background:#f4f2ec;color:#23323a;
font:18px/1.6 Georgia,"Times New Roman",serif}
main{max-width:34rem;padding:2rem}h1{font-size:1.5rem;margin:0 0 .75rem}p{margin:.25rem 0}small{color:#5b6b73}
</style></head><body><main><h1>Maintenance</h1><p>$message</p>$end<small>$comment</small></main>
<script>
(function () {
  var end = document.getElementById("end"), line = end ? end.parentNode : null;
  function tell() {
    var at = new Date(end.getAttribute("datetime")), minutes = Math.ceil((at - Date.now()) / 60000);
    var clock = at.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
    if (minutes > 1440) clock = at.toLocaleString();
    var left = minutes < 120 ? minutes + (minutes > 1 ? " minutes" : " minute") : Math.round(minutes / 60) + " hours";
    line.textContent = minutes < 1 ? "This takes a little longer than expected."
      : "Expected back at " + clock + ", in about " + left + ".";
  }
  function look() {
    if (end) tell();
    setTimeout(function () {
      fetch(location.href, {method: "HEAD", cache: "no-store"}).then(function (answer) {
        if (answer.status === 503) return look();
        if (location.hash) location.reload(); else location.replace(location.href);
      }, look);
    }, 5000 + 5000 * Math.random());
  }
  if (window.fetch) look(); else setTimeout(function () { location.reload(); }, 8000);
})();
</script></body></html>
"""


def _until(reason: Mapping[str, object]) -> float | None:
    until = reason.get("until")
    return float(until) if isinstance(until, int | float) else None


def retry_after_seconds(reason: Mapping[str, object]) -> int:
    """Return the seconds until the expected end where one was given and is not past, else a short time."""
    until = _until(reason)
    if until is not None:
        return max(_RETRY_SECONDS_OF_OPERATION, int(until - time.time()))
    return _RETRY_SECONDS_OF_OPERATION if reason.get("operation") else _RETRY_SECONDS


def wants_json(accept: str) -> bool:
    """Return whether the client names JSON and does not prefer HTML."""
    kinds = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    return any(kind == "application/json" or kind.endswith("+json") for kind in kinds) and "text/html" not in kinds


def render(
    reason: Mapping[str, object],
    message: str,
    template: Path | None,
    accept: str,
    refresh_seconds: int = _REFRESH_SECONDS,
    own: str | None = None,
) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the answer. `own` is a page of the application's, which comes before the template."""
    seconds, until = retry_after_seconds(reason), _until(reason)
    headers = {
        "Retry-After": str(seconds),
        "Cache-Control": "no-store",
        "X-Robots-Tag": "noindex",
        "Vary": "Accept",
    }
    if until is not None and message == DEFAULT_MESSAGE:
        message = _MESSAGE_WITH_END
    instant = "" if until is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    if wants_json(accept):
        body = {
            "error": "maintenance",
            "message": message,
            "comment": reason.get("comment", ""),
            "retry_after_seconds": seconds,
        }
        if instant:
            body["until"] = instant
        return {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
    text = _TEMPLATE if own is None else own
    if template is not None and own is None:
        try:
            text = template.read_text()
        except OSError:
            pass  # the built-in template is used, because it is better than no page
    page = Template(text).safe_substitute(
        message=_escaped(message),
        comment=_escaped(str(reason.get("comment", ""))),
        retry_after_seconds=seconds,
        refresh_seconds=refresh_seconds,
        until="" if until is None else _in_words(until),
        end="" if until is None else _END.format(instant=instant, words=_in_words(until)),
    )
    return {**headers, "Content-Type": "text/html; charset=utf-8"}, page.encode()


def _in_words(until: float) -> str:
    """Return an instant for readers without a script: the time of day, with the day where it is not today."""
    then = time.gmtime(until)
    same_day = then[:3] == time.gmtime()[:3]
    return time.strftime("%H:%M UTC" if same_day else "%d %B %Y, %H:%M UTC", then)


def _escaped(text: str) -> str:
    """Return a text for HTML; `html.escape` would bring all named characters with it, at each start of the front."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#x27;")):
        text = text.replace(character, entity)
    return text
