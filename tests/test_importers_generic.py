"""Importers of archives, of LLaVA's JSON and of Hugging Face's tables, and the way back to LLaVA's JSON."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_sets import (
    GENERIC,
    chat_rows,
    encoded,
    llava,
    packed,
    picture,
    reader,
    run,
    said,
    saved_to_disk,
    turn,
    written,
)

from curriculum.data.importers import load_records
from curriculum.data.importers.conversations import export_llava, placed, to_llava, turns
from curriculum.data.importers.source import Row
from curriculum.data.importers.tarballs import MEMBER, members
from fovea.errors import InputError, LimitError
from fovea.types import Message, Part, Record


@pytest.fixture
def read(tmp_path):
    return reader(GENERIC, tmp_path)


@pytest.mark.parametrize("name", GENERIC)
def test_every_set_is_read_whole_and_twice_the_same(name, read):
    found = read(name)
    entries = list(found)
    assert len({item.record.id for item in entries}) == len(entries) > 0
    for item in entries:
        assert all(found.path(key).is_file() for key in item.record.images)
        shown = [part.image for message in item.record.messages for part in message.parts if part.image is not None]
        assert shown == list(range(len(item.record.images)))
        assert all(text == text.strip() != "" for text in said(item))
    before = {path: path.read_bytes() for path in found.folder.rglob("*") if path.is_file()}
    read(name)
    assert before == {path: path.read_bytes() for path in found.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", GENERIC)
def test_a_folder_of_something_else_is_refused(name, read, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="a folder without"):
        read(name)


def test_rsteller_keeps_all_captions_and_the_place_over_the_years(read):
    entries = list(read("rsteller"))
    assert [said(item)[1] for item in entries[:2]] == ["A wooded area lies at the top.", "Woods lie to the north."]
    assert [item.attributes for item in entries[:2]] == [
        {"task": "1", "annotator": "a/Small"},
        {"task": "3", "annotator": "a/Nemo"},
    ]
    assert {item.record.group: item.split for item in entries} == {
        "rsteller/m_4107501_ne": "train",
        "rsteller/m_4107501_nw": "validation",
    }
    assert len(entries) == 8
    assert len({item.record.images for item in entries}) == 4


def test_gaia_loses_the_words_that_all_captions_begin_with(read):
    entries = list(read("gaia"))
    assert len(entries) == 30
    assert all(re.fullmatch(r"a fire seen \d times\.", said(item)[1]) for item in entries)
    assert {item.split for item in entries} == {"train", "validation", "test"}
    assert {item.record.group for item in entries if item.split == "test"} == {"gaia/test0", "gaia/test1"}
    assert entries[0].attributes == {"lat": "38.0", "lon": "23.5", "sensor": "MODIS"}


def test_a_sample_is_what_shares_a_name_and_what_lacks_a_part_is_counted(read):
    found = read("webdataset")
    told = {item.original: (said(item)[1], item.split) for item in found}
    assert told == {"train-0/a.b/x/1": ("Über", "train"), "test-0/x/1": ("One", "test")}
    assert found.info["left_out"] == {"a sample without a caption": 1}


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ([("a.jpg", encoded(1)), ("a.json", b"{zebra")], "sample 1 of x.tar"),
        (
            [("0.jpg", encoded(1)), ("0.txt", b"Zero"), ("a.jpg", encoded(1)), ("a.json", b'["zebra"]')],
            "sample 2 of x.tar",
        ),
        ([("a.jpg", encoded(1)), ("a.txt", b"\xff\xfezebra")], "sample 1 of x.tar"),
        ([("a.jpg", encoded(1)), ("a.json", b'{"captions": ["One", 7]}')], "sample 1 of x.tar"),
        ([("a.jpg", encoded(1)), ("a.jpg", encoded(1))], "sample 1 of x.tar"),
    ],
)
def test_a_malformed_sample_is_told_by_its_number(files, place, tmp_path):
    packed(tmp_path / "set" / "x.tar", files)
    with pytest.raises(InputError, match=re.escape(place)) as raised:
        run("webdataset", tmp_path / "set", tmp_path / "out")
    assert "zebra" not in str(raised.value)


def test_a_malformed_annotation_is_told_by_its_number(tmp_path):
    about = {"patch_id": 1, "image_name": "m_1_ne_"}
    for told, place in (
        ({"metadata": about, "annotations": [{"text": "One"}, {"task": 1}]}, "annotation 2 of sample 1"),
        ({"metadata": about, "annotations": "zebra"}, "sample 1 of train.tar"),
        ({"metadata": "zebra", "annotations": [{"text": "One"}]}, "sample 1 of train.tar"),
    ):
        packed(tmp_path / "set" / "train.tar", [("1.jpg", encoded(1)), ("1.json", json.dumps(told).encode())])
        with pytest.raises(InputError, match=re.escape(place)):
            run("rsteller", tmp_path / "set", tmp_path / "out")


def test_bytes_that_are_no_picture_are_counted(tmp_path):
    packed(tmp_path / "set" / "x.tar", [(f"{n}.jpg", data) for n, data in enumerate((encoded(1), b"<svg/>"))])
    packed(tmp_path / "set" / "y.tar", [("a.jpg", encoded(1)), ("a.txt", b"A"), ("b.jpg", b"<svg/>"), ("b.txt", b"B")])
    found = run("webdataset", tmp_path / "set", tmp_path / "out")
    assert [said(item)[1] for item in found] == ["A"]
    assert found.info["left_out"] == {"a picture of unknown format": 1, "a sample without a caption": 2}


def test_real_pictures_come_out_of_an_archive_as_they_went_in(data_dir, tmp_path):
    chips = sorted((data_dir / "rs" / "dubai_chips").glob("*.jpg"))[:40]
    parts = [
        (f"{chip.stem}{end}", data) for chip in chips for end, data in ((".jpg", chip.read_bytes()), (".txt", b"A"))
    ]
    packed(tmp_path / "set" / "x.tar", parts)
    found = run("webdataset", tmp_path / "set", tmp_path / "out")
    assert [found.path(item.record.images[0]).read_bytes() for item in found] == [chip.read_bytes() for chip in chips]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("a.jpg", tarfile.LNKTYPE, "../../secret"),
        special("a.jpg", tarfile.FIFOTYPE),
        special("a.jpg", tarfile.CHRTYPE),
        special("../a.jpg", tarfile.REGTYPE),
        special("/etc/a.jpg", tarfile.REGTYPE),
        special("x/../../a.jpg", tarfile.REGTYPE),
        special("C:\\a.jpg", tarfile.REGTYPE),
    ],
    ids=lambda info: info.name + info.type.decode(),
)
def test_links_devices_and_names_that_lead_out_are_refused(member, tmp_path):
    packed(tmp_path / "set" / "x.tar", [("ok.jpg", encoded(1)), ("ok.txt", b"Fine"), (member, b"")])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"link, device|leads out"):
        run("webdataset", tmp_path / "set", tmp_path / "out")
    assert not (tmp_path / "out" / "records.jsonl").exists()
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])


def test_folders_are_passed_over_and_many_of_them_are_no_bomb(tmp_path):
    folders = [(special(f"d{n}", tarfile.DIRTYPE), b"") for n in range(5000)]
    packed(tmp_path / "x.tar.gz", [*folders, ("d1/a.txt", b"A")], "w:gz")
    assert [*members(tmp_path / "x.tar.gz")] == [("d1/a.txt", b"A")]


def test_a_member_above_the_limit_is_refused_before_it_is_read(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size = MEMBER + 1
    (tmp_path / "x.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(LimitError, match="a tar member"):
        list(members(tmp_path / "x.tar"))


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    info = special("a.jpg", tarfile.REGTYPE)
    info.size = MEMBER
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=9) as stream:
        for _ in range(3):
            stream.write(info.tobuf() + bytes(MEMBER))
    assert (tmp_path / "x.tar.gz").stat().st_size < 2**20
    with pytest.raises(LimitError, match="unpacks"):
        list(members(tmp_path / "x.tar.gz"))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_is_not_held_in_memory_whatever_it_declares(kind, tmp_path):
    info = special("a.jpg", kind)
    info.size = 2**40
    with (tmp_path / "x.tar").open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**41)  # takes no room on disk
    with pytest.raises(LimitError, match="more than it declares"):
        list(members(tmp_path / "x.tar"))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_damaged_archives_raise_nothing_but_our_errors(mode, tmp_path):
    packed(tmp_path / "whole", [(f"{n}.txt", bytes([n]) * (n * 97)) for n in range(12)], mode)
    whole, rng = (tmp_path / "whole").read_bytes(), random.Random(0)
    refused = 0
    for trial in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 40))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if trial % 3 == 0:
            del data[rng.randrange(len(data)) :]
        (tmp_path / "x.tar").write_bytes(data)
        try:
            list(members(tmp_path / "x.tar"))
        except InputError:
            refused += 1
    assert refused > 100


def test_an_archive_that_is_cut_off_between_members_is_no_whole_one(tmp_path):
    packed(tmp_path / "whole", [(f"{n}.txt", bytes([n]) * 600) for n in range(4)])
    whole = (tmp_path / "whole").read_bytes()
    for number in range(1, 5):
        (tmp_path / "x.tar").write_bytes(whole[: number * 1536])
        with pytest.raises(InputError, match="cut off"):
            list(members(tmp_path / "x.tar"))
    (tmp_path / "x.tar").write_bytes(whole[: 4 * 1536 + 1024])
    assert len(list(members(tmp_path / "x.tar"))) == 4


def test_llava_items_become_records_with_their_pictures_in_place(read):
    found = read("llava")
    items = {item.original: item for item in found}
    one, two, text, med = (items[key] for key in ("train.json/1", "train.json/2", "train.json/3", "test.jsonl/1"))
    assert [m.parts for m in one.record.messages] == [(Part(image=0), Part("What is it?")), (Part("A cat."),)]
    assert two.record.images == ("source/images/coco/1.png", "source/images/coco/2.png")
    assert two.record.messages[0].parts == (Part("Is"), Part(image=0), Part("before"), Part(image=1), Part("?"))
    assert [m.role for m in two.record.messages] == ["user", "assistant"] * 2
    assert text.record.images == ()
    assert [m.role for m in text.record.messages] == ["system", "user", "assistant"]
    assert med.attributes == {"domain": "ct_scan"}
    assert med.record.messages[0].parts == (Part(image=0), Part("What?"))
    assert (one.split, med.split) == ("train", "test")
    assert found.info["left_out"] == {"an empty turn": 1, "an item with a video": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"conversations": "zebra"},
        {"conversations": []},
        {"conversations": ["zebra"]},
        {"conversations": [turn("zebra", "Hello")]},
        {"conversations": [turn(["human"], "Hello")]},
        {"conversations": [turn("human", 7)]},
        {"conversations": [turn("human", "<image> or <image>?")]},
        {"conversations": [turn("gpt", "Hello")]},
        {"conversations": [{"from": "human"}]},
        {"image": 7},
        {"image": ["coco/0.png", "coco/1.png"]},
        {"image": None},
    ],
)
def test_a_malformed_item_is_told_by_its_number(change, read, tmp_path):
    read("llava")
    items = json.loads((tmp_path / "llava" / "train.json").read_text())
    items[0].update(change)
    written(tmp_path / "llava" / "train.json", items)
    with pytest.raises(InputError, match=r"(item|turn) 1 of (item 1 of )?train\.json") as raised:
        read("llava")
    assert "zebra" not in str(raised.value)


def test_a_path_that_leads_out_is_refused(read, tmp_path):
    read("llava")
    picture(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        item = {"image": name, "conversations": [turn("human", "What?"), turn("gpt", "That.")]}
        written(tmp_path / "llava" / "train.json", [item])
        with pytest.raises(InputError, match="leads out"):
            read("llava")


def test_a_missing_picture_is_counted(read, tmp_path):
    read("llava")
    (tmp_path / "llava" / "images" / "coco" / "1.png").unlink()
    found = read("llava")
    assert found.info["missing_files"] == 1
    assert [item.original for item in found] == ["test.jsonl/1", "train.json/1", "train.json/3"]


WORDS = (
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12).map(str.strip).filter(lambda t: t and "<" not in t)
)


@st.composite
def records(draw):
    """A record whose texts do not touch each other."""
    messages, images = [], 0
    for number in range(draw(st.integers(1, 4))):
        parts = []
        for _ in range(draw(st.integers(1, 3))):
            if number % 2 == 0 and draw(st.booleans()):
                parts.append(Part(image=images))
                images += 1
            if not parts or parts[-1].image is not None:
                parts.append(Part(draw(WORDS)))
        messages.append(Message("assistant" if number % 2 else "user", tuple(parts)))
    return Record("a", "g", "conversation", tuple(messages), tuple(f"source/{n}.png" for n in range(images)))


@given(records())
def test_what_is_written_for_llava_reads_back_as_it_was(record):
    item = json.loads(json.dumps(to_llava(record, [key.removeprefix("source/") for key in record.images])))
    row = Row(item, 1, "x", "item")
    assert placed(row, turns(row), len(record.images)) == record.messages


def test_an_exported_set_imports_as_the_same_records(read, tmp_path):
    found = read("llava")
    root = tmp_path / "llava"
    count = export_llava(found, tmp_path / "again" / "x.json", root) if (tmp_path / "again").mkdir() is None else 0
    assert count == len(list(found)) == len(json.loads((tmp_path / "again" / "x.json").read_text()))
    (tmp_path / "again" / "images").symlink_to(root / "images")
    again = run("llava", tmp_path / "again", tmp_path / "again-out")
    bare = [[replace(item.record, id="", group="") for item in both] for both in (found, again)]
    assert bare[0] == bare[1]
    assert export_llava(found, tmp_path / "test.json", root, "test") == 1


def test_an_image_outside_of_the_image_folder_is_refused_and_nothing_is_written(read, tmp_path):
    found = read("llava")
    with pytest.raises(InputError, match="outside of the image folder"):
        export_llava(found, tmp_path / "x.json", tmp_path / "llava-out")
    assert not list(tmp_path.glob("*x.json*"))
    with pytest.raises(InputError, match="<image>"):
        to_llava(Record("a", "g", "k", (Message("user", (Part("An <image> tag"),)),)), [])


def test_stored_pictures_are_exported_too(read, tmp_path):
    found = read("rsteller")
    export_llava(found, tmp_path / "x.json", found.folder)
    items = json.loads((tmp_path / "x.json").read_text())
    assert len(items) == 8
    assert all((found.folder / item["image"]).is_file() for item in items)
    assert all(item["conversations"][0]["value"] == "<image>\nDescribe the picture." for item in items)


def test_rows_of_hugging_face_have_their_bytes_stored_and_paths_named(read):
    found = read("huggingface")
    entries = list(found)
    assert len(entries) == 9
    assert {item.split for item in entries} == {"train", "validation", "test"}
    last = entries[-1]
    assert last.record.images[0].startswith("images/")
    assert last.record.images[1] == "source/raw/1.png"
    assert last.record.messages[0].parts == (Part("First"), Part(image=0), Part("then"), Part(image=1))
    texts = {said(item)[-1] for item in entries}
    assert {"Number 0.", "Number 1.", "Number 2."} <= texts
    stored = {key for item in entries for key in item.record.images if key.startswith("images/")}
    assert {found.path(key).read_bytes() for key in stored} == {encoded(n) for n in range(3)}


def test_what_save_to_disk_writes_is_read_without_its_caches(tmp_path):
    saved_to_disk(tmp_path / "set")
    found = run("huggingface", tmp_path / "set", tmp_path / "out")
    assert [item.original for item in found] == [
        f"{split}/data-00000-of-00001.arrow/{n}" for split in ("test", "train") for n in (1, 2, 3)
    ]
    assert {item.original.partition("/")[0]: item.split for item in found} == {"train": "train", "test": "test"}


def test_parquet_and_arrow_say_the_same(read, tmp_path):
    saved_to_disk(tmp_path / "saved")
    one, two = read("huggingface"), run("huggingface", tmp_path / "saved", tmp_path / "saved-out")
    for split in ("train",):
        sides = [[(i.record.messages, i.record.images) for i in found if i.split == split] for found in (one, two)]
        assert sides[0] == sides[1] != []


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables_that_are_cut_short_or_have_no_messages_are_refused(suffix, tmp_path):
    import pyarrow
    from pyarrow import parquet

    def table(rows, cut=0):
        whole = pyarrow.Table.from_pylist(rows)
        stream = io.BytesIO()
        if suffix == "arrow":
            with pyarrow.ipc.new_stream(stream, whole.schema) as writer:
                writer.write_table(whole)
            written(tmp_path / "set" / "state.json", {"_data_files": [{"filename": "x.arrow"}]})
        else:
            parquet.write_table(whole, stream)
        data = stream.getvalue()
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"x.{suffix}").write_bytes(data[: len(data) - cut])

    for rows, cut, expected in (
        (chat_rows(1), 300, "cannot be read"),
        ([{"text": "zebra"}], 0, "without messages"),
        ([{"messages": [{"role": "zebra", "content": "x"}]}], 0, "turn 1 of"),
        ([{"messages": [{"role": "user", "content": "x"}], "images": [{"bytes": None, "path": None}]}], 0, "1 of"),
    ):
        table(rows, cut)
        with pytest.raises(InputError, match=expected) as raised:
            run("huggingface", tmp_path / "set", tmp_path / "out")
        assert "zebra" not in str(raised.value)


def test_a_state_that_names_a_file_elsewhere_is_refused(tmp_path):
    saved_to_disk(tmp_path / "set")
    written(tmp_path / "set" / "train" / "state.json", {"_data_files": [{"filename": "../../x.arrow"}]})
    with pytest.raises(InputError, match="leads out"):
        run("huggingface", tmp_path / "set", tmp_path / "out")


def test_an_imported_set_is_found_again(tmp_path):
    llava(tmp_path / "set")
    run("llava", tmp_path / "set", tmp_path / "out")
    assert len(list(load_records(tmp_path / "out"))) == 4
