"""The tables of the DICOM standard that dicom-validator reads, without its network: scripts/dicom_tables.py FOLDER.

dicom-validator makes them from the DocBook of the standard. Here they come from the tables that highdicom carries (the
modules of each IOD, and the type of each attribute by its path) and from pydicom's dictionary. Then

    validate_iods --standard-path FOLDER --edition local FILES

works without a network. What it checks: modules of usage M and their attributes; that attributes of type 1 are there
and have a value, that those of type 2 are there, and that those of type 1C have a value where they are there; values
against their VR; and attributes that no module of the IOD has. What it does not: conditions of 1C, 2C and of modules of
usage C, which highdicom's tables leave out, save those of SR content items on their value type, stated here; enumerated
values; usage and placement of functional groups; the templates of SR.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from dicom_validator import __version__
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_description, tag_for_keyword

Table = dict[str, Any]
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_CONTENT = "sr-document-content"
_OF_VALUES = {
    "ContinuityOfContent": ("CONTAINER",), "TextValue": ("TEXT",), "DateTime": ("DATETIME",), "Date": ("DATE",),
    "Time": ("TIME",), "PersonName": ("PNAME",), "UID": ("UIDREF",), "MeasuredValueSequence": ("NUM",),
    "ConceptCodeSequence": ("CODE",), "ReferencedSOPSequence": ("COMPOSITE", "IMAGE", "WAVEFORM"),
    "GraphicData": ("SCOORD", "SCOORD3D"), "GraphicType": ("SCOORD", "SCOORD3D"),
    "ReferencedFrameOfReferenceUID": ("SCOORD3D",), "TemporalRangeType": ("TCOORD",),
    "TabulatedValuesSequence": ("TABLE",),
}  # fmt: skip
"""The value types of a content item (PS3.3 tables C.17-5 and C.17.3-7) with which an attribute is required, and
without which it is not allowed."""


def main(folder: Path) -> None:
    edition = f"highdicom-{version('highdicom')}"
    tables, docbook = folder / edition / "json", folder / edition / "docbook"
    for directory in (tables, docbook):
        directory.mkdir(parents=True, exist_ok=True)
    modules, macros = _modules()
    for name, table in {
        "iod_info": _iods(macros),
        "module_info": modules,
        "dict_info": _dictionary(),
        "uid_info": _uids(),
    }.items():
        (tables / f"{name}.json").write_text(json.dumps(table))
    (tables / "version").write_text(__version__)  # of another version dicom-validator would make them anew
    for part in ("03", "04", "06"):  # it looks whether they are there, and does not read them
        (docbook / f"part{part}.xml").write_text("<!-- The tables are those of highdicom. -->\n")
    (folder / "editions.json").write_text(json.dumps([edition]))


def _modules() -> tuple[Table, dict[str, Table]]:
    """The attributes of each module and functional group macro, and the macros of each module that has some."""
    modules: Table = {}
    macros: dict[str, Table] = {}
    for key, attributes in _standard("module_attribute_map").items():
        modules[key] = module = _nested(attributes)
        shared = module.get(_tag(_GROUPS[0]), {}).get("items")
        if shared:
            macros[key] = {tag: {"ref": f"{key} {tag}", "use": "U"} for tag in shared}
            modules |= {f"{key} {tag}": {tag: macro} for tag, macro in shared.items()}
            for name in _GROUPS:
                module[_tag(name)]["items"] = {"include": [{"ref": "FuncGroup"}]}
    item = modules[_CONTENT][_tag("ContentSequence")]["items"]
    for table in (modules[_CONTENT], item):
        for name, kinds in _OF_VALUES.items():
            attribute = table[_tag(name)]
            condition = {"type": "MN", "op": "=", "tag": _tag("ValueType"), "index": 0, "values": list(kinds)}
            attribute |= {"type": attribute["type"][0] + "C", "cond": condition}
    modules["sr-content-item"] = item
    item[_tag("ContentSequence")] = {"name": "Content Sequence", "type": "3", "items": _include("sr-content-item")}
    modules[_CONTENT][_tag("ContentSequence")]["items"] = _include("sr-content-item")
    return modules, macros


def _include(ref: str) -> Table:
    return {"include": [{"ref": ref}]}


def _nested(attributes: Iterable[Mapping[str, Any]]) -> Table:
    """Attributes by tag, those of a sequence's items beneath it; repeating groups are left out."""
    module: Table = {}
    for attribute in attributes:
        table = module
        for keyword in attribute["path"]:
            table = table[_tag(keyword)].setdefault("items", {})
        if tag_for_keyword(attribute["keyword"]) is not None:
            tag = _tag(attribute["keyword"])
            known = attribute["type"] in ("1", "1C", "2", "2C")
            table[tag] = {"name": dictionary_description(tag_for_keyword(attribute["keyword"]) or 0)} | {
                "type": attribute["type"] if known else "3"
            }
    return module


def _iods(macros: Mapping[str, Table]) -> Table:
    """The modules of each SOP class."""
    usages = _standard("iod_module_map")
    return {
        uid: {
            "title": name,
            "modules": {module["key"]: {"ref": module["key"], "use": module["usage"]} for module in usages[name]},
            "group_macros": {k: v for module in usages[name] for k, v in macros.get(module["key"], {}).items()},
        }
        for uid, name in _standard("sop_class_iod_map").items()
    }


def _dictionary() -> Table:
    return {
        _text(tag): {"name": name, "vr": vr, "vm": vm, "prop": "RET" if retired else ""}
        for tag, (vr, vm, name, retired, _) in DicomDictionary.items()
    }


def _uids() -> Table:
    found: Table = {}
    for uid, (name, kind, *_) in UID_dictionary.items():
        found.setdefault(kind, {})[uid] = name
    return found


def _standard(name: str) -> Table:
    table: Table = json.loads(files("highdicom").joinpath("_standard", f"{name}.json").read_text("utf-8"))
    return table


def _tag(keyword: str) -> str:
    return _text(tag_for_keyword(keyword) or 0)


def _text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
