"""No identifier of a header gets out: not into a study, a run, MLflow, a report, an error or a log.

Every element of DICOM's dictionary that can hold text, a number or a date is planted with a value that occurs nowhere
else, on the real path from files to a trained model and its reports; what comes out is searched for it.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import shutil
import warnings
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pydicom
import pytest
from planted import NAME, SECRETS, WORD, element, plant, secrets, wrong
from pydicom.datadict import dictionary_VR
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from rasterio.warp import transform

from apps import cli
from apps.report.document import to_document, to_text
from apps.report.html import study_page
from curriculum.recipe import Recipe
from curriculum.run import train
from domains.radiology import synth
from domains.radiology.plugin import Radiology
from fovea import registry
from fovea.config import load
from fovea.errors import InputError, UnsupportedError
from fovea.jsonable import to_json
from fovea.types import Answer, Call, Facts, Finding, Mask, Origin, Report, Sample, Sentence, Study

QUESTION = "Is there a pleural effusion?"


@contextmanager
def heard(path: Path) -> Iterator[None]:
    """All that is said inside goes to a file: both streams down to their descriptors, logs of any level, warnings."""
    with path.open("w") as stream, warnings.catch_warnings():
        warnings.simplefilter("always")
        handler, root = logging.StreamHandler(stream), logging.getLogger()
        level, streams = root.level, [os.dup(number) for number in (1, 2)]
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                for number in (1, 2):
                    os.dup2(stream.fileno(), number)
                warnings.showwarning = lambda message, *_: stream.write(f"{message}\n") and None
                yield
        finally:
            for number, kept in zip((1, 2), streams, strict=True):
                os.dup2(kept, number)
                os.close(kept)
            root.removeHandler(handler)
            root.setLevel(level)


def fovea(said: Path, *arguments: object) -> tuple[int, str]:
    """A command's exit code and all that it said."""
    with heard(said), pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), said.read_text()


def exported(domain: Any, report: Report, name: str) -> str:
    try:
        return domain.export(report, name).decode()
    except InputError as error:  # no GeoJSON where nothing says where on the Earth
        return str(error)


def everything(domain: Any, path: Path) -> str:
    """All that can be said of a study: its parts, its line, its report as page, as document and in every format."""
    study: Study = domain.load(path)
    shape = study.images[0].pixels.shape[1:]
    term, mask = domain.vocabulary[0], Mask(np.ones(shape, bool))
    finding = Finding(term.label, term.code, True, 0.9, Origin("truth", "1", study.digest), region=mask)
    calls = (Call("one", "all", (finding,)),)
    answer = Answer("What?", "This.", 0.9, (Sentence("This.", "expert", (0,)),), calls)
    report = Report(study, (answer,), {"model": "none"})
    with pytest.raises(UnsupportedError) as refused:
        domain.export(report, "none")
    formats = refused.value.expected.removeprefix("one of ").split(", ")
    tree = json.dumps(to_json(study), default=lambda value: "" if isinstance(value, Path) else repr(value))
    document = to_text(to_document(domain, report, "0"))
    exports = [exported(domain, report, name) for name in formats]
    return "\n".join([repr(study), tree, domain.describe(study), study_page(domain, report), document, *exports])


def failure(domain: Any, path: Path) -> str:
    """What is said of a study; of one that cannot be read, why."""
    try:
        return everything(domain, path)
    except InputError as error:
        return f"refused: {error!s} {error!r} {error.__cause__!r}"


def clean(text: str) -> bool:
    return not secrets(text.encode())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Ten studies as the domain makes them, planted: nine radiographs and a series."""
    folder = tmp_path_factory.mktemp("made") / f"{NAME}^FILES"
    samples = [synth.study(folder, 0, index) for index in (0, 1, 2, 3, 5, 6, 8, 9, 10, 11)]
    paths = [planted.plant_study(Path(s.path), number, whole=number in (0, 2)) for number, s in enumerate(samples)]
    return [replace(s, path=str(path), group=f"{NAME}^{s.group}") for s, path in zip(samples, paths, strict=True)]


@pytest.fixture(scope="module")
def trained(made: list[Sample], tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Path]:
    """A folder with all that a training run leaves: run/, mlflow.db, mlruns/, and what was said."""
    folder = tmp_path_factory.mktemp("trained")
    short = ["stage1.steps=1", "stage2.steps=1", "stage3.steps=1", "stage4.steps=1", "evaluation.questions=1"]
    changes = [f"out={folder}/run", f"tracking=sqlite:///{folder}/mlflow.db", "data.n=10", *short]
    recipe = load(Recipe, repository / "configs" / "smoke" / "radiology.yaml", changes)
    recipe = recipe.model_copy(update={"experts": recipe.experts[:1]})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Radiology, "synth", lambda *_: made)
        with heard(folder / "said.txt"):
            train(recipe)
        yield folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small radiograph with nothing planted."""
    path = Path(synth.study(tmp_path_factory.mktemp("plain"), 1, 0).path)
    ds = pydicom.dcmread(path)
    small = np.ascontiguousarray(ds.pixel_array[::8, ::8])
    (ds.Rows, ds.Columns), ds.PixelData = small.shape, small.tobytes()
    return planted.save(ds, path)


def single(plain: Path, path: Path, **values: Any) -> Path:
    """A planted radiograph with some elements as they are given; those of file meta too, None for gone."""
    ds = plant(pydicom.dcmread(plain), 99, whole=False)
    for keyword, value in values.items():
        place, vr = ds.file_meta if keyword == "TransferSyntaxUID" else ds, dictionary_VR(keyword).partition(" ")[0]
        place[keyword] = wrong(keyword, vr) if value == WORD else element(keyword, vr, value)
    return planted.save(ds, path)


@pytest.fixture(scope="module")
def broken(plain: Path, made: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Planted files of one folder that are refused or fail, each for another reason."""
    folder = tmp_path_factory.mktemp("broken") / f"{NAME}^FILES"
    folder.mkdir()
    values = {
        "short": {"PixelData": WORD.encode()[:8]},
        "rows": {"Rows": 0},
        "burned": {"BurnedInAnnotation": "YES"},
        "syntax": {"TransferSyntaxUID": f"{planted.ROOT}.9"},
        "number": {"WindowCenter": WORD},
    } | {
        syntax.keyword: {"TransferSyntaxUID": syntax, "PixelData": encapsulate([WORD.encode()])}
        for syntax in (JPEG2000Lossless, JPEGLSLossless, RLELossless)
    }
    files = [single(plain, folder / f"{NAME}_{name}.dcm", **given) for name, given in values.items()]
    whole = {
        ".dcm": single(plain, folder / f"{NAME}_cut.dcm").read_bytes()[:2000],
        ".png": planted.pictures(folder)[0].read_bytes()[:-900],
        ".nii.gz": planted.volume(folder).read_bytes()[:-900],
        ".bin": b"\0\1\2" + WORD.encode(),
    }
    for path in folder.glob(f"{NAME}.*"):
        path.unlink()
    for end, data in whole.items():
        files.append(folder / f"{NAME}_cut{end}")
        files[-1].write_bytes(data)
    (folder / f"{NAME}.txt").write_text(WORD)
    files.append(folder / f"{NAME}_gap")
    shutil.copytree(made[2].path, files[-1], ignore=shutil.ignore_patterns("*0010.dcm"))
    return files


def test_the_search_finds_what_is_hidden() -> None:
    for word in (*SECRETS, NAME):
        assert secrets(f"a {word} b".encode("utf-16-be")) == {word}
        assert secrets(gzip.compress(b"a" + word.encode())) == {word}
        assert secrets(b"src='data:image/png;base64," + b64encode(gzip.compress(word.encode())) + b"'") == {word}
    for before in ("", "a", "ab"):
        assert secrets(b64encode(f"{before}{WORD} and".encode())) == {WORD}


def test_all_that_is_said_is_heard(tmp_path: Path) -> None:
    with heard(tmp_path / "said.txt"):
        print("a print")
        os.write(2, b"a library in C\n")
        logging.getLogger("deep.down").debug("a log")
        warnings.warn("a warning", stacklevel=1)
    text = (tmp_path / "said.txt").read_text()
    assert all(words in text for words in ("a print", "a library in C", "a log", "a warning"))


def test_the_files_hold_what_is_searched_for(made: list[Sample]) -> None:
    for sample in (made[0], made[2]):
        path = Path(sample.path)
        first = sorted(path.iterdir())[0] if path.is_dir() else path
        assert secrets(first.read_bytes()) == set(SECRETS)
        assert NAME in first.name
        ds = pydicom.dcmread(first)
        assert len(ds) > 4000
        assert WORD.encode() in ds.preamble


def test_a_study_is_silent_about_its_header(made: list[Sample], tmp_path: Path) -> None:
    domain, said = registry.domain("radiology"), tmp_path / "said.txt"
    bare = pydicom.dcmread(made[0].path)
    paths = [Path(sample.path) for sample in made[:3]]
    paths += [planted.save(plant(bare, 9, set()), tmp_path / f"{NAME}_bare.dcm")]
    paths += [*planted.pictures(tmp_path), planted.volume(tmp_path)]
    with heard(said):
        texts = [everything(domain, path) for path in paths]
    assert all(map(clean, texts))
    assert clean(said.read_text())
    assert "view" in texts[0]
    assert "'view'" not in texts[3]


def test_a_scene_is_silent_about_its_header(tmp_path: Path) -> None:
    domain, said = registry.domain("remote_sensing"), tmp_path / "said.txt"
    paths = [planted.scene(tmp_path, system) for system in planted.SYSTEMS]
    with heard(said):
        texts = [everything(domain, path) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        assert clean(text), path.name
    assert clean(said.read_text())


def test_a_system_without_its_names_is_the_same_place(tmp_path: Path) -> None:
    grid = registry.domain("remote_sensing").load(planted.scene(tmp_path, "datum")).images[0].grid
    assert "European_Datum_1950" in grid.frame
    given = planted.SYSTEMS["datum"]
    systems = given, grid.frame, given.replace("European_Datum_1950", "x")
    before, after, unknown = (transform(system, "EPSG:4326", [300_000], [5_000_000]) for system in systems)
    np.testing.assert_allclose(after, before, atol=1e-9)
    assert abs(np.subtract(unknown, before)).max() > 1e-4


@pytest.mark.parametrize("keyword", sorted(planted.NEEDED | planted.TOLD | {"TransferSyntaxUID", "NumberOfFrames"}))
def test_a_value_of_the_wrong_kind_is_not_repeated(keyword: str, plain: Path, tmp_path: Path) -> None:
    with heard(tmp_path / "said.txt"):
        text = failure(registry.domain("radiology"), single(plain, tmp_path / f"{NAME}.dcm", **{keyword: WORD}))
    assert clean(text)
    assert clean((tmp_path / "said.txt").read_text())


def test_an_error_tells_no_name_and_no_value(broken: list[Path], tmp_path: Path) -> None:
    domain = registry.domain("radiology")
    for path in broken:
        with heard(tmp_path / "said.txt"):
            text = failure(domain, path)
        assert text.startswith("refused: "), path.name
        assert clean(text), path.name
        assert clean((tmp_path / "said.txt").read_text()), path.name


def test_a_training_run_keeps_paths_and_nothing_of_headers(trained: Path) -> None:
    files = [path for path in trained.rglob("*") if path.is_file()]
    kinds = {path.relative_to(trained).parts[:2] for path in files}
    assert {("run", name) for name in ("data", "experts", "findings", "features", "stage1", "stage4")} <= kinds
    assert any(path.parts[0] == "mlruns" for path in (file.relative_to(trained) for file in files))
    assert b"stage 4" in (trained / "mlflow.db").read_bytes()
    assert "stage 4 inherits" in (trained / "said.txt").read_text()
    found = {path.relative_to(trained): secrets(path.read_bytes() + path.name.encode()) for path in files}
    assert set().union(*found.values()) == {NAME}, "names of files and patients stay with the truth, and with grades"
    named = [path for path, words in found.items() if words]
    assert all(str(path.parent) == "run/data/truth" or str(path) == "run/answers.json" for path in named), named


def test_commands_tell_nothing_of_headers(
    trained: Path, made: list[Sample], broken: list[Path], tmp_path: Path
) -> None:
    said = tmp_path / "said.txt"
    for sample in made[:3]:
        for code, text in (
            fovea(said, "inspect", sample.path),
            fovea(said, "ask", trained / "run", sample.path, QUESTION),
        ):
            assert code == 0, text
            assert clean(text)
    for path in (*planted.pictures(tmp_path), planted.volume(tmp_path), planted.scene(tmp_path, "own")):
        code, text = fovea(said, "inspect", path)
        assert code == 0, text
        assert clean(text)
    for path in broken:
        for command in (("inspect", path), ("ask", trained / "run", path, QUESTION)):
            code, text = fovea(said, *command)
            assert code == cli.REFUSED
            assert clean(text), path.name


def test_reports_tell_nothing_and_the_terminal_names_files_alone(
    trained: Path, made: list[Sample], broken: list[Path], tmp_path: Path
) -> None:
    out, said = tmp_path / "out", tmp_path / "said.txt"
    others = [planted.scene(tmp_path, "own"), broken[0].parent]
    paths = [*(sample.path for sample in made[:3]), *planted.pictures(tmp_path), planted.volume(tmp_path), *others]
    code, text = fovea(said, "report", trained / "run", *paths, "--out", out)
    assert code == cli.REJECTS, text
    listing = json.loads((out / "index.json").read_text())
    assert len(listing["failures"]) == len(broken) + 1
    assert len(listing["reports"]) == len(paths) - len(others)
    for path in out.rglob("*"):
        assert not secrets(path.name.encode() + path.read_bytes()), path.name
    named = [line for line in text.splitlines() if secrets(line.encode())]
    assert len(named) == len(broken) + 2
    for line in named:
        assert secrets(line.encode()) == {NAME}
        assert re.search(r"(\]|^)input \d+, /|^left out, ", line), line


def test_a_training_that_fails_names_no_file(
    broken: list[Path], tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = repository / "configs" / "smoke" / "radiology.yaml"
    for path in broken[::3]:
        monkeypatch.setattr(Radiology, "synth", lambda *_, path=path: [Sample(str(path), NAME, Facts((), frozenset()))])
        place = (f"out={tmp_path}/run", f"tracking=sqlite:///{tmp_path}/mlflow.db")
        code, text = fovea(tmp_path / "said.txt", "train", recipe, *place)
        assert code == cli.REFUSED
        assert clean(text), path.name
    assert not secrets((tmp_path / "mlflow.db").read_bytes())
