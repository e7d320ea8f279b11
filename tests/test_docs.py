"""Every code block of README, CONTRIBUTING and docs runs, and every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from pages import Block, blocks, install, lay_out, pages

from apps.cli import app
from apps.wording import SUPPORT

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = pages(REPOSITORY)
PARSED = {"yaml": yaml.safe_load, "json": json.loads, "toml": tomllib.loads}
SHOWN = {"text", "csv"}
"""Output and drawings: nothing to run."""
DOMAINS = ("radiology", "remote_sensing")


def environment(folder: Path) -> dict[str, str]:
    """The repository's environment first on the path; `make` says what it would do instead of doing it."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (*install(folder), REPOSITORY))),
        "MAKEFLAGS": "n",
    }


def execute(command: list[str], what: object, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{what} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run(block: Block, folder: Path, env: dict[str, str]) -> None:
    if block.language in PARSED:
        PARSED[block.language](block.text)
    elif "file" in block.notes:
        assert (folder / block.notes["file"]).read_text() == block.text
    elif block.language == "bash":
        execute(["bash", "-euo", "pipefail", "-c", block.text], block, folder, env)
    elif block.language == "python":
        execute([sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.text], block, folder, env)
    else:
        assert block.language in SHOWN, f"{block}: nothing runs a block in {block.language or 'no language'!r}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder demo/ as `make demo` leaves it, made by the smoke recipes."""
    folder = tmp_path_factory.mktemp("models")
    env = environment(folder)
    for domain in DOMAINS:
        recipe = REPOSITORY / "configs" / "smoke" / f"{domain}.yaml"
        execute(["fovea", "train", str(recipe), f"out=demo/{domain}"], recipe.name, folder, env)
    return folder / "demo"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_block_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = blocks(page)
    made = ("Makefile", "pyproject.toml", "constraints.txt") if any("make " in block.text for block in found) else ()
    for name in (*made, "configs", "scripts"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    if any(block.notes.get("needs") == "model" for block in found):
        (tmp_path / "demo").symlink_to(request.getfixturevalue("models"))
    lay_out(page, tmp_path)
    env = environment(tmp_path)
    for block in found:
        run(block, tmp_path, env)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            linked = (page.parent / file).resolve() if file else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.+)$", linked.read_text(), re.M)
                assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_command_that_is_named_exists(page: Path) -> None:
    known = typer.main.get_command(app).commands
    for span in re.findall(r"`fovea ([^`]+)`", page.read_text()):
        command, *rest = span.split()
        assert command in known, f"{page.name}: fovea {span}"
        for recipe in (word for word in rest if word.startswith("configs/") and "mine" not in word):
            assert (REPOSITORY / recipe).is_file(), f"{page.name}: {recipe}"


def test_the_badges_are_those_of_the_reports() -> None:
    page = (REPOSITORY / "docs" / "start" / "clinicians.md").read_text()
    assert set(re.findall(r"^\| ([a-z ]+?) \|", page, re.M)) - {"badge"} == set(SUPPORT.values())


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for language, text in (("bash", "false"), ("python", "1 / 0"), ("yaml", "a: ["), ("ruby", "1")):
        page.write_text(f"# Page\n\n```{language}\n{text}\n```\n")
        with pytest.raises((AssertionError, yaml.YAMLError)):
            run(blocks(page)[0], tmp_path, environment(tmp_path))


def test_the_index_leads_to_every_page() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text()
    for page in (REPOSITORY / "docs").rglob("*.md"):
        name = page.relative_to(REPOSITORY / "docs").as_posix()
        assert name == "index.md" or f"({name})" in index, name


def test_the_readme_is_short_and_starts_with_the_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) < 120
    first = blocks(REPOSITORY / "README.md")[0].text.splitlines()
    assert [line.partition("#")[0].strip() for line in first] == ["make demo", "make test"]
