"""The check of a set: what is missing, broken, doubled or leaking is found, and what is whole is not blamed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from medical_sets import SETS
from PIL import Image as Pillow
from typer.testing import CliRunner

from apps.cli import app
from apps.report.data_check import write_check
from curriculum.data.check import Check, check_set, cut_short
from curriculum.data.images import DISTANCE, alike, clusters, difference_hash, gray_copy, look, near
from curriculum.data.importers import entry, import_set, importer
from fovea.errors import InputError


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 12), np.uint8)
    return np.asarray(Pillow.fromarray(small).resize(size[::-1], Pillow.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path, **options)
    return path


class Rows:
    """An importer of what it is told: (image, group, split, question, answer)."""

    name, title, licence, citation, url = "rows", "Rows <b>", "CC0 1.0", "none", "none"

    def __init__(self, rows: list[tuple[str, str, str, str, str]]) -> None:
        self.rows = rows

    def entries(self, source):
        for number, (image, group, split, question, answer) in enumerate(self.rows):
            labels = {"mass": number % 2, "edema": -1}
            yield entry(
                self, str(number), group, "q", [source.image(image)], [(question, answer)], split=split, labels=labels
            )


ASKED = ("What is seen?", "A mass.")
CLEAN = [(f"{n}.png", f"g{n}", "train" if n < 4 else "test", ASKED[0], f"Mass {n}.") for n in range(6)]


@pytest.fixture
def made(tmp_path):
    """A set of rows, whose images are random scenes unless they are there, imported and checked."""

    def make(rows: list[tuple[str, str, str, str, str]]) -> Check:
        for number, row in enumerate(rows):
            if not (tmp_path / "src" / row[0]).exists():
                save(tmp_path / "src" / row[0], scene(number))
        import_set(Rows(rows), tmp_path / "src", tmp_path / "out")
        return check_set(tmp_path / "out")

    return make


def told(check: Check) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {problem.text: (problem.count, problem.lines) for problem in check.problems}


def test_a_clean_set_has_no_problem(made):
    check = made(CLEAN)
    assert not check.problems
    assert check.numbers["splits"] == {"test": {"records": 2, "groups": 2}, "train": {"records": 4, "groups": 4}}
    assert check.numbers["labels"]["mass"] == {"train": [2, 2, 0], "test": [1, 1, 0]}
    assert check.numbers["labels"]["edema"] == {"train": [0, 0, 4], "test": [0, 0, 2]}
    assert check.numbers["files"]["pictures"] == 6


def test_missing_and_broken_files_are_faults(made, tmp_path):
    made(CLEAN)
    (tmp_path / "src" / "1.png").unlink()
    path = tmp_path / "src" / "2.png"
    path.write_bytes(path.read_bytes()[:-300])
    (tmp_path / "src" / "3.png").write_bytes(b"no picture")
    check = check_set(tmp_path / "out")
    assert told(check) == {"files are missing": (1, (2,)), "files cannot be read": (2, (3, 4))}
    assert len(check.faults) == 2


def test_a_patient_in_two_splits_is_a_fault(made):
    check = made([*CLEAN, ("6.png", "g1", "test", *ASKED)])
    assert told(check) == {"patients or places stand in several splits": (1, (7,))}
    assert check.faults


def test_no_split_is_no_leak(made):
    assert not made([*CLEAN, ("6.png", "g1", "", *ASKED)]).faults


def test_one_file_in_two_splits_is_a_fault(made):
    check = made([*CLEAN, ("1.png", "other", "test", *ASKED)])
    assert set(told(check)) == {"images stand in several splits"}
    assert check.faults


def test_copies_are_found_by_content_and_by_look(made, tmp_path):
    one = scene(1)
    save(tmp_path / "src" / "1.png", one)
    shutil.copy(tmp_path / "src" / "1.png", tmp_path / "src" / "equal.png")
    brighter = np.clip(one.astype(int) * 0.8 + 30, 0, 255).astype(np.uint8)
    save(tmp_path / "src" / "alike.jpg", np.asarray(Pillow.fromarray(brighter).resize((80, 60))), quality=60)
    rows = [*CLEAN, ("equal.png", "other", "test", *ASKED), ("alike.jpg", "another", "test", *ASKED)]
    check = made(rows)
    assert told(check) == {
        "images of equal content stand in several splits": (1, (7,)),
        "images that look the same stand in several splits": (1, (7,)),
        "images have a copy of equal content": (1, (7,)),
        "images have a copy that looks the same": (1, (7,)),
    }
    assert [(twin.lines, twin.equal) for twin in check.leaks] == [((2, 7), True), ((2, 7, 8), False)]
    within = made([(*row[:2], "train", *row[3:]) for row in rows])
    assert not within.faults
    assert len(within.problems) == 2


def test_flat_pictures_are_no_copies(made, tmp_path):
    for name in ("0.png", "5.png"):
        save(tmp_path / "src" / name, np.zeros((40, 40), np.uint8))
    assert not made(CLEAN).problems


def test_texts_and_repetitions_are_noted(made):
    rows = [
        *CLEAN,
        ("6.png", "g6", "train", "What?", " "),
        ("7.png", "g7", "train", "What?", "The lungs are clear and the"),
        CLEAN[0],
    ]
    assert told(made(rows)) == {
        "texts are empty": (1, (7,)),
        "answers look cut short": (1, (8,)),
        "records repeat an earlier one": (1, (9,)),
    }


@pytest.mark.parametrize("text", ["left lobe", "yes", "No acute process.", "CT (axial)", "3.5 cm", "", "肝"])
def test_whole_texts_are_whole(text):
    assert not cut_short(text)


@pytest.mark.parametrize("text", ["There is a", "Small effusion,", "No mass ...", "word " * 12])
def test_texts_without_an_end_are_cut(text):
    assert cut_short(text)


def test_changed_records_are_a_fault(made, tmp_path):
    made(CLEAN)
    path = tmp_path / "out" / "records.jsonl"
    path.write_text(path.read_text().replace("Mass 0", "Lump 0"))
    assert [problem.text for problem in check_set(tmp_path / "out").faults] == [
        "records.jsonl is not what was imported"
    ]


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.jsonl"):
        check_set(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(InputError, match="without a record"):
        check_set(tmp_path)


def test_a_manifest_is_checked_too(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png", scene(0))
    rows = [
        {"path": "a.png", "group": "p", "split": "train", "label": {"finding": "edema", "masks": {"lung": "m.png"}}},
        {"path": "b.png", "group": "q", "split": "test", "label": {"boxes": [{"name": "mass"}]}, "text": "Seen."},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    check = check_set(tmp_path)
    assert set(told(check)) == {
        "files are missing",
        "images of equal content stand in several splits",
        "images have a copy of equal content",
    }
    assert set(check.numbers["labels"]) == {"edema", "lung", "mass"}


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1), st.integers(0, 60))
def test_the_hash_is_steady_under_brightness_and_scale(seed, contrast, shift):
    small = gray(scene(seed))
    first, second = difference_hash(small), difference_hash(np.float32(small * contrast + shift))
    assert first is not None
    assert np.bitwise_count(first ^ second).sum() <= 3  # rounding where two fields are equal
    larger = difference_hash(gray(scene(seed, (192, 256))))
    assert np.bitwise_count(first ^ larger).sum() <= DISTANCE


def gray(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Pillow.fromarray(pixels).resize((64, 64), Pillow.Resampling.BOX), np.float32)


def test_every_near_pair_is_found():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (150, 256), np.uint8)
    for row in range(50):
        flips = rng.choice(256, row % 25, replace=False)
        bits[row + 50] = bits[row]
        bits[row + 50, flips] ^= 1
    codes = np.packbits(bits, axis=1).view(np.uint64)
    distance = (bits[:, None] != bits[None]).sum(-1)
    expected = {(a, b) for a, b in np.argwhere(distance <= DISTANCE).tolist() if a < b}
    assert len(expected) > 20
    assert sorted(near(codes)) == sorted(expected)


def test_crowds_are_joined_without_comparing_all(monkeypatch):
    monkeypatch.setattr("curriculum.data.images._CROWD", 100)
    codes = np.zeros((500, 4), np.uint64)
    assert len(list(near(codes))) == 499
    assert clusters(500, near(codes), lambda a, b: True) == [list(range(500))]
    assert len(list(near(codes[:50]))) == 50 * 49 // 2


def test_what_is_joined_is_not_compared_again():
    asked = []

    def same(a: int, b: int) -> bool:
        asked.append((a, b))
        return 3 not in (a, b)

    pairs = [(0, 1), (1, 2), (0, 2), (2, 3), (4, 5)]
    assert clusters(6, pairs, same) == [[0, 1, 2], [4, 5]]
    assert asked == [(0, 1), (1, 2), (2, 3), (4, 5)]


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16", "1", "RGBA"])
def test_pictures_of_all_modes_are_read(mode, tmp_path):
    picture = Pillow.fromarray(scene(3))
    deep = Pillow.fromarray(scene(3).astype(np.uint16) * 257)
    (deep if mode == "I;16" else picture.convert(mode)).save(tmp_path / "a.png")
    found = look(tmp_path / "a.png")
    assert found.shape == (96, 128)
    if mode != "1":
        picture.save(tmp_path / "b.png")
        assert alike(tmp_path / "a.png", tmp_path / "b.png")


def test_rasters_and_volumes_are_read(tmp_path):
    import rasterio

    data = np.stack([scene(n).astype(np.float32) / 7 for n in range(13)])
    profile = {"driver": "GTiff", "count": 13, "height": 96, "width": 128, "dtype": "float32", "crs": "EPSG:32632"}
    profile["transform"] = rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as file:
        file.write(data)
    found = look(tmp_path / "a.tif")
    assert found.shape == (96, 128)
    assert found.code is not None
    assert gray_copy(tmp_path / "a.tif")[0].shape == (64, 64)
    (tmp_path / "b.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError):
        look(tmp_path / "b.nii.gz")


def test_the_page_is_whole_and_holds_no_name(made, tmp_path):
    shutil.rmtree(tmp_path / "src", ignore_errors=True)
    save(tmp_path / "src" / "0.png", scene(0))
    shutil.copy(tmp_path / "src" / "0.png", tmp_path / "src" / "secret-name.png")
    check = made([*CLEAN, ("secret-name.png", "secret-patient", "test", *ASKED)])
    page = write_check(check, tmp_path / "check").read_text()
    assert "Rows &lt;b&gt;" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    document = json.loads((tmp_path / "check" / "check.json").read_text())
    assert document["problems"][0]["lines"] == [7]
    for text in (page, json.dumps(document)):
        assert "secret" not in text
        assert str(tmp_path) not in text
    again = (tmp_path / "check" / "check.json").read_bytes()
    write_check(check_set(tmp_path / "out"), tmp_path / "check")
    assert (tmp_path / "check" / "check.json").read_bytes() == again


@pytest.mark.parametrize("name", SETS)
def test_every_imported_set_can_be_checked(name, tmp_path):
    (tmp_path / "src").mkdir()
    SETS[name](tmp_path / "src")
    import_set(importer(name), tmp_path / "src", tmp_path / "out")
    check = check_set(tmp_path / "out")
    assert not [problem for problem in check.problems if "missing" in problem.text or "read" in problem.text]
    assert write_check(check, tmp_path / "check").is_file()


def test_the_commands_import_and_check_with_exit_codes(tmp_path):
    (tmp_path / "src").mkdir()
    SETS["vqa-rad"](tmp_path / "src")
    run = CliRunner().invoke
    source, out = str(tmp_path / "src"), str(tmp_path / "out")
    done = run(app, ["data", "import", "vqa-rad", source, out])
    assert done.exit_code == 0, done.output
    assert "5 records (2 test, 3 train)" in done.output
    assert "licence: CC0 1.0" in done.output
    done = run(app, ["data", "check", out])
    assert done.exit_code == 2
    assert "FAULT: 2 patients or places stand in several splits" in done.output
    assert (tmp_path / "out" / "check" / "check.html").is_file()
    assert run(app, ["data", "import", "vqa-rad", source, out, "--disjoint"]).exit_code == 0
    assert "patients" not in run(app, ["data", "check", out]).output
    listed = run(app, ["data", "import", "--list"])
    assert listed.exit_code == 0
    assert "chexpert" in listed.output
    assert isinstance(run(app, ["data", "import", "none", source, out]).exception, InputError)


def test_real_radiographs_that_were_published_twice_are_found(data_dir):
    rows = [json.loads(line) for line in (data_dir / "manifest.jsonl").read_text().splitlines()]
    paths = [data_dir / row["path"] for row in rows if row["path"].startswith("med/cxr_findings/")]
    looks = [look(path) for path in paths]
    codes = np.array([found.code for found in looks])
    pairs = {frozenset((paths[a].stem, paths[b].stem)) for a, b in near(codes) if alike(paths[a], paths[b])}
    twice = [path.stem for path in paths if path.stem.startswith("16660_")]
    assert sum(any(stem in pair for pair in pairs) for stem in twice) >= 4
    assert len(pairs) < 12  # of 33,670: others are copies too, and no two patients are taken for one
