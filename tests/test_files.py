"""Files are written whole or not at all."""

from __future__ import annotations

import pytest

from fovea.files import whole


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.nii.gz"
    for text in ("old", "new"):
        with whole(path) as partial:
            partial.write_text(text)
            assert partial.name.endswith(".nii.gz")
            assert not path.exists() or path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["a.nii.gz"]


def torn(path):
    with whole(path) as partial:
        partial.write_text("torn")
        raise ZeroDivisionError


def test_what_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        torn(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
