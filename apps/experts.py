"""`fovea experts run` and `show`: an expert asked about a file, without a language model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from apps import mapping
from apps.inspection import studies
from apps.outputs import write_outputs, writer_of
from apps.service import in_words, installed_domains
from apps.wording import measures, one_line
from fovea import __version__, registry
from fovea.contracts import Domain, Expert
from fovea.errors import ConfigError, ExpertError, FoveaError, InputError, ModelError, UnsupportedError
from fovea.files import whole
from fovea.jsonable import to_json
from fovea.types import Answer, Call, ExpertCard, Finding, Report, Sentence, Study
from fovea.verbal import describe_call, words

SCHEMA = "fovea.findings/1"
NOTICE = "Not verified by a person."
_RECIPES = ("expert.json", "expert.yaml", "config.json")
"""Files that name the kind of an expert, the first that there is; the others may be foreign."""
_LARGEST = 1_000_000
_MAPPED = "A mapped scene has its class map and its table of objects instead"
_OF_MAP = "stac"
"""The output that a mapped scene has too."""


@dataclass(frozen=True, eq=False)
class Consultation:
    """A study with what an expert found in it, and the map of a scene that was too large to be read at once."""

    domain: Domain
    study: Study
    files: tuple[Path, ...]
    card: ExpertCard
    argument: str
    findings: tuple[Finding, ...]
    map: mapping.Mapped | None = None

    @property
    def notice(self) -> str:
        """What a reader has to know."""
        return f"{NOTICE} {mapping.NOTE}" if self.map else NOTICE

    @property
    def call(self) -> Call:
        return Call(self.card.name, self.argument, self.findings)

    def report(self) -> Report:
        """The findings as a draft whose sentences are written by rule; no model had a say, so its certainty is 1."""
        sentences = tuple(
            Sentence(f"{one_line(finding).capitalize()}.", "expert", (place,))
            for place, finding in enumerate(self.findings)
        )
        text = " ".join(sentence.text for sentence in sentences)
        question = f"What does {self.card.name}({self.argument}) find?"
        provenance = {
            "fovea": __version__,
            "domain": self.domain.name,
            "model": "none",
            "experts": f"{self.card.name}@{self.card.version}",
        }
        return Report(self.study, (Answer(question, text, 1.0, sentences, (self.call,)),), provenance)


def open_expert(name: str, run: Path | None = None) -> Expert:
    """The expert of a folder, of a run by its name, or of an installed kind that needs no folder.

    Raises ConfigError where there is none of that name, ModelError where its folder does not tell its kind.
    """
    folder = expert_folder(name, run)
    if folder is not None:
        return registry.expert_kind(_kind(folder)).open(folder)
    if run is None and name in entry_points(group="fovea.experts").names:
        return registry.expert_kind(name).open(None)
    there = sorted(path.name for path in (run / "experts").glob("*") if path.is_dir()) if run else []
    raise ConfigError(
        "an expert that is not there",
        f"one of {', '.join(there)}" if there else "the folder of an expert, or a name with --in RUN",
        "`fovea experts train` makes those of a recipe.",
    )


def expert_folder(name: str, run: Path | None = None) -> Path | None:
    """The folder that a name means; None where it is not one."""
    places = [Path(name)] if run is None else [run / "experts" / name, run / name]
    return next((place for place in places if place.is_dir()), None)


def model_items(expert: Expert, name: str, run: Path | None = None) -> tuple[Mapping[str, Any], ...]:
    """The STAC item of the expert that `open_expert` opened, if it can be described."""
    from experts.model_item import describe

    folder = expert_folder(name, run)
    item = describe(expert, folder) if folder else None
    return (item,) if item else ()


def _kind(folder: Path) -> str:
    """The entry point that opens a folder."""
    path = next((folder / name for name in _RECIPES if (folder / name).is_file()), None)
    if path is None:
        raise ModelError("a folder that holds no expert", f"one of {', '.join(_RECIPES)} in it")
    if path.stat().st_size > _LARGEST:
        raise ModelError(f"{path.name} of more than {_LARGEST:,} bytes", "the short recipe of an expert")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, ValueError, yaml.YAMLError):
        recipe = None
    kind = recipe.get("kind") if isinstance(recipe, Mapping) else None
    if not isinstance(kind, str):
        raise ModelError(f"{path.name} without a kind", 'a key "kind" with the name of an expert kind')
    return kind


def consult(expert: Expert, path: Path, argument: str = "", out: Path | None = None) -> Consultation:
    """Ask an expert about the one study at `path` that it takes; without an argument, about all that it knows.

    A scene of more than `apps.mapping.LARGE` pixels is mapped into `out`, where the expert reads it in windows. Raises
    InputError where the path holds no study or several that it takes, ExpertError where it takes none or fails.
    """
    card = expert.card
    argument = argument or ("all" if "all" in card.arguments else next(iter(card.arguments)))
    taken: list[tuple[Domain, tuple[Path, ...], Study]] = []
    refusals: list[FoveaError] = []
    seen: set[str] = set()
    for domain, files in studies(path, installed_domains()):
        try:
            study = domain.load(files)
        except InputError as error:
            refusals.append(error)
            continue
        seen.add(study.modality)
        if expert.accepts(study):
            taken.append((domain, files, study))
    if not taken and not seen:
        raise refusals[0]
    if not taken:
        raise ExpertError(
            f"{card.name} does not take this study ({', '.join(sorted(seen))})",
            card.accepts or ", ".join(card.modalities),
        )
    if len(taken) > 1:
        raise InputError(f"{len(taken)} studies that {card.name} takes", "one study", "Name the files of one of them.")
    domain, files, study = taken[0]
    if mapping.mappable(expert, study):
        scene = mapping.map_large(expert, study, argument, out)
        return Consultation(domain, study, files, card, argument, scene.findings, scene)
    return Consultation(domain, study, files, card, argument, expert.run(study, argument))


def finding_rows(findings: Sequence[Finding]) -> list[tuple[str, str, str, str, str]]:
    """Label, present, probability, measures and location of each finding, present ones first."""
    return [
        (
            words(finding.label),
            "yes" if finding.present else "no",
            f"{finding.score:.2f}",
            measures(finding) if finding.present else "",
            finding.location,
        )
        for finding in sorted(findings, key=lambda finding: not finding.present)
    ]


def card_rows(card: ExpertCard) -> list[tuple[str, str]]:
    """What an expert takes, answers and is worth, without its performance."""
    return [
        ("expert", f"{card.name}@{card.version}"),
        ("task", card.task),
        ("summary", card.summary),
        ("takes", card.accepts or ", ".join(card.modalities)),
        ("arguments", ", ".join(card.arguments)),
        ("labels", ", ".join(map(words, card.labels))),
        ("trained on", card.data or "not told"),
        ("licence", card.licence),
    ]


def performance_rows(card: ExpertCard) -> list[tuple[str, str, str, str, str]]:
    """Label, metric, value, its 95 % interval and the number of cases."""
    return [
        (words(row.label), row.metric, f"{row.value:.3g}", f"{row.low:.3g} to {row.high:.3g}", str(row.n))
        for row in card.performance
    ]


def write(
    done: Consultation, out: Path, outputs: Sequence[str] | None = None, models: Sequence[Mapping[str, Any]] = ()
) -> tuple[tuple[Path, ...], Mapping[str, str]]:
    """Write findings.png, findings.json and findings.txt into a folder, each whole or not at all; the same every time.

    `outputs` are names of the domain's Writer, () for all that the findings allow, None for none; of a mapped scene
    there is only "stac". `models` describe the expert, as `model_items` gives. Returns the files, and for each of all
    outputs that could not be written the reason. Raises UnsupportedError where a named one cannot.
    """
    from apps.figure import figure
    from apps.pictures import png
    from apps.report.document import title

    if outputs is not None:
        writer_of(done.domain, outputs)
    if done.map and set(outputs or ()) - {_OF_MAP}:
        raise UnsupportedError(_MAPPED, f"at most {_OF_MAP}", "Write that one, or leave out --write.")
    study, findings = done.map.overview if done.map else (done.study, done.findings)
    note = mapping.NOTE if done.map else ""
    picture = png(figure(done.domain, study, done.card, findings, title(done.domain, done.study), note))
    files = {
        "findings.png": picture,
        "findings.json": json.dumps(_document(done), ensure_ascii=False, allow_nan=False).encode() + b"\n",
        "findings.txt": "\n".join(_lines(done)).encode() + b"\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        with whole(out / name) as partial:
            partial.write_bytes(data)
    written = [*(done.map.files if done.map else ()), *(out / name for name in files)]
    if outputs is None:
        return tuple(written), {}
    if done.map:
        refused = {} if outputs else {"other output": f"{_MAPPED}."}
        try:
            written += _described(done, done.map, out, models)
        except UnsupportedError as error:
            if outputs:
                raise
            refused[_OF_MAP] = in_words(error)["happened"]
        return tuple(written), refused
    more = write_outputs(done.domain, done.report(), done.files, out, outputs, models)
    return (*written, *(out / name for name in more.files)), more.refused


def _described(
    done: Consultation, scene: mapping.Mapped, out: Path, models: Sequence[Mapping[str, Any]]
) -> tuple[Path, ...]:
    """The STAC item of a map, beside it."""
    from domains.remote_sensing.outputs import stac

    assets = [path for path in scene.files if path.suffix in (".tif", ".parquet")]
    return stac.write(done.report(), out, assets, models)


def _document(done: Consultation) -> dict[str, Any]:
    study = done.study
    return {
        "schema": SCHEMA,
        "notice": done.notice,
        "expert": to_json(done.card),
        "argument": done.argument,
        "study": {"id": study.id, "digest": study.digest, "domain": study.domain, "meta": dict(study.meta)},
        "findings": to_json(done.findings),
        "text": describe_call(done.call),
    }


def _lines(done: Consultation) -> Iterator[str]:
    yield f"{done.domain.describe(done.study)}"
    yield f"{done.card.name}@{done.card.version}, {done.argument}: study {done.study.id}"
    yield ""
    yield describe_call(done.call)
    yield ""
    yield done.notice
