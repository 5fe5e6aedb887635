"""One source of versions: pyproject.toml says what, constraints.txt pins it, environment.yml installs just that."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import isce

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
WANTED = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("requirement", WANTED, ids=lambda r: r.name)
def test_everything_needed_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_peers_are_pinned() -> None:
    (peers,) = re.findall(r"^PEERS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert all(canonicalize_name(peer) in PINS for peer in peers.split())


def test_conda_installs_the_same_package_with_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *names, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert [re.match(r"\w+", name).group() for name in names] == ["python", "pip"]  # type: ignore[union-attr]
    assert names[0] == f"python{PROJECT['requires-python']}"


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert isce.__version__ == PROJECT["version"] == citation["version"]
    assert "MIT" in (ROOT / "LICENSE").read_text()


def test_run_time_needs_no_peer() -> None:
    """The peers are development-only: nothing in isce/ or the notebooks imports them."""
    for path in [*(ROOT / "isce").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]:
        assert not re.search(
            r"import (foolbox|torchattacks|adv_lib|art\b)|from (foolbox|torchattacks|adv_lib|art)\b", path.read_text()
        ), path


@pytest.mark.parametrize("system", [("linux", "Linux"), ("darwin", "Darwin")], ids=lambda s: s[0])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_what_they_need_in_turn_is_pinned(python: str, system: tuple[str, str]) -> None:
    where = {"python_version": python, "python_full_version": f"{python}.1"}
    where |= {"sys_platform": system[0], "platform_system": system[1]}
    todo, seen, installed = [(r.name, frozenset(r.extras)) for r in WANTED], set(), set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needed = map(Requirement, distribution(name).requires or ())
        except PackageNotFoundError:  # of another system, or version of Python
            continue
        installed.add(name)
        for r in needed:
            if r.marker is None or any(r.marker.evaluate({**where, "extra": extra}) for extra in ("", *extras)):
                todo.append((r.name, frozenset(r.extras)))
    assert len(installed) > 100
    assert sorted({canonicalize_name(name) for name, _ in seen} - set(PINS)) == []


def test_modules_come_on_their_first_use() -> None:
    code = """import sys, isce
assert "isce.models" not in sys.modules
assert {"ISCELoss", "models", "train"} <= {*dir(isce)}
print(isce.models.build_model("digits", "lenet5", "isce").head.s, hasattr(isce, "modles"))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1.0 False\n"


def test_no_installed_package_is_missing_from_the_pins() -> None:
    """What the tests run with is what the pins say, so that a fresh machine gets the same."""
    installed = {canonicalize_name(d.metadata["Name"]): d.version.partition("+")[0] for d in distributions()}
    direct = [canonicalize_name(r.name) for r in WANTED]
    assert {n: installed.get(n) for n in direct} == {n: PINS[n] for n in direct}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["make", "help", "VENV=my env"], 'VENV must be one path without spaces, got "my env"'),
        (["make", "help", "VENV="], 'VENV must be one path without spaces, got ""'),
        ([sys.executable, "-m", "isce.publish", "ful"], "isce: unknown profile 'ful' (did you mean 'full'?)"),
    ],
    ids=["a space", "nothing", "no profile"],
)
def test_a_wrong_command_gets_one_line(command: list[str], says: str) -> None:
    alone = {**os.environ, "MAKEFLAGS": ""}  # no part of a make that runs the tests
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=alone)
    assert done.returncode != 0
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
