"""MINC 2: values and places as nibabel and ITK find them, decoded in a child process, and nothing of other files."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import partial

import h5py
import nibabel
import numpy as np
import pytest
from mutations import check_damaged

from domains.formats import content
from domains.formats.volumes import volume
from domains.radiology import reader
from fovea.errors import GeometryError, InputError, LimitError, UnsupportedError
from fovea.types import LPS, PIXEL

rng = np.random.default_rng(0)
STORED = rng.integers(0, 200, (5, 6, 7)).astype(np.uint8)
AXES = {"zspace": (-3.0, 4.0), "yspace": (10.0, -3.0), "xspace": (-20.0, 2.0)}
"""Start and step of each axis in mm, as they are stored."""
IMAGE, DIMENSIONS = "minc-2.0/image/0", "minc-2.0/dimensions"


def write(path, stored=STORED, axes=AXES, scaled=("zspace",), modality="", placed=True, **options):
    """A MINC 2 file whose slices are scaled one by one along the axes `scaled`."""
    with h5py.File(path, "w") as file:
        image = file.create_group(IMAGE).create_dataset("image", data=stored, **options)
        image.attrs["dimorder"] = np.bytes_(",".join(axes))
        image.attrs["valid_range"] = (0.0, 250.0)
        for name, (start, step) in axes.items():
            axis = file.create_dataset(f"{DIMENSIONS}/{name}", data=0)
            if placed:
                axis.attrs["start"], axis.attrs["step"] = start, step
        shape = stored.shape[: len(scaled)]
        for name, values in (("image-min", rng.uniform(-9, 0, shape)), ("image-max", rng.uniform(50, 90, shape))):
            scale = file[IMAGE].create_dataset(name, data=values)
            if scaled:
                scale.attrs["dimorder"] = np.bytes_(",".join(scaled))
        file.create_group("minc-2.0/info/patient").attrs["full_name"] = np.bytes_("DOE^JANE")
        if modality:
            file.create_group("minc-2.0/info/study").attrs["modality"] = np.bytes_(modality)
    return path


def change(path, edit):
    with h5py.File(path, "r+", libver="latest") as file:
        edit(file)
    return path


def replaced(name, make):
    """An edit that puts something else where a dataset was, with its attributes."""

    def edit(file):
        old = dict(file[name].attrs)
        file.move(name, "old-" + name.rpartition("/")[2])
        made = make(file, name)
        for key, value in old.items() if made is not None else ():
            made.attrs[key] = value

    return edit


def as_nibabel(path):
    """Every volume as nibabel has it (z, y, x), and the affine to LPS."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    with image.dataobj.minc_file._mincfile:
        return values.reshape(-1, *values.shape[-3:]), np.diag((-1, -1, 1, 1)) @ image.affine


def same(path):
    """Whether every value lies where nibabel says."""
    values, affine = as_nibabel(path)
    images = volume.read(path).images
    assert len(images) == len(values)
    for image, wanted in zip(images, values, strict=True):
        index = np.argwhere(np.ones(wanted.shape, bool))
        s, r, c = np.abs(image.grid.index(index @ affine[:3, :3].T + affine[:3, 3]).round()).astype(int).T
        np.testing.assert_array_equal(image.pixels[0, s, r, c], wanted[tuple(index.T)].astype(np.float32))
        assert image.grid.frame == LPS
        assert all(image.grid.affine[axis, axis] > 0 for axis in range(3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 3, 4), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"scaled": ()},
        {"scaled": ("zspace", "yspace")},
        {"stored": STORED.astype(np.float32) / 7},
        {"stored": STORED.astype(">i2"), "axes": {name: AXES[name] for name in ("xspace", "zspace", "yspace")},
         "scaled": ("xspace",)},
        {"stored": rng.integers(0, 99, (3, 5, 6, 7)).astype(np.uint16), "axes": {"time": (0.0, 1.0), **AXES},
         "scaled": ("time", "zspace")},
    ],
)  # fmt: skip
def test_values_and_places_are_those_of_nibabel(tmp_path, options):
    same(write(tmp_path / "a.mnc", **options))


def test_slabs_of_a_volume_make_the_whole(tmp_path, monkeypatch):
    from domains.formats.volumes import minc

    path = write(tmp_path / "a.mnc")
    whole = minc.read_volume(path, [])
    monkeypatch.setattr(minc, "_SLAB", 90)
    np.testing.assert_array_equal(minc.read_volume(path, []), whole)


def test_real_files_are_as_nibabel_has_them(data_dir):
    files = [path for path in sorted((data_dir / "med").rglob("*.mnc")) if path.read_bytes().startswith(b"\x89HDF\r\n")]
    assert files
    for path in files:
        if path.name != "minc2-no-att.mnc":
            same(path)
            continue
        (image,) = volume.read(path).images
        assert image.grid.frame == PIXEL
        np.testing.assert_array_equal(image.pixels[0], as_nibabel(path)[0][0].astype(np.float32))


@pytest.mark.parametrize("name", ["minc2_1_scale.mnc", "small.mnc"])
def test_itk_reads_the_same(data_dir, name):
    itk = pytest.importorskip("SimpleITK")
    path = data_dir / "med" / "volume_zoo_nibabel" / name
    (image,) = volume.read(path).images
    other = itk.GetArrayFromImage(itk.ReadImage(str(path)))  # (z, y, x), x and y to the right and to the front
    np.testing.assert_allclose(image.pixels[0], other[:, ::-1, ::-1], rtol=1e-5)


def test_the_modality_of_the_study_is_read_and_nothing_of_the_patient(tmp_path):
    for word, wanted in (("MRI__", "MR"), ("PET__", "PT"), ("CT___", "CT"), ("DOE", None), ("", None)):
        found = volume.read(write(tmp_path / "a.mnc", modality=word))
        assert found.meta.get("modality") == wanted
        assert "DOE" not in str(found.meta)
    assert volume.read(write(tmp_path / "a.mnc", modality="label")).meta["content"] == "label map"
    study = reader.load(write(tmp_path / "a.mnc", modality="MRI__"))
    assert study.meta == {"modality": "MR"}, "what the file says is no guess"


def test_what_a_file_does_not_tell_is_not_made_up(tmp_path):
    found = volume.read(write(tmp_path / "a.mnc", placed=False))
    assert found.images[0].grid.frame == PIXEL
    assert found.meta["geometry"]
    for spacing in (np.bytes_("irregular"), "irregular"):
        path = write(tmp_path / "a.mnc")
        change(path, lambda file, text=spacing: file[f"{DIMENSIONS}/zspace"].attrs.create("spacing", text))
        with pytest.raises(GeometryError, match="irregular"):
            volume.read(path)
    vectors = {**AXES, "vector_dimension": (0.0, 1.0)}
    with pytest.raises(UnsupportedError, match="space"):
        volume.read(write(tmp_path / "a.mnc", rng.integers(0, 9, (3, 4, 5, 3)).astype(np.uint8), vectors))


def _external(file, name):
    file.create_dataset(name, (5, 6, 7), "u1", external=[("secret.raw", 0, 210)])
    return file[name]


def _virtual(file, name):
    layout = h5py.VirtualLayout((5, 6, 7), "u1")
    layout[:] = h5py.VirtualSource("other.mnc", f"{IMAGE}/image", (5, 6, 7))
    return file.create_virtual_dataset(name, layout)


def _link(link):
    def make(file, name):
        file[name] = link

    return make


HOSTILE = {
    "external link": replaced(f"{IMAGE}/image", _link(h5py.ExternalLink("other.mnc", f"{IMAGE}/image"))),
    "external group": replaced("minc-2.0", _link(h5py.ExternalLink("other.mnc", "minc-2.0"))),
    "soft link": replaced(f"{IMAGE}/image-max", _link(h5py.SoftLink("/old-image-max"))),
    "linked axis": replaced(f"{DIMENSIONS}/yspace", _link(h5py.ExternalLink("other.mnc", f"{DIMENSIONS}/yspace"))),
    "external values": replaced(f"{IMAGE}/image", _external),
    "virtual values": replaced(f"{IMAGE}/image", _virtual),
    "unknown filter": replaced(
        f"{IMAGE}/image", lambda file, name: file.create_dataset(name, data=STORED, compression="lzf")
    ),
    "texts": replaced(f"{IMAGE}/image", lambda file, name: file.create_dataset(name, data=STORED.astype("S3"))),
    "a scale of texts": replaced(
        f"{IMAGE}/image-max", lambda file, name: file.create_dataset(name, data=np.full(5, b"90"))
    ),
    "a path as axis": lambda file: file[f"{IMAGE}/image"].attrs.create(
        "dimorder", np.bytes_("zspace,yspace,../dimensions/xspace")
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_outside_the_file_and_no_foreign_filter_is_opened(tmp_path, name):
    write(tmp_path / "other.mnc")
    (tmp_path / "secret.raw").write_bytes(bytes(210))
    path = change(write(tmp_path / "a.mnc"), HOSTILE[name])
    with pytest.raises(UnsupportedError) as caught:
        volume.read(path)
    assert not any(word in str(caught.value) for word in ("secret", "other.mnc", str(tmp_path)))


def test_a_link_to_the_study_is_not_followed(tmp_path):
    write(tmp_path / "other.mnc", modality="MRI__")
    path = write(tmp_path / "a.mnc")
    change(path, lambda file: _link(h5py.ExternalLink("other.mnc", "minc-2.0/info/study"))(file, "minc-2.0/info/study"))
    assert "modality" not in volume.read(path).meta


def test_sizes_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    def declared(shape, **options):
        return replaced(f"{IMAGE}/image", lambda file, name: file.create_dataset(name, shape, "i2", **options))

    with pytest.raises(LimitError):
        volume.read(change(write(tmp_path / "a.mnc"), declared((5, 10**5, 10**5), chunks=(1, 10, 10))))
    with pytest.raises(InputError, match="ends before"):
        volume.read(change(write(tmp_path / "a.mnc"), declared((5, 600, 700), chunks=(1, 600, 700))))
    with pytest.raises(LimitError, match="chunks"):
        volume.read(
            change(write(tmp_path / "a.mnc"), declared((5, 6, 7), chunks=(2**10, 2**10, 2**9), maxshape=(None,) * 3))
        )

    def noted(file, name):
        axis = file.create_dataset(name, data=0)
        axis.attrs["notes"] = np.zeros(10**4)
        return axis

    with pytest.raises(LimitError, match="attribute"):
        volume.read(change(write(tmp_path / "a.mnc"), replaced(f"{DIMENSIONS}/xspace", noted)))
    monkeypatch.setattr(content, "LIMIT", 100)
    with pytest.raises(LimitError, match="5 × 6 × 7"):
        volume.read(write(tmp_path / "a.mnc"))


def test_scales_have_the_first_axes_of_their_image(tmp_path):
    def edited(edit):
        path = write(tmp_path / "a.mnc", STORED[:, :5, :5])
        for name in ("image-min", "image-max"):
            change(path, partial(edit, name=f"{IMAGE}/{name}"))
        with pytest.raises(InputError):
            _ = volume.read(path).images[0].pixels

    edited(lambda file, name: file[name].attrs.create("dimorder", np.bytes_("yspace")))
    edited(lambda file, name: file[name].attrs.pop("dimorder"))
    edited(lambda file, name: replaced(name, lambda f, n: f.create_dataset(n, data=np.ones(1)))(file))
    edited(lambda file, name: replaced(name, lambda f, n: f.create_dataset(n, data=np.ones(7)))(file))


def test_broken_bytes_give_an_image_or_a_reason(tmp_path):
    path = write(tmp_path / "a.mnc", chunks=(2, 3, 4), compression="gzip")
    check_damaged(path, lambda file: volume.read(file).images[:2], 120, protect=8)


def test_hdf5_is_never_loaded_here(tmp_path):
    code = (
        "import sys; from pathlib import Path; from domains.formats.volumes import volume;"
        "assert volume.read(Path(sys.argv[1])).images[0].pixels.any(); assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(write(tmp_path / "a.mnc"))], check=True)
