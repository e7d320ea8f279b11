"""The rules of the house: layers, cheap imports, docstrings, sizes, pins, and nothing that belongs elsewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer

from apps.cli import app

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("fovea", "domains", "experts", "models", "curriculum", "apps")
HEAVY = ("torch", "monai", "streamlit", "mlflow", "transformers", "open_clip", "timm")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


@cache
def tracked() -> tuple[Path, ...]:
    """What is, or could be, committed: git's files and those that it does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return tuple(path for name in listing.split("\0") if name and (path := REPOSITORY / name).is_file())


def sources(*folders: str) -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py" and p.relative_to(REPOSITORY).parts[0] in folders]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def test_the_layers_hold():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "import fovea.types, fovea.contracts, fovea.registry, fovea.config, fovea.errors, fovea.verbal, fovea.overlay",
        "from fovea import registry; assert all(not p.lacks for p in registry.plugins('fovea.domains').values())",
        "import typer.testing; from apps.cli import app; r = typer.testing.CliRunner().invoke(app, ['--help']); "
        "assert r.exit_code == 0 and 'demo' in r.output",
    ],
)
def test_what_is_imported_often_is_cheap(statement):
    code = f"{statement}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def undocumented(path: Path, inside: bool) -> list[str]:
    """Public classes and functions without a docstring, and with `inside` their public methods too."""
    tree = ast.parse(path.read_text())
    found = [] if ast.get_docstring(tree) else [name_of(path)]
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            inner = (
                [n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
                if inside
                else []
            )
            found += [
                f"{name_of(path)}: {n.name}"
                for n in (node, *(n for n in inner if not n.decorator_list))
                if not ast.get_docstring(n)
            ]
    return found


def test_every_public_name_of_the_core_is_documented():
    plain = {"fovea/types.py: Message"}  # role and parts say it all
    missing = {
        item for path in sources("fovea") if path.name != "testing.py" for item in undocumented(path, inside=True)
    }
    assert missing <= plain


def test_every_module_says_what_it_is():
    texts = {name_of(path): path.read_text() for path in sources(*ROOMS, "tests", "scripts")}
    assert not [name for name, text in texts.items() if text and not ast.get_docstring(ast.parse(text))]


def test_files_stay_readable():
    lengths = {name_of(p): len(p.read_text().splitlines()) for p in sources(*ROOMS, "scripts", "tests", "benchmarks")}
    limits = {name: 600 if name.startswith("tests/") else 450 for name in lengths}
    assert not {name: length for name, length in lengths.items() if length > limits[name]}


def test_every_command_is_documented():
    pages = "\n".join(p.read_text() for p in tracked() if p.suffix == ".md" and p.name != "reference.md")
    command = typer.main.get_command(app)
    names = [f"fovea {name}" for name in command.commands]
    names += [f"fovea {n} {inner}" for n, c in command.commands.items() for inner in getattr(c, "commands", {})]
    groups = {n for n, c in command.commands.items() if getattr(c, "no_args_is_help", False)}
    assert not [name for name in names if name not in pages and name.removeprefix("fovea ") not in groups]


def test_the_reference_is_what_the_code_says():
    spec = importlib.util.spec_from_file_location("reference", REPOSITORY / "scripts" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text() == reference.render(), "run scripts/docs"


FORBIDDEN = {
    "the path of a machine": r"(^|[^A-Za-z.])/(work|farm|home|root|Users)/",
    "the host of a registry": r"index-"
    r"url|find-"
    r"links|https?://[^ ]*/simple\b|pypi\.(org|python)|hosted\."
    r"org",
    "talk of how it was made": r"(?i)this " r"session|sub" r"agent|issue #?[0-9]+ (asks|says)|as an " r"AI\b",
    "unfinished work": r"\bTO" r"DO\b|\bFIX" r"ME\b|\bXX" r"X\b|raise Not" r"ImplementedError",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_project_speaks_only_of_itself(what):
    pattern = re.compile(FORBIDDEN[what], re.M)
    found = []
    for path in tracked():
        if path.suffix in {".png", ".jpg"} or path.name in {"LICENSE", "uv.lock"}:
            continue
        found += [f"{name_of(path)}: {match[0]}" for match in pattern.finditer(path.read_text())]
    assert not found


def test_nothing_large_or_binary_is_kept():
    pictures = REPOSITORY / "docs" / "images"
    for path in tracked():
        assert path.stat().st_size < 300_000, name_of(path)
        assert pictures in path.parents or b"\0" not in path.read_bytes(), f"{name_of(path)} is binary"


def test_every_dependency_is_pinned():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ;.*)?", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    wanted = [*PROJECT["project"]["dependencies"]]
    wanted += [name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[\[<>=~! ]", name)[0].lower().replace("_", "-") for name in wanted}
    assert names <= pinned


def test_every_target_and_script_is_there():
    for target in ("demo", "test", "check", "docs", "lock", "clean"):
        done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for script in re.findall(r"(?<!\S)scripts/\w+(?!\S)", done.stdout):
            assert (REPOSITORY / script).stat().st_mode & 0o111, f"{script} cannot be run"
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()
