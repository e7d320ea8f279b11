"""What all importers share: streams of rows, errors that tell the place, keys of images, and what is written."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from medical_sets import mimic, picture, vqa_rad

from curriculum.data.importers import Entry, Labelled, SourceFolder, entry, import_set, importer, load_records
from curriculum.data.importers.source import inside
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.jsonable import from_json, to_json
from fovea.types import Box, OrientedBox, Polygon


@pytest.fixture
def folder(tmp_path):
    """A source folder, empty."""
    (tmp_path / "src").mkdir()
    return SourceFolder(tmp_path / "src", tmp_path / "out")


class Toy:
    """One entry an image that the folder holds or lacks."""

    name, title, licence, citation, url = "toy", "Toy", "CC0 1.0", "none", "none"

    def __init__(self, images: list[str]) -> None:
        self.images = images

    def entries(self, source):
        for number, image in enumerate(self.images):
            yield entry(self, str(number), image, "question", [source.image(image)], [("What?", "That.")])


def test_rows_are_read_from_csv_and_gzip_alike(folder):
    text = 'a,b,\r\n1,"two\nlines",\r\n\r\n2,,\r\n'
    (folder.root / "plain.csv").write_text(text, newline="")
    (folder.root / "packed.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    for name in ("plain.csv", "packed.csv"):
        rows = list(folder.csv(name, columns=("a", "b")))
        assert [(row.values, row.line) for row in rows] == [
            ({"a": "1", "b": "two\nlines"}, 3),
            ({"a": "2", "b": ""}, 5),
        ]


@pytest.mark.parametrize("bad", ["1\n", "1,2,3\n", '"1"x,2\n', '"1,2\n'])
def test_a_malformed_row_is_told_by_its_line(bad, folder):
    (folder.root / "t.csv").write_text(f"a,b\n1,2\n{bad}")
    with pytest.raises(InputError, match=r"line 3 of t\.csv"):
        list(folder.csv("t.csv"))


def test_missing_columns_files_and_encodings_are_told(folder):
    (folder.root / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns c, d"):
        list(folder.csv("t.csv", columns=("a", "c", "d")))
    with pytest.raises(InputError, match=r"without other\.csv"):
        list(folder.csv("other.csv"))
    (folder.root / "t.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(InputError, match="UnicodeDecodeError"):
        list(folder.csv("t.csv"))
    (folder.root / "t.csv").unlink()
    (folder.root / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 5000)[:-20])
    with pytest.raises(InputError, match="EOFError"):
        list(folder.csv("t.csv"))


def test_a_line_without_end_is_refused(folder, monkeypatch):
    monkeypatch.setattr("curriculum.data.importers.source.LINE", 1000)
    (folder.root / "t.csv").write_text("a\n" + "x" * 5000)
    with pytest.raises(LimitError):
        list(folder.csv("t.csv"))
    monkeypatch.setattr("curriculum.data.importers.source.WHOLE", 1000)
    (folder.root / "t.json.gz").write_bytes(gzip.compress(b" " * 5000))
    with pytest.raises(LimitError):
        folder.json("t.json")


def test_json_lines_and_lists_tell_their_place(folder):
    (folder.root / "t.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n[1]\n')
    rows = folder.jsonl("t.jsonl")
    assert [next(rows)["a"], next(rows)["a"]] == [1, 2]
    with pytest.raises(InputError, match=r"line 4 of t\.jsonl"):
        next(rows)
    (folder.root / "t.json").write_text('[{"a": null}, 3]')
    items = folder.items("t.json")
    with pytest.raises(InputError, match=r"item 1 of t\.json"):
        next(items)["a"]
    with pytest.raises(InputError, match=r"item 2 of t\.json"):
        next(items)
    (folder.root / "t.json").write_text("[" * 100_000)
    with pytest.raises(InputError):
        folder.json("t.json")


def test_values_are_numbers_or_text(folder):
    (folder.root / "t.json").write_text('[{"n": "1.5", "bad": "x", "inf": "inf", "list": [], "t": " a "}]')
    row = next(folder.items("t.json"))
    assert row.number("n") == 1.5
    assert row.text("t") == "a"
    assert row.get("none") == ""
    for broken in (lambda: row.number("bad"), lambda: row.number("inf"), lambda: row.text("list"), lambda: row["no"]):
        with pytest.raises(InputError, match="item 1"):
            broken()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..\\x", "C:\\x", "", "a\0b"])
def test_names_that_lead_out_are_refused(name, folder):
    for use in (inside, folder.image, folder.has):
        with pytest.raises(InputError, match="leads out"):
            use(name)


@given(st.text(max_size=30))
def test_no_name_leads_out(name):
    try:
        kept = inside(name)
    except InputError:
        return
    assert not kept.startswith("/")
    assert ".." not in kept.split("/")


def test_stored_images_are_named_by_content(folder):
    data = picture(folder.root / "a.png").read_bytes()
    key = folder.store(data)
    assert key == folder.store(data)
    assert (folder.out / key).read_bytes() == data
    assert key.endswith(".png")
    with pytest.raises(UnsupportedError):
        folder.store(b"<svg/>")


def test_an_entry_survives_json():
    regions = (
        Labelled("a", Box((0, 1, 2), (1, 3, 4))),
        Labelled("b", OrientedBox((1, 2), 3, 4, 5), 1),
        Labelled("c", Polygon(((0, 1), (2, 3), (4, 5)))),
    )
    made = entry(
        Toy([]), "1", "g", "question", ["source/a.png", "images/b.png"], [("q", "a"), ("r", "b")],
        split="test", labels={"x": 1, "y": None, "z": -1}, regions=regions, mask="source/m.png", attributes={"k": "v"},
    )  # fmt: skip
    again = from_json(Entry, json.loads(json.dumps(to_json(made))))
    assert to_json(again) == to_json(made)
    assert again.record == made.record
    assert [r.region for r in again.regions] == [r.region for r in regions]


def test_missing_images_are_counted_and_all_missing_is_an_error(tmp_path):
    source = tmp_path / "src"
    picture(source / "a.png")
    info = import_set(Toy(["a.png", "b.png", "c.png"]), source, tmp_path / "out")
    assert info["records"] == {"none": 1}
    assert info["missing_files"] == 2
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    with pytest.raises(InputError, match="all 2 files"):
        import_set(Toy(["b.png", "c.png"]), source, tmp_path / "out")
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "records.jsonl"]


def test_nothing_is_left_of_an_import_that_fails(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    vqa_rad(source)
    items = json.loads((source / "VQA_RAD Dataset Public.json").read_text())
    (source / "VQA_RAD Dataset Public.json").write_text(json.dumps([*items, {"qid": "7"}]))
    with pytest.raises(InputError, match="item 7"):
        import_set(importer("vqa-rad"), source, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_the_digest_follows_the_tables(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    mimic(source)
    first = import_set(importer("mimic-cxr"), source, tmp_path / "out")
    report = source / "files/p10/p10000032/s50414267.txt"
    report.write_text(report.read_text().replace("clear", "hazy"))
    second = import_set(importer("mimic-cxr"), source, tmp_path / "out")
    assert first["source_digest"] != second["source_digest"]
    assert first["records_digest"] != second["records_digest"]


def test_a_set_is_read_back_from_a_new_place(tmp_path):
    picture(tmp_path / "src" / "a.png")
    import_set(Toy(["a.png"]), tmp_path / "src", tmp_path / "out")
    (tmp_path / "src").rename(tmp_path / "moved")
    found = load_records(tmp_path / "out", tmp_path / "moved")
    assert [found.path(key).is_file() for item in found for key in item.record.images] == [True]
    for key in ("a.png", "source/../a.png", "images/../../a.png"):
        with pytest.raises(InputError):
            found.path(key)
    with pytest.raises(InputError, match="data import"):
        load_records(tmp_path)


@pytest.mark.parametrize("change", [{"split": "dev"}, {"record": {"images": []}}, {"record": {"id": "x"}}])
def test_changed_records_are_refused(change, tmp_path):
    picture(tmp_path / "src" / "a.png")
    import_set(Toy(["a.png"]), tmp_path / "src", tmp_path / "out")
    path = tmp_path / "out" / "records.jsonl"
    row = json.loads(path.read_text())
    record = row["record"] | change.get("record", {})
    path.write_text(
        json.dumps(row | change | {"record": record if "id" not in change.get("record", {}) else {"id": "x"}})
    )
    with pytest.raises(InputError):
        list(load_records(tmp_path / "out"))


def test_the_source_is_not_the_output(tmp_path):
    with pytest.raises(InputError, match="is the source"):
        import_set(Toy([]), tmp_path, tmp_path)
    with pytest.raises(InputError, match="no folder"):
        import_set(Toy([]), tmp_path / "none", tmp_path / "out")
