"""The closed vocabulary of radiology. Codes: SNOMED CT ("SCT"), DICOM ("DCM"), or our own table ("FOVEA").

No name, label or synonym, stands for two labels, so that a sentence can be read back.
"""

from __future__ import annotations

from fovea.types import Code, Term

_CHEST = ("DX", "CR")
_CT = ("CT",)

ORGANS = ("left_lung", "right_lung", "heart", "cardiomediastinum", "liver", "spleen", "left_kidney", "right_kidney")
"""What everybody has: it is measured, and is no finding."""

PRESETS = ("default", "soft tissue", "lung", "bone", "inverted", "as stored")
"""Ways to draw a study; the middle three are windows of CT and draw anything else as "default" does."""

VOCABULARY: tuple[Term, ...] = (
    Term(
        "left_lung",
        Code("SCT", "44029006", "Left lung structure"),
        color=(86, 180, 233),
        modalities=_CHEST,
    ),
    Term(
        "right_lung",
        Code("SCT", "3341006", "Right lung structure"),
        color=(0, 114, 178),
        modalities=_CHEST,
    ),
    Term(
        "heart",
        Code("SCT", "80891009", "Heart structure"),
        ("cardiac silhouette", "heart shadow"),
        color=(213, 94, 0),
        modalities=_CHEST,
    ),
    Term(
        "cardiomediastinum",
        Code("FOVEA", "cardiomediastinum", "Heart and mediastinum in projection"),
        ("cardiomediastinal silhouette", "cardiomediastinal shadow"),
        color=(250, 180, 90),
        modalities=_CHEST,
    ),
    Term(
        "cardiomegaly",
        Code("SCT", "8186001", "Cardiomegaly"),
        ("enlarged heart", "enlarged cardiac silhouette", "cardiac enlargement"),
        (
            "a cardiac outline wider than half of the chest",
            "a broad cardiac outline that reaches towards the left chest wall",
            "a wide, globular cardiac outline",
        ),
        (255, 140, 0),
        _CHEST,
    ),
    Term(
        "pleural_effusion",
        Code("SCT", "60046008", "Pleural effusion"),
        ("pleural fluid", "fluid in the pleural space", "hydrothorax"),
        (
            "a blunted costophrenic angle",
            "a dense base with a meniscus along the chest wall",
            "homogeneous white over the lower chest that hides the diaphragm",
        ),
        (0, 158, 115),
        _CHEST,
    ),
    Term(
        "pneumothorax",
        Code("SCT", "36118008", "Pneumothorax"),
        ("air in the pleural space", "collapsed lung"),
        (
            "a black rim without lung markings",
            "a thin pleural line away from the chest wall",
            "a lucent zone at the apex with no vessels in it",
        ),
        (240, 228, 66),
        _CHEST,
    ),
    Term(
        "nodule",
        Code("SCT", "786838002", "Nodule of lung"),
        ("pulmonary nodule", "lung nodule", "coin lesion"),
        ("a small round opacity", "a round spot brighter than the lung around it", "a well-defined rounded density"),
        (255, 60, 60),
        _CHEST,
    ),
    Term(
        "support_device",
        Code("SCT", "49062001", "Device"),
        ("line or tube", "medical device", "hardware"),
        (
            "a bright thin line that no anatomy explains",
            "a radiopaque tube projecting over the chest",
            "a dense metallic object",
        ),
        (204, 121, 167),
        _CHEST,
    ),
    Term(
        "no_finding",
        Code("SCT", "281900007", "No abnormality detected"),
        ("normal chest", "unremarkable chest", "no abnormality"),
        ("clear lungs", "sharp costophrenic angles", "a cardiac outline of normal width"),
        (200, 200, 200),
        _CHEST,
    ),
    Term(
        "consolidation",
        Code("SCT", "95436008", "Lung consolidation"),
        ("airspace opacity", "airspace disease", "alveolar opacity"),
        ("a dense white patch with air bronchograms", "opacity that hides the vessels", "a fluffy dense area"),
        (255, 105, 180),
        _CHEST + _CT,
    ),
    Term(
        "ground_glass_opacity",
        Code("DCM", "112120", "Ground glass opacity"),
        ("ground-glass opacity", "hazy opacity"),
        ("a hazy veil through which vessels are still seen", "a faint grey haze", "milky increased density"),
        (170, 255, 195),
        _CHEST + _CT,
    ),
    Term(
        "pneumonia",
        Code("SCT", "233604007", "Pneumonia"),
        ("lung infection", "pneumonic infiltrate"),
        ("patchy opacity in the lung", "an infiltrate", "increased density of part of the lung"),
        (250, 190, 212),
        _CHEST + _CT,
    ),
    Term(
        "covid_19",
        Code("SCT", "840539006", "COVID-19"),
        ("COVID-19", "coronavirus disease"),
        ("patchy peripheral opacities on both sides", "bilateral hazy basal opacity", "peripheral haze"),
        (128, 128, 0),
        _CHEST + _CT,
    ),
    Term(
        "acute_respiratory_distress_syndrome",
        Code("SCT", "67782005", "Acute respiratory distress syndrome"),
        ("ARDS",),
        ("diffuse white-out of both sides", "widespread bilateral opacity", "dense diffuse opacity"),
        (145, 30, 180),
        _CHEST + _CT,
    ),
    Term(
        "bacterial_pneumonia",
        Code("SCT", "53084003", "Bacterial pneumonia"),
        color=(220, 190, 255),
        modalities=_CHEST + _CT,
    ),
    Term(
        "streptococcal_pneumonia",
        Code("SCT", "34020007", "Pneumonia caused by Streptococcus"),
        ("Streptococcus",),
        color=(70, 240, 240),
        modalities=_CHEST + _CT,
    ),
    Term(
        "klebsiella_pneumonia",
        Code("SCT", "64479007", "Pneumonia caused by Klebsiella pneumoniae"),
        ("Klebsiella",),
        color=(188, 246, 12),
        modalities=_CHEST + _CT,
    ),
    Term(
        "mycoplasma_pneumonia",
        Code("SCT", "46970008", "Pneumonia caused by Mycoplasma pneumoniae"),
        ("Mycoplasma",),
        color=(100, 60, 20),
        modalities=_CHEST + _CT,
    ),
    Term(
        "pneumocystis_pneumonia",
        Code("SCT", "415125002", "Pneumonia caused by Pneumocystis jirovecii"),
        ("Pneumocystis",),
        ("fine diffuse haze that spares the edges", "perihilar haze on both sides"),
        (128, 0, 128),
        _CHEST + _CT,
    ),
    Term(
        "liver",
        Code("SCT", "10200004", "Liver structure"),
        ("hepatic parenchyma",),
        color=(166, 86, 40),
        modalities=_CT,
    ),
    Term(
        "spleen",
        Code("SCT", "78961009", "Splenic structure"),
        ("splenic parenchyma",),
        color=(117, 112, 179),
        modalities=_CT,
    ),
    Term(
        "left_kidney",
        Code("SCT", "18639004", "Left kidney structure"),
        color=(127, 201, 127),
        modalities=_CT,
    ),
    Term(
        "right_kidney",
        Code("SCT", "9846003", "Right kidney structure"),
        color=(27, 120, 55),
        modalities=_CT,
    ),
    Term(
        "liver_lesion",
        Code("SCT", "300331000", "Lesion of liver"),
        ("hepatic lesion", "focal liver lesion", "liver mass"),
        (
            "a rounded area darker than its surroundings",
            "a dark focus with a smooth edge",
            "a focal hypodense spot",
        ),
        (255, 215, 0),
        _CT,
    ),
    Term(
        "kidney_lesion",
        Code("FOVEA", "kidney_lesion", "Lesion of kidney"),
        ("renal lesion", "renal mass", "kidney mass"),
        (
            "a focal bulge of the renal outline",
            "a hypodense spot in the renal cortex",
            "a rounded dark area beside the renal sinus",
        ),
        (255, 0, 255),
        _CT,
    ),
)

TERMS = {term.label: term for term in VOCABULARY}
