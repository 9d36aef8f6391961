"""Requests through the user's proxy, like a visitor's: the answers that visitors get prove a gate's state."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_SECONDS = 10


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy; `status` is 0 where nothing listens."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class SiteProbe:
    """The visitors' entrance: requests go to `url`, with `name` as the site's name where the URL has another one."""

    url: str
    name: str = ""

    def get(self, path: str = "", cookie: str = "") -> Answer:
        """Request the URL's own path, or another one.

        Raise OSError or HTTPException where a server listens and fails.
        """
        parts = urlsplit(self.url)
        host, port = parts.hostname or "127.0.0.1", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            # The answer is recognized by Holdfast's own tag, so the certificate does not matter.
            unverified = ssl.create_default_context()
            unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=unverified)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
        headers = {"User-Agent": "holdfast", "Connection": "close", "Accept": "*/*"}
        headers |= {"Host": self.name} if self.name else {}
        headers |= {"Cookie": cookie} if cookie else {}
        try:
            connection.request("GET", path or parts.path or "/", headers=headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read(1 << 16).decode(errors="replace"))
        except ConnectionRefusedError:
            return Answer(0, {}, "")
        finally:
            connection.close()
