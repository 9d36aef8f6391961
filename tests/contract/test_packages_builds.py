"""Commits that are more than their own files, and builds of all trades."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from holdfast.drivers.packages import python_dependencies
from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.errors import RefusedError
from holdfast.system.host import Host
from tests.contract.test_packages import commit, git
from tests.proof import patience


def repository(folder: Path, files: Mapping[str, str]) -> tuple[Path, str]:
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder, commit(folder, files, "one")


def released(driver: ArchivePackages, reference: str, target: Path) -> Path:
    driver.unpack(driver.build(reference, "v1", "run"), target, {})
    return target


def test_the_files_of_submodules_are_part_of_the_package(quick_folder: Path) -> None:
    inner, wanted = repository(quick_folder / "inner", {"deep.txt": "deep"})
    module, _ = repository(quick_folder / "module", {"code.txt": "of the module"})
    git(module, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "lib/inner")
    git(module, "commit", "--quiet", "--message", "two")
    outer, _ = repository(quick_folder / "outer", {"app.txt": "app"})
    git(
        outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "--name", "x", str(module), "vendor/m"
    )
    git(outer, "commit", "--quiet", "--message", "two")
    driver = ArchivePackages(quick_folder / "packages", outer, Host())
    with pytest.raises(RefusedError, match="vendor/m/lib/inner was not fetched") as refused:
        driver.build(git(outer, "rev-parse", "HEAD"), "v1", "run")
    assert "submodule update --init --recursive" in (refused.value.next_step or "")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive")
    release = released(driver, git(outer, "rev-parse", "HEAD"), quick_folder / "release")
    assert (release / "app.txt").read_text() == "app"
    assert (release / "vendor" / "m" / "code.txt").read_text() == "of the module"
    assert (release / "vendor" / "m" / "lib" / "inner" / "deep.txt").read_text() == "deep", wanted


def test_a_pointer_in_place_of_a_large_file_is_refused(quick_folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    files = {".gitattributes": "*.bin filter=lfs -text\n", "model.bin": pointer, "text.txt": pointer}
    folder, reference = repository(quick_folder / "repository", files)
    driver = ArchivePackages(quick_folder / "packages", folder, Host())
    with pytest.raises(RefusedError, match=r"model\.bin and 1 other files? are pointers of Git LFS"):
        driver.build(reference, "v1", "run")


def test_a_link_inside_the_tree_goes_where_the_release_is(quick_folder: Path) -> None:
    folder, reference = repository(quick_folder / "repository", {"tool.txt": "tool"})
    build = [["sh", "-c", "mkdir -p bin && ln -s $PWD/tool.txt bin/tool && ln -s ../tool.txt bin/other"]]
    driver = ArchivePackages(quick_folder / "packages", folder, Host(), build=build)
    release = released(driver, reference, quick_folder / "release")
    assert (os.readlink(release / "bin" / "tool"), (release / "bin" / "tool").read_text()) == ("../tool.txt", "tool")


@pytest.mark.parametrize("target", ["/usr/bin/env", "../../outside"])
def test_a_link_that_leaves_the_tree_is_refused_with_what_to_do(quick_folder: Path, target: str) -> None:
    folder, reference = repository(quick_folder / "repository", {"tool.txt": "tool"})
    driver = ArchivePackages(quick_folder / "packages", folder, Host(), build=[["ln", "-s", target, "tool"]])
    with pytest.raises(RefusedError, match=f"tool is a link to {target}, which is not part of the release") as refused:
        driver.build(reference, "v1", "run")
    assert "source.shared" in (refused.value.next_step or "")


def wheel(folder: Path, name: str, module: str) -> None:
    """Write the smallest wheel there is."""
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", module)
        file.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{name}-1.dist-info/RECORD", "")


_PLUGIN = {
    "plugin/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "plugin"\nversion = "1"\n',
    "plugin/backend.py": """
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{folder}/plugin-1-py3-none-any.whl", "w") as file:
        file.writestr("plugin.py", "value = 'of the plugin'")
        file.writestr("plugin-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: plugin\\nVersion: 1\\n"
            "Requires-Dist: dependency\\n")
        file.writestr("plugin-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr("plugin-1.dist-info/RECORD", "")
    return "plugin-1-py3-none-any.whl"
""",
}


@pytest.mark.parametrize("requirements", ["requirements.txt", "plugin/pyproject.toml"])
def test_a_package_beside_the_application_is_built_and_installed(quick_folder: Path, requirements: str) -> None:
    """What pip resolved once, with its dependencies, is what the release gets, without network."""
    wheels = quick_folder / "wheels"
    wheels.mkdir()
    for name, module in {"dependency": "value = 'of the dependency'", "setuptools": "pkg = 1"}.items():
        wheel(wheels, name, module)
    lines = f"--no-index\n--find-links {wheels}\n./plugin\nsetuptools\n"
    folder, reference = repository(quick_folder / "repository", {"requirements.txt": lines, **_PLUGIN})
    driver = ArchivePackages(
        quick_folder / "packages",
        folder,
        Host(),
        requirements=requirements,
        python=sys.executable,
        timeout_seconds=patience.limit(120),
    )
    with pytest.MonkeyPatch.context() as patch:
        if requirements.endswith(".toml"):  # its own file says nothing of the folder with wheels
            command = python_dependencies.wheels_command
            more = ["--no-index", "--find-links", str(wheels)]
            patch.setattr(python_dependencies, "wheels_command", lambda *given: [*command(*given), *more])
        release = released(driver, reference, quick_folder / "release")
    code = "import plugin, dependency, setuptools; print(plugin.value, dependency.value)"
    python = release / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "of the plugin of the dependency\n"
    assert not (release / ".holdfast-wheels").exists()


@pytest.mark.parametrize("lock", ["uv.lock", "poetry.lock"])
def test_a_lock_file_needs_the_program_that_reads_it(
    quick_folder: Path, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reference = repository(quick_folder / "repository", {lock: "version = 1\n"})
    monkeypatch.setattr("shutil.which", lambda name: None)
    driver = ArchivePackages(quick_folder / "packages", folder, Host(), requirements=lock, python=sys.executable)
    with pytest.raises(RefusedError, match=f"{lock} is read by {lock.partition('.')[0]}, which is not installed"):
        driver.build(reference, "v1", "run")
