"""Importers of public training sets, by the name on the command line. Importing this package reads no importer."""

from __future__ import annotations

from importlib import import_module

from curriculum.data.importers.base import Entry as Entry
from curriculum.data.importers.base import ImportedSet as ImportedSet
from curriculum.data.importers.base import Importer as Importer
from curriculum.data.importers.base import Labelled as Labelled
from curriculum.data.importers.base import conversation as conversation
from curriculum.data.importers.base import entry as entry
from curriculum.data.importers.base import import_set as import_set
from curriculum.data.importers.base import load_records as load_records
from curriculum.data.importers.source import Row as Row
from curriculum.data.importers.source import SourceFolder as SourceFolder
from fovea.errors import InputError

_PLACES: dict[str, str] = {
    "mimic-cxr": "chest_reports:MimicCxr",
    "iu-xray": "chest_reports:OpenI",
    "chexpert": "chest_labels:CheXpert",
    "chestxray14": "chest_labels:ChestXray14",
    "vqa-rad": "medical_questions:VqaRad",
    "slake": "medical_questions:Slake",
    "slake-zh": "medical_questions:SlakeChinese",
    "path-vqa": "medical_questions:PathVqa",
    "pmc-vqa": "medical_questions:PmcVqa",
    "brats": "volumes:Brats",
    "msd": "volumes:Decathlon",
    "rsicd": "captions:Rsicd",
    "ucm-captions": "captions:UcmCaptions",
    "rsitmd": "captions:Rsitmd",
    "rsvqa-lr": "rsvqa:RsvqaLowResolution",
    "rsvqa-hr": "rsvqa:RsvqaHighResolution",
    "dior-rsvg": "grounding:DiorRsvg",
    "rrsis-d": "grounding:RrsisD",
    "eurosat": "scenes:EuroSat",
    "eurosat-ms": "scenes:EuroSatBands",
    "bigearthnet": "scenes:BigEarthNet1",
    "bigearthnet-43": "scenes:BigEarthNet1Corine",
    "bigearthnet-v2": "scenes:BigEarthNet2",
    "rsteller": "webdataset:RsTeller",
    "gaia": "webdataset:Gaia",
    "webdataset": "webdataset:WebDataset",
    "llava": "conversations:Llava",
    "huggingface": "huggingface:HuggingFace",
}
"""Name to `module:class` in this package."""


def names() -> tuple[str, ...]:
    """The names of all importers, sorted."""
    return tuple(sorted(_PLACES))


def importer(name: str) -> Importer:
    """The importer of a name; raises InputError with the names that there are."""
    if name not in _PLACES:
        raise InputError("an unknown set", f"one of {', '.join(names())}", "See `fovea data import --list`.")
    module, _, item = _PLACES[name].partition(":")
    made: Importer = getattr(import_module(f"{__name__}.{module}"), item)()
    return made
