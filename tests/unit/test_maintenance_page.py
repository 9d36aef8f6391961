"""What visitors read while the gate is closed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from holdfast.drivers.gates import maintenance_page
from holdfast.drivers.gates.maintenance_page import DEFAULT_MESSAGE, render


def html(reason: dict[str, object], message: str = DEFAULT_MESSAGE, template: Path | None = None) -> str:
    return render(reason, message, template, "text/html")[1].decode()


def test_the_page_says_when_the_site_is_expected_back() -> None:
    until = int(time.time()) + 1800
    page = html({"until": until})
    assert f'datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))}"' in page
    assert time.strftime("%H:%M UTC", time.gmtime(until)) in page
    assert "few minutes" not in page
    headers, body = render({"until": until}, DEFAULT_MESSAGE, None, "application/json")
    assert 1790 <= int(headers["Retry-After"]) <= 1800
    assert json.loads(body)["until"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))


def test_without_an_end_nothing_is_promised() -> None:
    assert "Expected back" not in html({"operation": "op1"}).partition("<script>")[0]
    assert DEFAULT_MESSAGE in html({})
    assert "until" not in json.loads(render({}, "x", None, "application/json")[1])


def test_the_time_to_try_again_is_short_where_the_end_is_near_or_unknown() -> None:
    for reason in ({"operation": "op1"}, {"until": time.time() - 100}):
        assert maintenance_page.retry_after_seconds(reason) == 10
    assert maintenance_page.retry_after_seconds({"comment": "disks"}) == 60


def test_the_page_looks_for_the_site_every_few_seconds_whatever_the_end() -> None:
    page = html({"until": 2e9})
    found = re.search(r'<noscript><meta http-equiv="refresh" content="(\d+)">', page)
    assert found is not None
    assert 5 <= int(found[1]) <= 10
    assert page == html({"until": 2e9}), "a proxy's file is compared with what it must be"


def test_the_page_needs_nothing_from_elsewhere_and_no_proxy_takes_a_part_for_its_own() -> None:
    page = html({"until": time.time() + 60, "comment": "<b>&\"'</b>"})
    assert "&lt;b&gt;&amp;&quot;&#x27;&lt;/b&gt;" in page
    assert "$" not in page
    assert not re.search(r"https?://|src=|<link", page)


def test_a_page_of_the_operators_own_may_name_the_end(tmp_path: Path) -> None:
    own = tmp_path / "page.html"
    own.write_text("$message|$until|$retry_after_seconds|$refresh_seconds|$other")
    message, until, retry, refresh, other = html({"until": time.time() + 60}, "Soon.", own).split("|")
    assert (message, other) == ("Soon.", "$other")
    assert until.endswith("UTC")
    assert int(retry) <= 60
    assert 5 <= int(refresh) <= 10
