"""Importers of the remote sensing sets, each on a small set in its published layout."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from published_sets import (
    DISC,
    REMOTE_SENSING,
    dior_annotation,
    dior_object,
    dior_rsvg,
    picture,
    reader,
    rrsis_d,
    run,
    said,
    written,
)

from curriculum.data.importers.grounding import answer, read_segmentation
from curriculum.data.importers.lists import split_of_path
from curriculum.data.importers.scenes import BANDS, CLASSES_19, CLASSES_43, EUROSAT
from curriculum.data.importers.source import Row
from fovea.errors import InputError, LimitError, UnsupportedError
from fovea.types import Box


@pytest.fixture
def read(tmp_path):
    return reader(REMOTE_SENSING, tmp_path)


@pytest.mark.parametrize("name", REMOTE_SENSING)
def test_every_set_is_read_whole_and_twice_the_same(name, read):
    found = read(name)
    entries = list(found)
    assert len({item.record.id for item in entries}) == len(entries) > 0
    for item in entries:
        assert all(found.path(key).is_file() for key in (*item.record.images, item.mask) if key)
        first, last = item.record.messages
        assert [part.image for part in first.parts] == [*range(len(item.record.images)), None]
        assert (first.role, last.role) == ("user", "assistant")
        assert all(text == text.strip() != "" for text in said(item))
    assert found.info["licence"]
    before = [(found.folder / file).read_bytes() for file in ("records.jsonl", "dataset.json")]
    read(name)
    assert before == [(found.folder / file).read_bytes() for file in ("records.jsonl", "dataset.json")]


@pytest.mark.parametrize("name", REMOTE_SENSING)
def test_a_missing_picture_is_counted_and_all_missing_are_an_error(name, read, tmp_path):
    whole = list(read(name))
    (gone, *_) = sorted({key for item in whole for key in item.record.images})
    (tmp_path / name / gone.removeprefix("source/")).unlink()
    left = read(name) if len(whole) > 1 and name not in ("eurosat", "eurosat-ms") else None
    if left:
        assert left.info["missing_files"] == 1
        assert [item.original for item in left] == [item.original for item in whole if gone not in item.record.images]
    pictures = [*(tmp_path / name).rglob("*.jpg"), *(tmp_path / name).rglob("*.tif")]
    for path in pictures:
        path.unlink()
    with pytest.raises(InputError):
        read(name)


@pytest.mark.parametrize(
    "name", sorted({*REMOTE_SENSING} - {"dior-rsvg", "bigearthnet-v2", "rrsis-d", "bigearthnet-43"})
)
def test_no_group_is_in_two_splits(name, read):
    places: dict[str, set[str]] = {}
    for item in read(name):
        places.setdefault(item.record.group, set()).add(item.split)
    assert all(len(splits) == 1 for splits in places.values())


@pytest.mark.parametrize("name", REMOTE_SENSING)
def test_a_folder_of_something_else_is_refused(name, read, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="a folder without"):
        read(name)


@pytest.mark.parametrize("name", ["rsicd", "ucm-captions", "rsitmd"])
def test_each_sentence_is_a_record_and_blank_ones_are_counted(name, read):
    found = read(name)
    entries = list(found)
    splits = {item.record.group: item.split for item in entries}
    assert len(entries) == 5 * len(splits) - 1
    assert found.info["left_out"] == {"a blank sentence": 1}
    assert set(splits.values()) <= {"train", "validation", "test"}
    assert {"train", "test"} <= set(splits.values())
    own = [item for item in entries if "/airport_0." in item.record.group]
    assert len(own) == 5
    assert len({said(item)[1] for item in own}) == 4, "a sentence that the set repeats is kept"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda images: images[1].pop("filename"), "item 2 of dataset.json"),
        (lambda images: images[2].update(split="zebra"), "item 3 of dataset.json"),
        (lambda images: images[0].update(sentences="zebra"), "item 1 of dataset.json"),
        (lambda images: images[0]["sentences"][3].pop("raw"), "sentence 4 of picture 1"),
        (lambda images: images[0]["sentences"].insert(1, "zebra"), "sentence 2 of picture 1"),
        (lambda images: images.append("zebra"), "item 4 of dataset.json"),
    ],
)
def test_a_malformed_picture_is_told_by_its_number(change, place, read, tmp_path):
    read("ucm-captions")
    table = tmp_path / "ucm-captions" / "dataset.json"
    whole = json.loads(table.read_text())
    change(whole["images"])
    written(table, whole)
    with pytest.raises(InputError, match=re.escape(place)) as raised:
        read("ucm-captions")
    assert "zebra" not in str(raised.value)


def test_a_picture_outside_of_the_set_is_refused(read, tmp_path):
    read("rsicd")
    picture(tmp_path / "secret.jpg")
    table = tmp_path / "rsicd" / "annotations_rsicd" / "dataset_rsicd.json"
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg")):
        whole = json.loads(table.read_text())
        whole["images"][0]["filename"] = name
        written(table, whole)
        with pytest.raises(InputError, match="leads out"):
            read("rsicd")


def test_only_active_questions_are_read_and_both_test_sets_of_hr_are_test(read):
    low, high = list(read("rsvqa-lr")), list(read("rsvqa-hr"))
    assert len(low) == 18
    assert len(high) == 16
    tests = {item.attributes["test_set"] for item in high if item.split == "test"}
    assert tests == {"1", "2"}
    assert not any("test_set" in item.attributes for item in [*low, *high] if item.split != "test")
    assert {item.record.kind for item in low} == {"comparison", "count"}
    assert {said(item)[1] for item in low} == {"yes", "7"}
    for item in high:
        assert item.record.images == (f"source/Data/{int(item.original) // 2}.tif",)


def test_pictures_of_one_tile_are_one_group(read):
    groups = {item.record.images[0]: item.record.group for item in read("rsvqa-hr")}
    assert groups["source/Data/0.tif"] == groups["source/Data/4.tif"] == "rsvqa-hr/980217"
    assert len(set(groups.values())) == 4


def test_a_question_without_an_active_answer_is_told_by_its_number(read, tmp_path):
    read("rsvqa-lr")
    table = tmp_path / "rsvqa-lr" / "LR_split_train_answers.json"
    whole = json.loads(table.read_text())
    whole["answers"][1]["active"] = False
    written(table, whole)
    with pytest.raises(InputError, match=r"item 2 of LR_split_train_questions\.json"):
        read("rsvqa-lr")


def test_one_split_alone_can_be_imported(read, tmp_path):
    read("rsvqa-lr")
    for path in (tmp_path / "rsvqa-lr").glob("LR_split_[tv]*[nl]_*.json"):
        path.unlink()
    assert {item.split for item in read("rsvqa-lr")} == {"test"}


def test_boxes_keep_pixels_phrase_and_place(read):
    found = {item.original: item for item in read("dior-rsvg")}
    golf = found["00001/0"]
    (region,) = golf.regions
    assert region.label == "A green and brown golf field"
    assert region.region == Box((0, 237, 133), (1, 472, 684))
    assert said(golf)[1] == "[166, 395, 855, 787]"
    assert golf.labels == {"golffield": 1}
    assert region.label in said(golf)[0]
    assert {key: item.split for key, item in found.items()} == {
        "00001/0": "train",
        "00002/1": "validation",
        "00002/2": "train",
        "00007/4": "test",
    }, "objects are counted over all annotations, those that are left out included"
    assert read("dior-rsvg").info["left_out"] == {"a box that is empty or leaves its picture": 1}


def test_boxes_of_split_files_that_cross_pictures_can_be_kept_apart(read):
    groups = [
        {item.record.group for item in read("dior-rsvg", disjoint=True) if item.split == s}
        for s in ("train", "validation")
    ]
    assert not groups[0] & groups[1]


@given(
    st.tuples(st.integers(0, 700), st.integers(1, 100), st.integers(0, 500), st.integers(1, 100)),
    st.integers(1, 6),
)
def test_an_answer_in_thousandths_holds_at_any_size(sides, factor):
    left, width, top, height = sides
    box = Box((0, top, left), (1, top + height, left + width))
    larger = Box((0, factor * top, factor * left), (1, factor * (top + height), factor * (left + width)))
    text = answer(box, 600, 800)
    assert text == answer(larger, factor * 600, factor * 800)
    back = np.array(json.loads(text)) * [0.8, 0.6, 0.8, 0.6]
    assert abs(back - [left, top, left + width, top + height]).max() <= 0.5


def test_annotations_with_entities_and_objects_without_a_box_are_refused(tmp_path):
    dior_rsvg(tmp_path / "a")
    bomb = '<!DOCTYPE a [<!ENTITY x "zebra"><!ENTITY y "&x;&x;">]><annotation><filename>&y;</filename></annotation>'
    (tmp_path / "a" / "Annotations" / "00001.xml").write_text(bomb)
    with pytest.raises(InputError, match="an XML file"):
        run("dior-rsvg", tmp_path / "a", tmp_path / "out")
    dior_annotation(tmp_path / "b", 1, dior_object("dam", (1, 1, 2, 2), "One"), "<object><name>dam</name></object>")
    with pytest.raises(InputError, match="object 1 of Annotations"):
        run("dior-rsvg", tmp_path / "b", tmp_path / "out")
    dior_annotation(tmp_path / "b", 1, dior_object("dam", (1, 1, 2, 2), "One"))
    (tmp_path / "b" / "train.txt").write_text("0\n00007.jpg\n")
    with pytest.raises(InputError, match=r"line 2 of train\.txt"):
        run("dior-rsvg", tmp_path / "b", tmp_path / "out")


def test_a_phrase_has_the_mask_of_its_object_and_the_box_of_the_mask(read):
    found = read("rrsis-d")
    items = {item.original: item for item in found}
    assert {key: item.split for key, item in items.items()} == {
        "1/1": "train",
        "2/1": "validation",
        "2/2": "validation",
    }
    with Pillow.open(found.path(items["1/1"].mask)) as drawn:
        mask = np.asarray(drawn)
    rows, columns = np.mgrid[:40, :60]
    assert np.array_equal(mask == 255, (rows - 18) ** 2 + (columns - 30) ** 2 < 144)
    assert items["1/1"].regions[0].region == Box((0, 7, 19), (1, 30, 42))
    assert items["2/1"].mask == items["2/2"].mask
    assert items["2/1"].regions[0].region == Box((0, 0, 0), (1, 40, 60))
    assert found.info["left_out"] == {"an empty mask": 1}


def test_a_pickle_is_refused_with_the_way_round(tmp_path):
    rrsis_d(tmp_path / "set")
    harm = tmp_path / "harm"
    refs = tmp_path / "set" / "rrsisd" / "refs(unc).json"
    refs.rename(refs.with_suffix(".p"))
    refs.with_suffix(".p").write_bytes(f"cpathlib\nPath\n(S'{harm}'\ntR.".encode())
    with pytest.raises(UnsupportedError, match=r"pickle.*refs\(unc\)\.json.*python -c"):
        run("rrsis-d", tmp_path / "set", tmp_path / "out")
    assert not harm.exists()


def encode(mask: np.ndarray) -> tuple[list[int], str]:
    """Counts down the columns, and COCO's text of them."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flat)))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    text = ""
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
            if not more:
                break
    return counts, text


def segmentation(value: object) -> Row:
    return Row({"segmentation": value}, 3, "instances.json", "item")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_masks_come_back_from_their_code(rows, columns, seed, share):
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    counts, text = encode(mask)
    size = [rows, columns]
    for value in ({"size": size, "counts": text}, [{"size": size, "counts": counts}]):
        assert np.array_equal(read_segmentation(segmentation(value)), mask)


def test_a_list_of_codes_is_their_union():
    one, two = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    one[1, :], two[:, 2] = True, True
    codes = [{"size": [4, 5], "counts": encode(mask)[1]} for mask in (one, two)]
    assert np.array_equal(read_segmentation(segmentation(codes)), one | two)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
        "zebra",
        {"size": [40, 60], "counts": DISC[:-1]},
        {"size": [40, 61], "counts": DISC},
        {"size": [40, 60], "counts": [-1, 2401]},
        {"size": [40, 60], "counts": "o" * 100},
        {"size": [40.5, 60], "counts": DISC},
        {"size": [40, 60], "counts": 7},
        [{"size": [40, 60], "counts": DISC}, {"size": [1, 1], "counts": [1]}],
    ],
)
def test_a_code_that_does_not_fill_its_picture_is_refused(value):
    with pytest.raises(InputError, match=r"item 3 of instances\.json"):
        read_segmentation(segmentation(value))


def test_a_mask_larger_than_any_picture_is_refused_before_it_is_made():
    with pytest.raises(LimitError):
        read_segmentation(segmentation({"size": [2**20, 2**20], "counts": [2**40]}))


def test_eurosat_answers_with_the_class_of_the_folder(read):
    colour, bands = list(read("eurosat")), list(read("eurosat-ms"))
    assert len(colour) == 30
    assert len(bands) == 10
    for item in [*colour, *bands]:
        (label,) = (name for name, value in item.labels.items() if value)
        assert item.original.startswith(label + "_")
        assert said(item)[1] == EUROSAT[label]
        assert said(item)[1] in said(item)[0]
    listed = {item.original: item.split for item in colour if not item.original.startswith("SeaLake")}
    assert set(listed.values()) == {"train", "validation", "test"}
    assert all(
        split == {"1": "train", "2": "validation", "10": "test"}[name.split("_")[1]] for name, split in listed.items()
    )
    assert {item.split for item in colour if item.original.startswith("SeaLake")} == {""}
    assert {len(item.attributes["bands"].split()) for item in bands} == {13}


def test_patches_of_version_1_have_19_classes_or_the_43_they_came_with(read):
    nineteen, all_ = read("bigearthnet"), list(read("bigearthnet-43"))
    assert [said(item)[1] for item in nineteen] == ["Pastures; Inland waters", "Arable land; Permanent crops"]
    assert nineteen.info["left_out"] == {"none of the 19 classes": 1}
    assert [said(item)[1] for item in all_] == [
        "Pastures; Water bodies",
        "Airports",
        "Rice fields; Vineyards; Airports",
    ]
    for item, classes in [*((item, CLASSES_19) for item in nineteen), *((item, CLASSES_43) for item in all_)]:
        assert tuple(item.labels) == classes
        assert "; ".join(name for name in classes if item.labels[name]) == said(item)[1]
        assert [key.rpartition("_")[2] for key in item.record.images] == [f"{band}.tif" for band in BANDS]
    assert [item.split for item in all_] == ["train", "validation", "test"]
    assert [item.record.group for item in all_] == [f"bigearthnet-43/T33UU{letter}" for letter in "PPQ"]


def test_patches_of_version_2_are_found_by_their_scene(read):
    entries = list(read("bigearthnet-v2"))
    assert [item.split for item in entries] == ["train", "validation", "test"]
    assert {item.record.group for item in entries} == {"bigearthnet-v2/T33UUP"}
    assert [sum(filter(None, item.labels.values())) for item in entries] == [1, 2, 2]
    assert {item.attributes["country"] for item in entries} == {"Austria"}


def test_a_patch_that_leads_elsewhere_or_has_other_labels_is_told_by_its_row(read, tmp_path):
    import pyarrow
    from pyarrow import parquet

    read("bigearthnet-v2")
    table = tmp_path / "bigearthnet-v2" / "metadata.parquet"
    rows = parquet.read_table(table).to_pylist()
    for change in ({"patch_id": "../../zebra"}, {"labels": ["zebra"]}, {"labels": []}, {"split": "zebra"}):
        changed = [rows[0], {**rows[1], **change}]
        parquet.write_table(pyarrow.Table.from_pylist(changed), table)
        with pytest.raises(InputError, match="2 of a Parquet file") as raised:
            read("bigearthnet-v2")
        assert "zebra" not in str(raised.value)


def test_a_json_that_is_cut_short_is_refused(read, tmp_path):
    read("bigearthnet")
    (path, *_) = sorted((tmp_path / "bigearthnet").rglob("*_labels_metadata.json"))
    path.write_text(path.read_text()[:-5])
    with pytest.raises(InputError, match="a JSON file"):
        read("bigearthnet")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train/00000.tar", "train"),
        ("JPG/train-000000.tar", "train"),
        ("data/validation-00000-of-00002.parquet", "validation"),
        ("test/train_val.json", "test"),
        ("test/train.json", "train"),
        ("latest/contest.json", ""),
        ("USGS_split_test_phili_questions.json", "test"),
    ],
)
def test_a_split_is_read_off_whole_words_of_a_path(name, split):
    assert split_of_path(name) == split
