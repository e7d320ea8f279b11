"""Colours fixed by label, legends, instances with their numbers, and the slices that show them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domains.radiology.vocabulary import VOCABULARY as RADIOLOGY
from domains.remote_sensing.vocabulary import VOCABULARY as REMOTE_SENSING
from fovea.colors import SAFE, color_of, legend, name_of
from fovea.key_slices import STANDS_FOR, key_slices
from fovea.overlay import overlay
from fovea.types import (
    LPS,
    Box,
    Channel,
    Code,
    Finding,
    Grid,
    Image,
    Instance,
    Mask,
    OrientedBox,
    Origin,
    Panel,
    Patch,
    Picture,
    Polygon,
    Source,
    Study,
)

BY = Origin("toy", "1")


def found(label="liver", region=None, instances=(), **more):
    return Finding(label, Code("T", label, label), True, 0.8, BY, region=region, instances=tuple(instances), **more)


def canvas(size=120, slice_=0):
    panel = Panel(0, slice_, (0, size), (0, size), (size, size))
    return Picture(np.full((size, size, 3), 100, np.uint8), (panel,))


@pytest.mark.parametrize("vocabulary", [RADIOLOGY, REMOTE_SENSING])
def test_every_label_of_a_vocabulary_has_a_colour_and_a_name_of_its_own(vocabulary):
    assert [color_of(term.label, vocabulary) for term in vocabulary] == [term.color for term in vocabulary]
    names = [name_of(term.color) for term in vocabulary]
    assert len(set(names)) == len(names)


@given(st.text(min_size=1, max_size=20))
def test_a_stranger_has_always_the_same_colour_and_none_of_a_term(label):
    known = {term.label for term in RADIOLOGY}
    color = color_of(label, RADIOLOGY)
    assert color == color_of(label, reversed(RADIOLOGY))
    if label not in known:
        assert color in SAFE
        assert color not in {term.color for term in RADIOLOGY}


def test_strangers_are_spread_over_the_palette():
    assert len({color_of(f"label_{n}", ()) for n in range(200)}) == len(SAFE)
    assert all(min(sum(abs(a - b) for a, b in zip(x, y, strict=True)) for y in SAFE if y != x) > 25 for x in SAFE)


def test_a_legend_names_what_is_drawn_and_nothing_else():
    box = Box((0, 1, 1), (1, 9, 9))
    findings = [
        found("liver", box),
        found("spleen"),
        replace(found("nodule", box), present=False),
        found("liver_lesion", instances=[Instance(box, 0.9)]),
        found("liver", box),
    ]
    assert legend(findings, RADIOLOGY) == "brown: liver; gold: liver lesion"
    assert legend([], RADIOLOGY) == ""


def test_colours_of_one_name_are_told_apart_by_code_and_shared_ones_are_said():
    box = Box((0, 1, 1), (1, 9, 9))
    labels = [f"label_{n}" for n in range(60)]
    text = legend([found(label, box) for label in labels], RADIOLOGY)
    entries = text.split("; ")
    heads = [entry.split(": ")[0] for entry in entries]
    assert len(set(heads)) == len(heads) == len({color_of(label, RADIOLOGY) for label in labels})
    assert sorted(
        word.replace(" ", "_") for entry in entries for word in entry.split(": ")[1].split(" and ")
    ) == sorted(labels)


boxes = st.builds(
    lambda top, left, height, width: (top, left, top + height, left + width),
    st.integers(30, 60), st.integers(20, 60), st.integers(3, 40), st.integers(3, 40),
)  # fmt: skip


@given(boxes)
def test_a_patch_covers_what_the_same_mask_does(box):
    top, left, bottom, right = box
    mask = np.zeros((2, 120, 120), bool)
    mask[1, top:bottom, left:right] = True
    mask[1, top + 1, left + 1] = False
    patch = Patch((1, top, left), mask[1:, top:bottom, left:right])
    as_mask = overlay(canvas(slice_=1), [found(region=Mask(mask))], RADIOLOGY)
    as_patch = overlay(canvas(slice_=1), [found(instances=[Instance(patch, 0.9)] * 1)], RADIOLOGY)
    number = (as_mask != as_patch).any(-1)
    assert not number[top:].any()
    assert number[:top].any()
    assert not (overlay(canvas(slice_=0), [found(instances=[Instance(patch, 0.9)])], RADIOLOGY) != 100).any()


@pytest.mark.parametrize(
    "region",
    [
        Box((0, 40, 40), (1, 80, 80)),
        OrientedBox((60, 60), 60, 20, 30),
        Polygon(((40, 40), (40, 80), (80, 80), (80, 40))),
    ],
)
def test_boxes_of_instances_are_edges_with_their_number(region):
    drawn = overlay(canvas(), [found(instances=[Instance(region, 0.9)])], RADIOLOGY)
    assert tuple(drawn[60, 60]) == (100, 100, 100)
    touched = (drawn != 100).any(-1)
    assert (drawn[touched] == color_of("liver", RADIOLOGY)).all(-1).sum() > 60
    other = overlay(canvas(), [found(instances=[Instance(Box((5, 1, 1), (6, 2, 2)), 0.9), Instance(region, 0.9)])], ())
    second = overlay(canvas(), [found(instances=[Instance(region, 0.9)])], ())
    assert (other != second).any(), "the second instance has another number"


def test_only_listed_instances_are_numbered_and_the_picture_keeps_its_pixels():
    picture = canvas(240)
    many = [Instance(Box((0, 200, 20 * n), (1, 215, 20 * n + 12)), 0.9) for n in range(12)]
    drawn = overlay(picture, [found(instances=many)], RADIOLOGY)
    assert (picture.pixels == 100).all()
    above = (drawn[:199] != 100).any((0, 2))
    assert all(above[20 * n : 20 * n + 12].any() for n in range(8))
    assert not above[8 * 20 :].any()


def test_findings_without_instances_are_drawn_as_ever():
    drawn = overlay(canvas(), [found(region=Box((0, 10, 5), (1, 20, 35)))], RADIOLOGY, opacity=0.5)
    assert tuple(drawn[10, 20]) == color_of("liver", RADIOLOGY)
    assert tuple(drawn[15, 20]) == (133, 93, 70)


# Key slices


def volume(depth=40, size=16):
    grid = Grid(np.diag([1.0, 1.0, 5.0, 1.0]), LPS, (depth, size, size))
    image = Image.from_array((Channel("HU"),), grid, np.zeros((1, depth, size, size), np.float32))
    return Study("toy", (image,), Source(("a" * 64,), "toy"), {"modality": "CT"})


def blob(depth=40, size=16, **areas):
    data = np.zeros((depth, size * size), bool)
    for slice_, area in areas.items():
        data[int(slice_[1:]), :area] = True
    return Mask(data.reshape(depth, size, size))


def test_each_finding_is_shown_where_it_is_largest():
    liver = found("liver", blob(s10=50, s11=200, s12=60))
    spleen = found("spleen", blob(s30=20, s31=10))
    shown = key_slices(volume(), [liver, spleen])
    assert [(key.slice, key.labels) for key in shown] == [(30, ("spleen",)), (11, ("liver",))]
    assert [key.slice for key in key_slices(volume(), [liver, spleen], limit=1)] == [30], "the small one first"


def test_near_slices_are_merged_where_one_shows_both():
    lesion = found("liver_lesion", blob(s12=9))
    liver = found("liver", blob(s10=200, s12=190))
    assert [(k.slice, k.labels) for k in key_slices(volume(), [liver, lesion])] == [(12, ("liver_lesion", "liver"))]
    far = found("liver", blob(s10=200, s12=int(200 * STANDS_FOR) - 5))
    assert [key.slice for key in key_slices(volume(), [far, lesion])] == [12, 10]


def test_top_instances_have_a_slice_of_their_own_after_all_findings():
    spots = [Instance(Patch((slice_, 2, 2), np.ones((1, 3, 3), bool)), 0.9) for slice_ in (5, 15, 25, 35)]
    lesion, liver = found("liver_lesion", instances=spots), found("liver", blob(s20=90))
    assert {key.slice for key in key_slices(volume(), [lesion, liver], limit=9)} == {5, 15, 25, 20}
    assert {key.slice for key in key_slices(volume(), [lesion, liver], limit=2)} == {5, 20}


def test_plain_pictures_and_absent_findings_have_none():
    flat = found("liver", blob(depth=1, s0=9))
    assert key_slices(volume(depth=1), [flat]) == ()
    assert key_slices(volume(), [replace(found("liver", blob(s3=9)), present=False), found("spleen")]) == ()


@given(
    st.lists(st.dictionaries(st.integers(0, 39), st.integers(1, 200), min_size=1, max_size=6), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_no_finding_is_missed_where_there_is_room(areas, limit):
    findings = [found(f"label_{n}", blob(**{f"s{k}": v for k, v in a.items()})) for n, a in enumerate(areas)]
    shown = key_slices(volume(), findings, limit)
    assert 1 <= len(shown) <= limit
    assert len({key.slice for key in shown}) == len(shown)
    for number, own in enumerate(areas):
        best = max(own.get(key.slice, 0) for key in shown)
        if limit >= len(areas):
            assert best >= STANDS_FOR * max(own.values())
        for key in shown:
            assert (f"label_{number}" in key.labels) == (key.slice in own)


@pytest.mark.parametrize(
    "region",
    [Box((7, 1, 1), (9, 5, 5)), OrientedBox((5, 5), 4, 2, 0, slice=7), Polygon(((1, 1), (1, 5), (5, 5)), slice=7)],
)
def test_regions_of_every_kind_have_their_slice(region):
    assert [key.slice for key in key_slices(volume(), [found(region=region)])] == [7]
