"""Sentinel-2 patches with classes of land cover: EuroSAT and BigEarthNet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from curriculum.data.importers.base import Entry, Importer, Split, entry
from curriculum.data.importers.lists import first, folder_of, split_of, split_of_path
from curriculum.data.importers.source import Row, SourceFolder
from fovea.errors import InputError

EUROSAT = {
    "AnnualCrop": "annual crop",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "highway",
    "Industrial": "industrial",
    "Pasture": "pasture",
    "PermanentCrop": "permanent crop",
    "Residential": "residential",
    "River": "river",
    "SeaLake": "sea or lake",
}
"""The ten classes, by the names of their folders, in words."""
EUROSAT_BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A"
"""The order of the bands in EuroSAT's TIFFs."""


class EuroSat:
    """EuroSAT in colour: a folder of JPEGs for each class.

    A record is a picture of 64 x 64 pixels; the set tells no scene, so the group is the picture. The split is that of
    eurosat-train.txt, eurosat-val.txt and eurosat-test.txt of Neumann et al. (arXiv:1911.06721) where they are there;
    the set itself has none.
    """

    name = "eurosat"
    title = "EuroSAT RGB"
    licence = "MIT; contains modified Copernicus Sentinel data"
    citation = "Helber et al., EuroSAT, IEEE JSTARS 12 (2019) 2217, 10.1109/JSTARS.2019.2918242"
    url = "https://zenodo.org/records/7711810"
    _suffix = ".jpg"
    _bands = ""

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The pictures of each class in turn. Raises InputError when there is none."""
        question = f"Which land cover or land use is this: {', '.join(EUROSAT.values())}?"
        splits = _eurosat_splits(source)
        found = False
        for label, words in EUROSAT.items():
            for name in source.find(f"**/{label}/{label}_*{self._suffix}"):
                found = True
                stem = PurePosixPath(name).stem
                yield entry(
                    self,
                    stem,
                    stem,
                    "class",
                    [source.image(name)],
                    [(question, words)],
                    split=splits.get(stem, ""),
                    labels={other: int(other == label) for other in EUROSAT},
                    attributes={"bands": self._bands} if self._bands else {},
                )
        if not found:
            raise InputError(
                f"a folder without AnnualCrop/AnnualCrop_*{self._suffix} and the like", "the set as published, unpacked"
            )


class EuroSatBands(EuroSat):
    """EuroSAT with all 13 bands: a folder of TIFFs for each class, otherwise as `EuroSat`.

    The attribute "bands" names the bands in their order; values are reflectance times 10,000, level 1C.
    """

    name = "eurosat-ms"
    title = "EuroSAT, all bands"
    _suffix = ".tif"
    _bands = EUROSAT_BANDS


def _eurosat_splits(source: SourceFolder) -> dict[str, Split]:
    """The split of each picture by its name without suffix."""
    lists = [name for part in ("train", "val", "test") for name in source.find(f"**/eurosat-{part}.txt")[:1]]
    return {PurePosixPath(line).stem: split_of_path(name) for name in lists for line in source.text(name).split()}


QUESTION = "Which land cover classes are here?"
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""The bands of a patch of level 2A, each a file of its own: 10, 20 or 60 m."""
_GROUPED = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": (),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": (),
    "Complex cultivation patterns": (),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (),
    "Agro-forestry areas": (),
    "Broad-leaved forest": (),
    "Coniferous forest": (),
    "Mixed forest": (),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": (),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
CLASSES_19 = tuple(_GROUPED)
"""The nomenclature of 19 classes. Source: Sumbul et al., BigEarthNet-MM, IEEE GRSM 9 (2021), arXiv:2105.07921."""
_NINETEEN = {old: new for new, olds in _GROUPED.items() for old in (olds or (new,))}
"""The class of the 19 of each class of CORINE level 3 that has one."""
CLASSES_43 = (
    *_NINETEEN,
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
)
"""The classes of CORINE level 3 that version 1 uses; the last eleven are in none of the 19."""
_PATCH = r"S2[AB]_MSIL2A_\d{8}T\d{6}(_N\d{4}_R\d{3}_(?P<tile>T\d{2}[A-Z]{3}))?_\d{1,3}_\d{1,3}"


class BigEarthNet2:
    """BigEarthNet 2 (reBEN), Sentinel-2: metadata.parquet and the folder BigEarthNet-S2.

    A record is a patch with its twelve bands as images, in the order of `BANDS`; the attribute "bands" names them. The
    group is the tile of the military grid ("T33UUP"), the same for all dates: the published split divides tiles, so it
    is apart by place but not by this group.
    """

    name = "bigearthnet-v2"
    title = "BigEarthNet 2.0 (reBEN)"
    licence = "CDLA-Permissive-1.0; contains modified Copernicus Sentinel data, labels from CORINE Land Cover 2018"
    citation = "Clasen et al., reBEN, IGARSS 2025, arXiv:2407.03653"
    url = "https://bigearth.net"

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The patches, in the order of the table. Raises InputError with the number of the row that is malformed."""
        table = first(source, "**/metadata.parquet")
        near = folder_of(table)
        for row in source.parquet(table, ("patch_id", "labels", "split", "country")):
            patch, tile = _patch(row, row.text("patch_id"))
            scene = re.sub(r"_\d+_\d+$", "", patch)
            labels = row["labels"]
            _known(row, labels, CLASSES_19)
            places = [f"{near}{folder}{scene}/{patch}/" for folder in ("BigEarthNet-S2/", "")]
            attributes = {"country": row.text("country")}
            yield _patch_entry(self, source, patch, tile, places, labels, CLASSES_19, split_of(row), attributes)


class BigEarthNet1:
    """BigEarthNet 1, Sentinel-2, with the 19 classes: a folder for each patch, with a JSON of its labels.

    A record is a patch with its twelve bands as images, in the order of `BANDS`; the attribute "bands" names them. The
    group is the tile of the military grid that "tile_source" names. The split is that of the published train.csv,
    val.csv and test.csv, patch names in their first column, where they are there. Patches with none of the 19 classes
    are left out and counted.
    """

    name = "bigearthnet"
    title = "BigEarthNet 1.0, 19 classes"
    licence = "CDLA-Permissive-1.0; contains modified Copernicus Sentinel data, labels from CORINE Land Cover 2018"
    citation = "Sumbul et al., BigEarthNet, IGARSS 2019, arXiv:1902.06148"
    url = "https://bigearth.net"
    classes: tuple[str, ...] = CLASSES_19

    def entries(self, source: SourceFolder) -> Iterator[Entry]:
        """The patches, in the order of their names. Raises InputError for labels that the set does not have."""
        splits = _listed_patches(source)
        pattern = "**/S2*_labels_metadata.json"
        for number, name in enumerate(source.find(pattern) or [first(source, pattern)], start=1):
            read = source.json(name)
            row = Row(read if isinstance(read, dict) else {}, number, "*_labels_metadata.json", "file")
            patch, _ = _patch(row, PurePosixPath(name).name.removesuffix("_labels_metadata.json"))
            tile = re.search(r"_(T\d{2}[A-Z]{3})_", row.text("tile_source"))
            if tile is None:
                raise row.error("the name of a Sentinel-2 product as 'tile_source'")
            _known(row, row["labels"], CLASSES_43)
            labels = self._named(row["labels"])
            if not labels:
                source.leave_out(f"none of the {len(self.classes)} classes")
                continue
            place, split = [folder_of(name)], splits.get(patch, "")
            yield _patch_entry(self, source, patch, tile[1], place, labels, self.classes, split, {})

    @staticmethod
    def _named(labels: Sequence[str]) -> list[str]:
        return [_NINETEEN[label] for label in labels if label in _NINETEEN]


class BigEarthNet1Corine(BigEarthNet1):
    """BigEarthNet 1 with the 43 classes that it was published with, otherwise as `BigEarthNet1`."""

    name = "bigearthnet-43"
    title = "BigEarthNet 1.0, 43 classes"
    classes = CLASSES_43

    @staticmethod
    def _named(labels: Sequence[str]) -> list[str]:
        return list(labels)


def _patch(row: Row, name: str) -> tuple[str, str]:
    """The name of a patch, and its tile where the name holds it."""
    match = re.fullmatch(_PATCH, name)
    if match is None:
        raise row.error("the name of a patch, such as S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57")
    return name, match["tile"] or ""


def _known(row: Row, labels: object, classes: Sequence[str]) -> None:
    if not isinstance(labels, list) or not labels or not set(map(str, labels)) <= set(classes):
        raise row.error(f"labels of the {len(classes)} classes")


def _patch_entry(
    importer: Importer,
    source: SourceFolder,
    patch: str,
    tile: str,
    places: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    split: Split,
    attributes: dict[str, str],
) -> Entry:
    """An answer that names the classes in the order of the nomenclature."""
    there = [name for name in classes if name in labels]
    return entry(
        importer,
        patch,
        tile or patch,
        "class",
        [source.image(*(f"{place}{patch}_{band}.tif" for place in places)) for band in BANDS],
        [(QUESTION, "; ".join(there))],
        split=split,
        labels={name: int(name in labels) for name in classes},
        attributes={"bands": " ".join(BANDS), **attributes},
    )


def _listed_patches(source: SourceFolder) -> dict[str, Split]:
    """The split of each patch that train.csv, val.csv or test.csv names; these tables have no head line."""
    splits: dict[str, Split] = {}
    for part in ("train", "val", "test"):
        for name in source.find(f"**/{part}.csv")[:1]:
            for line in source.text(name).split():
                splits[line.partition(",")[0]] = split_of_path(name)
    return splits
