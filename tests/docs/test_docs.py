"""The documentation is true: generated pages are current, examples run, links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from holdfast.config import reference
from holdfast.config.load import load, presets
from holdfast.config.schema import Configuration
from holdfast.config.validation import validate
from tests.docs import generate, man
from tests.proof import patience
from tests.site import Site

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_generated_pages_are_current() -> None:
    for path, text in generate.pages().items():
        assert path.read_text() == text, f"{path.name} is stale: make docs"


def test_man_accepts_its_pages_without_a_warning() -> None:
    groff = shutil.which("groff")
    assert {path.name for path in (ROOT / "docs" / "man").iterdir()} == man.pages().keys()
    for name, text in man.pages().items():
        assert not re.search(r"^[.'](?![A-Z]{1,2}\b|nf$|fi$)", text, re.MULTILINE), name
    if groff is None:
        pytest.skip("not installed: groff (its warnings were not looked at)")
    text = "".join(man.pages().values())
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-z"], input=text, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_the_example_names_every_key_and_loads() -> None:
    value = tomllib.loads(reference.example())
    validate(value, Configuration)
    shown = {
        re.sub(r"^(services|databases|files|vaults|indices|queues|schedule|gate\.switches)\.\w+", r"\1.NAME", key)
        for key in reference.flatten(value)
    }
    shown |= {re.sub(r"^tasks\.\w+\.", "tasks.NAME.", key) for key in shown}
    shown |= {re.sub(r"^hooks\.\w+\.", "hooks.NAME.", key) for key in shown}
    for key in reference.all_keys():
        assert key.path in shown or any(one.startswith(f"{key.path}.") for one in shown), (
            f"{key.path} is not in the example"
        )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_toml_examples_are_valid(page: Path, folder: Path) -> None:
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", page.read_text(), re.S)):
        value = tomllib.loads(text)
        if "application" in value:
            place = folder / f"{page.stem}{number}"
            place.mkdir()
            (place / "holdfast.toml").write_text(text)
            load(str(place))


@pytest.mark.parametrize("pages", [("connect-access.md",), ("compose.md", "staging.md")], ids=lambda pages: pages[-1])
def test_a_staging_overlay_takes_nothing_of_productions(pages: tuple[str, ...], folder: Path) -> None:
    texts = [(ROOT / "docs" / "howto" / page).read_text() for page in pages]
    base, overlay = [text for page in texts for text in re.findall(r"```toml\n(.*?)```", page, re.S)][:2]
    (folder / "holdfast.toml").write_text(base)
    (folder / "holdfast.staging.toml").write_text(overlay)
    production, staging = load(str(folder)), load(str(folder), "staging")
    assert staging.configuration.runtime.project == ""
    for name, one, other in (
        ("state", production.state, staging.state),
        *(
            (name, place(production.configuration), place(staging.configuration))
            for name, place in {
                "releases": lambda value: value.releases.path,
                "gate": lambda value: value.gate.listen,
                "vault": lambda value: value.vaults["local"].path,
                "environment files": lambda value: value.runtime.env_files,
                "Compose files": lambda value: value.runtime.files,
            }.items()
        ),
    ):
        assert one != other, f"{pages[-1]}: {name}"


def test_every_preset_is_valid() -> None:
    for name, text in presets().items():
        value = tomllib.loads(text)
        value["application"] = {"name": "x"}
        for item in value.get("databases", {}).values():
            item.setdefault("name", "x")  # where each project has another
        validate(value, Configuration), name


def test_a_restore_by_hand_gives_the_same_tree(site: Site, folder: Path) -> None:
    """The script of the how-to page, run as it stands."""
    missing = [name for name in ("jq", "zstd", "setfattr") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (make test-setup)")
    page = (ROOT / "docs" / "howto" / "restore-by-hand.md").read_text()
    script = folder / "restore-by-hand.sh"
    script.write_text(re.search(r"<!-- restore-by-hand.sh -->\n```sh\n(.*?)```", page, re.S)[1])  # type: ignore[index]
    site.operate("install", "v1")
    for path in site.media.rglob("*.bin"):
        path.unlink()
    site.config.write_text(re.sub("^references = .*$", "", site.config.read_text(), flags=re.MULTILINE))
    special = site.media / "special"
    special.mkdir()
    (special / "large").write_bytes(os.urandom(3 << 20))
    (special / "empty").touch()
    os.symlink("large", special / "link")
    os.link(special / "large", special / "again")
    os.setxattr(special / "large", "user.note", b"a \xff value")
    (special / "with space\nand newline").write_text("x")
    with open(os.fsencode(special) + b"/not-utf8-\xff", "wb") as file:
        file.write(b"bytes")
    with open(special / "sparse", "wb") as file:
        file.seek(4 << 20)
        file.write(b"end")
    (special / "large").chmod(0o640)
    site.operate("backup")
    newest = sorted((site.vault / "backups").iterdir())[-1]
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=newest, check=True)
    target = folder / "by-hand"
    subprocess.run(
        ["bash", str(script), str(site.vault), newest.name, "media", str(target)],
        check=True,
        timeout=patience.limit(120),
    )
    names = [b"large", b"empty", b"again", b"with space\nand newline", b"not-utf8-\xff", b"sparse"]
    for name in names:
        one, two = os.fsencode(special) + b"/" + name, os.fsencode(target) + b"/special/" + name
        assert Path(os.fsdecode(one)).read_bytes() == Path(os.fsdecode(two)).read_bytes(), name
        assert os.stat(one).st_mode == os.stat(two).st_mode
        assert abs(os.stat(one).st_mtime_ns - os.stat(two).st_mtime_ns) < 1000
    assert os.readlink(target / "special" / "link") == "large"
    assert os.stat(target / "special" / "again").st_ino == os.stat(target / "special" / "large").st_ino
    assert os.getxattr(target / "special" / "large", "user.note") == b"a \xff value"
    ours = sorted(os.listdir(os.fsencode(special)))
    assert ours == sorted(os.listdir(os.fsencode(target / "special")))
