"""Volumes with segmentations: BraTS and the Medical Segmentation Decathlon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curriculum.data.importers.base import Entry, Split, entry
from curriculum.data.importers.source import SourceFolder
from domains.formats.content import foreign
from fovea.errors import InputError

_Turn = tuple[str, str]
_CORE = {1: "necrotic or non-enhancing core", 2: "peritumoural oedema"}


def label_volumes(path: Path) -> dict[int, float]:
    """The volume in mL of each label but 0 in a NIfTI segmentation, by its voxels and its affine.

    Raises GeometryError without an affine, InputError for a broken file or values that are no labels in 0 to 255.
    """
    import nibabel

    from domains.formats.volumes.nifti import read

    grid = read(path).images[0].grid
    millilitres = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    with foreign("a NIfTI file"):
        file: Any = nibabel.load(path)
        values = np.asarray(file.dataobj)
    if values.ndim != 3 or values.min() < 0 or values.max() > 255:
        raise InputError("a segmentation whose values are no labels", "one volume of whole numbers from 0 to 255")
    counts = np.zeros(256, np.int64)
    for index in range(values.shape[2]):
        plane = values[..., index]
        if plane.dtype.kind == "f" and not np.array_equal(plane, np.rint(plane)):
            raise InputError("a segmentation whose values are no labels", "one volume of whole numbers from 0 to 255")
        counts += np.bincount(plane.astype(np.uint8).ravel(), minlength=256)
    return {int(label): float(counts[label]) * millilitres for label in np.flatnonzero(counts) if label}


def measured(source: SourceFolder, name: str, names: Mapping[int, str]) -> tuple[str, dict[str, int | None]] | None:
    """The structures of a segmentation in words with their volumes, and as labels; None, and counted, where the file
    cannot be read or holds a label without a name."""
    try:
        found = label_volumes(source.path(name))
    except InputError:
        source.leave_out("a segmentation that cannot be read")
        return None
    if not set(found) <= set(names):
        source.leave_out("a segmentation with a label that has no name")
        return None
    words = [f"{names[label]} {_millilitres(found[label])}" for label in sorted(found)]
    text = f"{', '.join(words)}." if words else "None of them."
    return text[0].upper() + text[1:], {names[label]: int(label in found) for label in names}


def _millilitres(value: float) -> str:
    return f"{value:.1f} mL" if value >= 0.05 else "under 0.1 mL"


class Brats:
    """BraTS 2017 to 2024, adult glioma, metastases, meningioma and Africa; a record is a case with its four volumes.

    Expects a folder a case with NAME_t1, _t1ce, _t2, _flair and _seg as .nii or .nii.gz, or since 2023 NAME-t1n, -t1c,
    -t2w, -t2f and -seg. Images stand in the order T1, T1 with contrast, T2, FLAIR. The split is told by the names of
    the folders (…Training…, …Validation…). Cases without a segmentation have no question about the tumour; paediatric
    ones have none either, for their label values changed between years under the same names. The group is the patient:
    of BraTS-GLI-00008-101 it is BraTS-GLI-00008.
    """

    name = "brats"
    title = "BraTS (Brain Tumor Segmentation challenge)"
    licence = "CC BY-NC 4.0 in recent years; registration on Synapse, and the terms of the year that was downloaded"
    citation = "Menze et al., IEEE TMI 34(10) (2015); Bakas et al., arXiv:1811.02629; Baid et al., arXiv:2107.02314"
    url = "https://www.synapse.org/brats"
    _sequences = "T1-weighted, T1-weighted after contrast, T2-weighted and FLAIR."
    _question = "Which parts of the tumour are segmented, and how large are they?"
    _styles = (
        ("_flair", ("_t1", "_t1ce", "_t2", "_flair"), "_seg"),
        ("-t2f", ("-t1n", "-t1c", "-t2w", "-t2f"), "-seg"),
    )
    _names: Mapping[str, Mapping[int, str]] = {
        "_seg": {**_CORE, 4: "enhancing tumour"},
        "-seg": {**_CORE, 3: "enhancing tumour", 4: "resection cavity"},
    }

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A case each, in the order of their paths."""
        for mark, endings, seg in self._styles:
            for path in source.find(f"**/*{mark}.nii") + source.find(f"**/*{mark}.nii.gz"):
                stem, _, suffix = path.rpartition(mark)
                yield from self._case(source, stem, [stem + end + suffix for end in endings], seg, stem + seg + suffix)

    def _case(self, source: SourceFolder, stem: str, volumes: list[str], seg: str, mask: str) -> Iterator[Entry]:
        case, place = stem.rpartition("/")[2], f"{source.root.name}/{stem}".lower()
        split: Split = "validation" if "validation" in place else "train" if "training" in place else ""
        turns: list[_Turn] = [("Which MRI sequences are these?", self._sequences)]
        labels: dict[str, int | None] = {}
        if source.has(mask) and "-ped-" not in case.lower():
            told = measured(source, mask, self._names[seg])
            if told is None:
                return
            turns.append((self._question, told[0]))
            labels = told[1]
        patient = case.rpartition("-")[0] if seg == "-seg" and case.count("-") >= 3 else case
        keys = [source.image(name) for name in volumes]
        key = source.image(mask) if source.has(mask) else ""
        yield entry(self, case, patient, "segmentation", keys, turns, split=split, labels=labels, mask=key)


class Decathlon:
    """The ten tasks of the Medical Segmentation Decathlon; a record is a volume, which may hold several channels.

    Expects one task's folder with dataset.json, or the folder of several Task*/. Training volumes have a question about
    the structures that are segmented; test volumes, whose segmentation is not published, one about the modality alone.
    The group is the volume: patients are not told.
    """

    name = "msd"
    title = "Medical Segmentation Decathlon"
    licence = "CC BY-SA 4.0"
    citation = "Antonelli et al., Nature Communications 13:4128 (2022); Simpson et al., arXiv:1902.09063"
    url = "http://medicaldecathlon.com/"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """A volume each, task by task in the order of dataset.json."""
        found = source.find("dataset.json") + source.find("*/dataset.json")
        for name in found or ["dataset.json"]:
            yield from self._task(source, name.removesuffix("dataset.json"))

    def _task(self, source: SourceFolder, folder: str) -> Iterator[Entry]:
        told = source.json(f"{folder}dataset.json")
        try:
            modality = _joined([str(told["modality"][key]) for key in sorted(told["modality"], key=int)])
            names = {int(key): str(word) for key, word in told["labels"].items() if int(key)}
            pairs = [(str(item["image"]), str(item["label"])) for item in told["training"]]
            alone = [str(item if isinstance(item, str) else item["image"]) for item in told["test"]]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(
                "a dataset.json of another form", "modality, labels, training and test of the Decathlon", "Check it."
            ) from None
        task = folder.rstrip("/") or source.root.name
        first = ("Which modality is this?", f"{modality}.")
        asked = f"Of {_joined(list(names.values()))}, which are segmented, and how large are they?"
        for image, label in pairs:
            key, mask = source.image(folder + image), source.image(folder + label)
            if mask in source.missing:
                yield self._entry(task, image, key, [first], "train", mask=mask)
                continue
            answer = measured(source, folder + label, names)
            if answer is not None:
                turns = [first, (asked, answer[0])]
                yield self._entry(task, image, key, turns, "train", mask=mask, labels=answer[1])
        for image in alone:
            yield self._entry(task, image, source.image(folder + image), [first], "test")

    def _entry(self, task: str, image: str, key: str, turns: list[_Turn], split: Split, **more: Any) -> Entry:
        original = f"{task}/{image.rpartition('/')[2].partition('.')[0]}"
        return entry(self, original, original, "segmentation", [key], turns, split=split, **more)


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
