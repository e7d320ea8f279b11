"""Small satellite products that tests write: names, metadata and files as they are delivered."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.transform import Affine

CRS = "EPSG:32633"
LEFT, TOP = 399960, 5500020
MSI = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
METRES = dict.fromkeys(MSI, 20) | dict.fromkeys(("B02", "B03", "B04", "B08"), 10) | dict.fromkeys(
    ("B01", "B09", "B10"), 60
)  # fmt: skip


def raster(path: Path, data: Any, metres: float = 30, **profile: Any) -> Path:
    """A file of `data` (row, column) or (band, row, column): lossless JPEG 2000 or GeoTIFF by its name."""
    data = np.asarray(data)
    data = data[None] if data.ndim == 2 else data
    path.parent.mkdir(parents=True, exist_ok=True)
    jp2 = {"driver": "JP2OpenJPEG", "reversible": "YES", "quality": "100"}
    options = {
        "crs": CRS, "transform": Affine(metres, 0, LEFT, 0, -metres, TOP), "count": len(data), "dtype": data.dtype,
        "height": data.shape[1], "width": data.shape[2], **(jp2 if path.suffix == ".jp2" else {"driver": "GTiff"}),
        **profile,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **options) as file:
            file.write(data)
    return path


def ground(side: int = 120, seed: int = 0, low: int = 100, high: int = 4000) -> dict[str, Any]:
    """Numbers of each Sentinel-2 band over a square of `side` pixels of 10 m."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(low, high, (side * 10 // METRES[name],) * 2).astype(np.uint16) for name in MSI}


def sentinel2_xml(level: str, baseline: str, offset: int | None, change: Mapping[str, str] | None = None) -> str:
    """Metadata of a product; `offset` None writes no list of offsets; `change` replaces text."""
    kind = "BOA" if level == "2A" else "RADIO"
    names = [name.replace("B0", "B") for name in MSI]
    spectral = "".join(f'<Spectral_Information bandId="{i}" physicalBand="{n}"/>' for i, n in enumerate(names))
    listed = "BOA_ADD_OFFSET_VALUES_LIST" if level == "2A" else "Radiometric_Offset_List"
    values = "".join(f'<{kind}_ADD_OFFSET band_id="{i}">{offset}</{kind}_ADD_OFFSET>' for i in range(13))
    scale = (
        '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
        '<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
        if level == "2A"
        else '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
    )
    special = "".join(
        f"<Special_Values><SPECIAL_VALUE_TEXT>{name}</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>{value}</SPECIAL_VALUE_INDEX></Special_Values>"
        for name, value in (("NODATA", 0), ("SATURATED", 65535))
    )
    text = (
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?><n1:Level-{level}_User_Product '
        f'xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd"><n1:General_Info>'
        f"<Product_Info><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE><Datatake>"
        "<SPACECRAFT_NAME>Sentinel-2B</SPACECRAFT_NAME><DATATAKE_SENSING_START>2021-06-12T10:00:29.024Z"
        "</DATATAKE_SENSING_START></Datatake></Product_Info><Product_Image_Characteristics>"
        f"{special}{scale}{'' if offset is None else f'<{listed}>{values}</{listed}>'}"
        f"<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics>"
        "</n1:General_Info><n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>12.345</Cloud_Coverage_Assessment>"
        f"</n1:Quality_Indicators_Info></n1:Level-{level}_User_Product>"
    )
    for old, new in (change or {}).items():
        text = text.replace(old, new)
    return text


def sentinel2(
    folder: Path, numbers: Mapping[str, Any], level: str = "2A", baseline: str = "05.11", offset: int | None = -1000,
    scl: Any = None, change: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """A SAFE folder of the compact format; band B10 is left out at Level 2A."""
    name = f"S2B_MSIL{level}_20210612T100029_N{baseline.replace('.', '')}_R122_T33UUR_20210612T120000.SAFE"
    product = folder / name
    granule = product / "GRANULE" / f"L{level}_T33UUR_A022282_20210612T100027"
    for band, data in numbers.items():
        metres = METRES[band]
        stem = f"T33UUR_20210612T100029_{band}"
        inside = f"R{metres}m/{stem}_{metres}m.jp2" if level == "2A" else f"{stem}.jp2"
        if (level, band) != ("2A", "B10"):
            raster(granule / "IMG_DATA" / inside, data, metres)
    if scl is not None:
        raster(granule / "IMG_DATA" / "R20m" / "T33UUR_20210612T100029_SCL_20m.jp2", scl, 20)
    raster(granule / "QI_DATA" / "T33UUR_20210612T100029_PVI.jp2", np.ones((3, 8, 8), np.uint8), 320)
    (granule / "MTD_TL.xml").write_text("<tile/>")
    (product / f"MTD_MSIL{level}.xml").write_text(sentinel2_xml(level, baseline, offset, change))
    (product / "manifest.safe").write_text("<xfdu/>")
    return product


def first_format(folder: Path, tiles: Mapping[str, Mapping[str, Any]]) -> Path:
    """A Level-1C product of the format before December 2016, with a granule for each tile."""
    product = folder / "S2A_OPER_PRD_MSIL1C_PDMC_20160101T000000_R022_V20160101T100000_20160101T100000.SAFE"
    for tile, numbers in tiles.items():
        stem = f"S2A_OPER_MSI_L1C_TL_SGS__20160101T000000_A002751_{tile}"
        granule = product / "GRANULE" / f"{stem}_N02.01"
        for band, data in numbers.items():
            raster(granule / "IMG_DATA" / f"{stem}_{band}.jp2", data, METRES[band])
        (granule / f"S2A_OPER_MTD_L1C_TL_SGS__20160101T000000_A002751_{tile}.xml").write_text("<tile/>")
    xml = sentinel2_xml("1C", "02.01", None)
    name = "S2A_OPER_MTD_SAFL1C_PDMC_20160101T000000_R022_V20160101T100000_20160101T100000.xml"
    (product / name).write_text(xml)
    return product


def mtl(groups: Mapping[str, Mapping[str, Any]], form: str) -> str:
    """Landsat metadata as text, XML or JSON."""
    if form == "json":
        return json.dumps({"LANDSAT_METADATA_FILE": {g: {k: str(v) for k, v in e.items()} for g, e in groups.items()}})
    if form == "xml":
        inner = "".join(
            f"<{g}>{''.join(f'<{k}>{escape(str(v))}</{k}>' for k, v in e.items())}</{g}>" for g, e in groups.items()
        )
        return f'<?xml version="1.0"?><LANDSAT_METADATA_FILE>{inner}</LANDSAT_METADATA_FILE>'
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for group, entries in groups.items():
        lines.append(f"  GROUP = {group}")
        lines += [f"    {k} = " + (f'"{v}"' if isinstance(v, str) else str(v)) for k, v in entries.items()]
        lines.append(f"  END_GROUP = {group}")
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def landsat(
    folder: Path, bands: Mapping[str, Any], pixel: Any, radsat: Any, form: str = "txt", level: str = "L2SP",
    **groups: Mapping[str, Any],
) -> Path:  # fmt: skip
    """The files of a Landsat 8 scene; bands by their suffix ("SR_B2", "ST_B10", "B10"); gives the MTL file."""
    scene = f"LC08_{level}_191025_20210612_20210622_02_T1"
    contents = {"LANDSAT_PRODUCT_ID": scene, "PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02"}
    for suffix, data in bands.items():
        key = suffix if suffix.startswith("ST_") else suffix.removeprefix("SR_").removeprefix("B")
        contents[f"FILE_NAME_BAND_{key}"] = f"{scene}_{suffix}.TIF"
        raster(folder / f"{scene}_{suffix}.TIF", data, 15 if suffix == "B8" else 30, nodata=0)
    for kind, key, data in (("PIXEL", "L1_PIXEL", pixel), ("RADSAT", "L1_RADIOMETRIC_SATURATION", radsat)):
        contents[f"FILE_NAME_QUALITY_{key}"] = f"{scene}_QA_{kind}.TIF"
        raster(folder / f"{scene}_QA_{kind}.TIF", data, nodata=1 if kind == "PIXEL" else None)
    attributes = {
        "SPACECRAFT_ID": "LANDSAT_8", "DATE_ACQUIRED": "2021-06-12", "CLOUD_COVER": 33.29, "SUN_ELEVATION": 30.0,
    }  # fmt: skip
    told = {"PRODUCT_CONTENTS": contents, "IMAGE_ATTRIBUTES": attributes, **groups}
    path = folder / f"{scene}_MTL.{form}"
    path.write_text(mtl(told, form))
    return path


def item(folder: Path, assets: Mapping[str, Any], name: str = "item.json", **properties: Any) -> Path:
    """A STAC 1.0 item; assets as they stand in the file."""
    extensions = ("eo/v1.0.0", "raster/v1.1.0", "projection/v1.0.0")
    text = {
        "type": "Feature", "stac_version": "1.0.0", "id": "scene", "geometry": None, "links": [], "assets": assets,
        "stac_extensions": [f"https://stac-extensions.github.io/{e}/schema.json" for e in extensions],
        "properties": {"datetime": "2021-06-12T10:00:29Z", **properties},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(text))
    return folder / name
