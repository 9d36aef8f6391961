"""`python -m tests.realworld [NAME ...]`: applications of others, from installation to staging, with figures."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import signal
import sys
import time
import traceback

from tests.realworld.application import ACCOUNT, Application, UnavailableError
from tests.realworld.story import Result, Story, WrongError, place, repository_of

# Module and class of each; a module is imported when it is asked for.
APPLICATIONS = {
    "pocketbase": "PocketBase",
    "radicale": "Radicale",
    "wagtail": "Wagtail",
    "nodered": "NodeRed",
    "redmine": "Redmine",
    "dokuwiki": "DokuWiki",
    "miniflux": "Miniflux",
    "ihatemoney": "IHateMoney",
}
_COLUMNS = ("install", "backup", "upgrade", "recover after SIGKILL", "rollback", "restore", "clone to staging")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(APPLICATIONS)}; default: all")
    names = parser.parse_args().names or list(APPLICATIONS)
    unknown = sorted(set(names) - set(APPLICATIONS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(APPLICATIONS)}")
    if os.geteuid() != 0:
        print("Skipped: services run as another account, so this must run as root.")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that services and servers are ended
    results = [_try(name) for name in names]
    print("\n" + "\n".join(table(results)))
    return 1 if any(result.wrong for result in results) else 0


def _try(name: str) -> Result:
    application: Application = getattr(importlib.import_module(f"tests.realworld.{name}"), APPLICATIONS[name])()
    print(f"{application.name} ({application.language}), {application.old} to {application.new}", flush=True)
    story = Story(application, lambda text: print(text, flush=True))
    try:
        missing = [program for program in (*application.programs, "git") if shutil.which(program) is None]
        if missing:
            raise UnavailableError(f"not installed: {', '.join(missing)}")
        with place(application) as site:
            began = time.monotonic()
            repository_of(application, site)
            print(f"  versions fetched in {time.monotonic() - began:.0f} s", flush=True)
            try:
                story.run(site)
            finally:
                story.shut_down()
    except UnavailableError as error:
        story.result.skipped = str(error)
        print(f"  skipped: {error}", flush=True)
    except WrongError as error:
        story.result.wrong.append(str(error))
        print(f"  WRONG: {error}", flush=True)
    except Exception:
        story.result.wrong.append(traceback.format_exc())
        traceback.print_exc()
    return story.result


def table(results: list[Result]) -> list[str]:
    """Return the figures as a table in Markdown: one line for each application and step."""
    lines = [
        f"Python {platform.python_version()}, services as {ACCOUNT}.",
        "*Waited* is the longest time between two good answers.",
        "",
        "| application | step | end | took | visitors waited |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        application = result.application
        name = f"{application.name} {application.old} to {application.new}"
        if result.skipped:
            lines.append(f"| {name} | skipped: {result.skipped} | | | |")
        for figure in result.figures:
            waited = "" if figure.waited is None else f"{figure.waited:.1f} s"
            lines.append(f"| {name} | {figure.what} | {figure.end} | {figure.took:.1f} s | {waited} |")
        if result.figures:
            end = "**failed**" if result.wrong else "all found"
            lines.append(f"| {name} | {result.acknowledged} acknowledged writes | {end} | | |")
    notes = [f"* {result.application.name}: {result.application.note}" for result in results if result.application.note]
    return [*lines, *(["", *notes] if notes else [])]


if __name__ == "__main__":
    sys.exit(main())
