"""The contracts as tests: a plugin's own test file is three lines plus its special cases.

    from fovea.testing import DomainContract

    class TestDish(DomainContract):
        name = "dish"

Needs pytest. `pytest.register_assert_rewrite("fovea.testing")` in a conftest.py shows the values in failures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import chain
from math import isfinite
from pathlib import Path
from random import Random
from typing import ClassVar

import numpy as np
import pytest

from fovea import registry, verbal
from fovea.contracts import Domain, Expert
from fovea.errors import ExpertError, FoveaError, InputError, PluginError, UnsupportedError
from fovea.jsonable import from_json, to_json
from fovea.types import (
    MEASURING,
    Answer,
    Box,
    Call,
    ExpertCard,
    Facts,
    Finding,
    Mask,
    OrientedBox,
    Picture,
    Question,
    Report,
    Sample,
    Sentence,
    Study,
    View,
    Window,
)

_KNOWN_UNITS = frozenset({"1", "mm", "cm", "m", "km", "mm2", "cm2", "m2", "km2", "ha", "mL", "deg"})
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NAME = "doe_jane_19700101"


class DomainContract:
    """What every Domain keeps. Subclass it as `Test…` and set `name`, the domain's name in the registry."""

    name: ClassVar[str]
    count: ClassVar[int] = 6
    """How many studies `synth` makes for these tests."""
    kinds: ClassVar[frozenset[str]] = MEASURING | {"presence", "report"}
    """The kinds of question that the domain asks."""

    @pytest.fixture(scope="class")
    @classmethod
    def domain(cls) -> Domain:
        return registry.domain(cls.name)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp(f"synth_{cls.name}")

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, domain: Domain, folder: Path) -> list[Sample]:
        samples = domain.synth(folder, cls.count, seed=7)
        assert len(samples) == cls.count
        return samples

    @pytest.fixture(scope="class")
    @classmethod
    def studies(cls, domain: Domain, folder: Path, samples: list[Sample]) -> list[Study]:
        return [domain.load(folder / sample.path) for sample in samples]

    def test_keeps_the_protocol(self, domain: Domain) -> None:
        assert isinstance(domain, Domain)
        assert domain.name == self.name
        assert domain.presets

    def test_vocabulary_is_closed_and_unambiguous(self, domain: Domain) -> None:
        names = [{verbal.words(t.label), *(s.lower() for s in t.synonyms)} for t in domain.vocabulary]
        for what in (
            [term.label for term in domain.vocabulary],
            [f"{term.code.scheme} {term.code.value}" for term in domain.vocabulary],
            list(chain.from_iterable(names)),
        ):
            assert len(set(what)) == len(what), f"named twice: {sorted(x for x in what if what.count(x) > 1)}"
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", term.label) for term in domain.vocabulary)
        assert all(all(0 <= c <= 255 for c in term.color) for term in domain.vocabulary)

    def test_same_seed_writes_same_bytes(self, domain: Domain, tmp_path: Path) -> None:
        first, again, other = (_synth(domain, tmp_path / n, seed) for n, seed in (("a", 3), ("b", 3), ("c", 4)))
        assert first == again
        assert first != other

    def test_sniffs_by_content(self, domain: Domain, folder: Path, samples: list[Sample], tmp_path: Path) -> None:
        assert all(domain.sniff(folder / sample.path) for sample in samples)
        for name, content in (("empty", b""), ("notes.txt", b"a note, no study\n")):
            (tmp_path / name).write_bytes(content)
            assert not domain.sniff(tmp_path / name), name

    def test_finds_exactly_its_studies(
        self, domain: Domain, folder: Path, samples: list[Sample], studies: list[Study]
    ) -> None:
        (folder / "notes.txt").write_text("a note, no study\n")
        found = domain.studies(folder)
        assert len(found) == len(samples)
        assert {domain.load(files).digest for files in found} == {study.digest for study in studies}

    def test_studies_hold_no_names(
        self, domain: Domain, folder: Path, samples: list[Sample], studies: list[Study]
    ) -> None:
        for sample, study in zip(samples, studies, strict=True):
            path = folder / sample.path
            said = f"{dict(study.meta)} {study.source} {study.id} {domain.describe(study)}"
            assert path.name not in said
            assert str(path.parent) not in said
            assert study.domain == self.name
            assert study.meta["modality"]
            if path.is_file():
                assert sha256(path.read_bytes()).hexdigest() in study.source.hashes

    def test_images_are_whole(self, studies: list[Study]) -> None:
        for image in chain.from_iterable(study.images for study in studies):
            assert image.pixels.dtype == np.float32
            assert image.pixels.shape == (len(image.channels), *image.grid.shape)
            assert image.valid.dtype == np.bool_
            assert image.valid.shape == image.grid.shape
            assert np.isfinite(image.pixels[:, image.valid]).all()
            assert len({channel.name for channel in image.channels}) == len(image.channels)

    def test_a_window_is_a_slice_and_its_grid_moves(
        self, domain: Domain, folder: Path, samples: list[Sample], studies: list[Study]
    ) -> None:
        for sample, study in zip(samples, studies, strict=True):
            whole = study.images[0]
            start, stop = [size // 3 for size in whole.grid.shape], [2 * size // 3 + 1 for size in whole.grid.shape]
            s, r, c = zip(start, stop, strict=True)
            part = domain.load(folder / sample.path, Window(r, c, s)).images[0]
            np.testing.assert_array_equal(part.pixels, whole.pixels[:, slice(*s), slice(*r), slice(*c)])
            np.testing.assert_array_equal(part.valid, whole.valid[slice(*s), slice(*r), slice(*c)])
            corners = np.array([[0, 0, 0], np.subtract(stop, start)])
            np.testing.assert_allclose(part.grid.world(corners), whole.grid.world(corners + start), rtol=1e-9)
            assert part.grid.frame == whole.grid.frame
            again, small = whole.window(Window(r, c, s)), whole.window(shape=(5, 7))
            np.testing.assert_array_equal(again.pixels, part.pixels)
            assert small.pixels.shape[-2:] == small.grid.shape[1:] == (5, 7)
        with pytest.raises(InputError):
            _ = domain.load(folder / samples[0].path, Window((0, 10**7), (0, 10**7))).images[0].pixels

    def test_facts_are_findings_of_the_vocabulary(
        self, domain: Domain, samples: list[Sample], studies: list[Study]
    ) -> None:
        codes = {term.label: term.code for term in domain.vocabulary}
        for sample, study in zip(samples, studies, strict=True):
            labels = [finding.label for finding in sample.facts.findings]
            assert len(set(labels)) == len(labels)
            assert set(labels) <= sample.facts.assessed <= set(codes)
            assert sample.group
            for finding in sample.facts.findings:
                assert finding.code == codes[finding.label]
                check_finding(finding, study)
            assert to_json(from_json(Sample, json.loads(json.dumps(to_json(sample))))) == to_json(sample)

    def test_renders_every_preset(self, domain: Domain, studies: list[Study]) -> None:
        for study in studies:
            for preset in domain.presets:
                for size in (64, 150):
                    _check_picture(domain.render(study, View(preset, size)), study, size)
            default = domain.render(study, View(size=64)).pixels
            np.testing.assert_array_equal(default, domain.render(study, View(domain.presets[0], 64)).pixels)
            last = study.images[0].grid.shape[0] - 1
            assert {p.slice for p in domain.render(study, View(size=64, slice=last)).panels} == {last}
        with pytest.raises(FoveaError):
            domain.render(studies[0], View("no such preset"))

    def test_describes_in_one_line(self, domain: Domain, studies: list[Study]) -> None:
        for study in studies:
            line = domain.describe(study)
            assert line == line.strip()
            assert line
            assert "\n" not in line

    def test_every_answer_reads_back(self, domain: Domain, samples: list[Sample], studies: list[Study]) -> None:
        asked: set[str] = set()
        for question, facts in self.questions(domain, samples, studies):
            asked.add(question.kind)
            reply = domain.answer(question, facts)
            assert verbal.read_value(question, reply.text, domain.vocabulary) == reply.value, (question, reply)
            if reply.unit not in ("", "1") and reply.value != verbal.NONE:
                assert f" {reply.unit}" in reply.text
            if question.kind in ("size", "area"):
                assert reply.unit in _KNOWN_UNITS or reply.value == verbal.NONE
                assert question.measure
        assert asked == self.kinds

    def test_questions_do_not_tell_the_answer(
        self, domain: Domain, samples: list[Sample], studies: list[Study]
    ) -> None:
        for question, facts in self.questions(domain, samples, studies):
            reply = domain.answer(question, facts)
            if question.kind in ("count", "size", "area") and reply.value != verbal.NONE:
                assert float(str(reply.value)) not in map(float, _NUMBER.findall(question.text)), question
            if question.kind == "side":
                assert str(reply.value) not in re.findall(r"[\w-]+", question.text.lower()), question

    def test_questions_repeat_by_seed_and_vary_in_words(
        self, domain: Domain, samples: list[Sample], studies: list[Study]
    ) -> None:
        first, again = (list(self.questions(domain, samples, studies)) for _ in range(2))
        assert [question for question, _ in first] == [question for question, _ in again]
        wordings: dict[tuple[str, str, str], set[str]] = {}
        for question, _ in first:
            wordings.setdefault((question.kind, question.label, question.measure), set()).add(question.text)
        assert max(map(len, wordings.values())) > 1, "always the same words"

    def test_absent_is_answered_as_absent(self, domain: Domain, samples: list[Sample], studies: list[Study]) -> None:
        nothing = {"presence": False, "count": 0, "report": frozenset()}
        for question, facts in self.questions(domain, samples, studies):
            if question.kind != "class":
                rest = tuple(f for f in facts.findings if f.label != question.label and question.kind != "report")
                reply = domain.answer(question, replace(facts, findings=rest))
                assert reply.value == nothing.get(question.kind, verbal.NONE), (question, reply)
                assert verbal.read_value(question, reply.text, domain.vocabulary) == reply.value, (question, reply)

    def test_captions_vary_and_name_what_is_there(
        self, domain: Domain, samples: list[Sample], studies: list[Study]
    ) -> None:
        whole = [(study, sample.facts) for sample, study in zip(samples, studies, strict=True)]
        for study, facts in (*whole, (studies[0], replace(samples[0].facts, findings=()))):
            captions = {domain.caption(study, facts, Random(seed)) for seed in range(8)}
            present = {finding.label for finding in facts.findings if finding.present}
            assert len(captions) > 1
            for caption in captions:
                named = verbal.read_value(Question("report", ""), caption, domain.vocabulary)
                assert isinstance(named, frozenset)
                assert named & present or not present, caption
                assert named <= present, caption

    def test_exports_what_it_offers(self, domain: Domain, samples: list[Sample], studies: list[Study]) -> None:
        for sample, study in list(zip(samples, studies, strict=True))[:3]:
            for report in (_report(study, ()), _report(study, sample.facts.findings)):
                with pytest.raises(UnsupportedError) as refusal:
                    domain.export(report, "no-such-format")
                formats = offered(refusal.value)
                assert formats, "UnsupportedError.expected names the formats: 'one of a, b'"
                for name in formats:
                    data = domain.export(report, name)
                    assert data
                    assert data == domain.export(report, name), f"{name} differs from call to call"

    @pytest.mark.usefixtures("samples")
    def test_unreadable_files_are_input_errors_without_names(
        self, domain: Domain, folder: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / _NAME
        whole = domain.studies(folder)[0][0].read_bytes()
        for content in (b"", b"a note, no study\n", whole[: len(whole) // 2]):
            broken.write_bytes(content)
            with pytest.raises(InputError) as error:
                _ = [image.pixels for image in domain.load(broken).images]
            assert _NAME not in str(error.value)
        with pytest.raises(InputError) as error:
            domain.load(tmp_path / f"{_NAME}_missing")
        assert _NAME not in str(error.value)

    def questions(
        self, domain: Domain, samples: list[Sample], studies: list[Study]
    ) -> Iterator[tuple[Question, Facts]]:
        """Questions of every study under several seeds, each with the facts that answer it."""
        for sample, study in zip(samples, studies, strict=True):
            for seed in range(10):
                for question in domain.questions(study, sample.facts, Random(seed)):
                    yield question, sample.facts


class ExpertContract:
    """What every Expert keeps. Subclass it as `Test…` with the fixtures `expert` and `study`, which it accepts."""

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        raise PluginError("an ExpertContract without an expert", "a fixture `expert` in the subclass")

    @pytest.fixture(scope="class")
    @classmethod
    def study(cls) -> Study:
        raise PluginError("an ExpertContract without a study", "a fixture `study` in the subclass")

    def test_keeps_the_protocol(self, expert: Expert) -> None:
        assert isinstance(expert, Expert)

    def test_card_can_be_written_and_called(self, expert: Expert) -> None:
        card = expert.card
        assert from_json(ExpertCard, json.loads(json.dumps(to_json(card)))) == card
        assert card.name
        assert card.version
        assert card.task
        assert card.summary
        assert card.modalities
        assert card.arguments.get("all") == card.labels
        assert {label: (label,) for label in card.labels}.items() <= card.arguments.items()
        calls = [(card.name, argument) for argument in card.arguments]
        assert verbal.read_calls("".join(verbal.all_calls([card]))) == calls

    def test_accepts_its_own_and_no_other(self, expert: Expert, study: Study) -> None:
        assert expert.accepts(study) is True
        assert study.modality in expert.card.modalities
        stranger = replace(study, domain="no such domain", meta=dict(study.meta) | {"modality": "no such modality"})
        assert expert.accepts(stranger) is False

    def test_answers_each_label_once(self, expert: Expert, study: Study) -> None:
        for argument, labels in expert.card.arguments.items():
            findings = expert.run(study, argument)
            assert sorted(finding.label for finding in findings) == sorted(labels)
            for finding in findings:
                check_finding(finding, study)
                assert (finding.by.name, finding.by.version) == (expert.card.name, expert.card.version)
                assert finding.by.digest == study.digest
                assert "\n" not in verbal.describe_finding(finding)

    def test_says_the_same_twice_and_leaves_the_study_alone(self, expert: Expert, study: Study) -> None:
        before = [image.pixels.copy() for image in study.images]
        for argument in expert.card.arguments:
            assert to_json(expert.run(study, argument)) == to_json(expert.run(study, argument))
        for image, pixels in zip(study.images, before, strict=True):
            np.testing.assert_array_equal(image.pixels, pixels)

    def test_refuses_an_unknown_argument(self, expert: Expert, study: Study) -> None:
        with pytest.raises(ExpertError):
            expert.run(study, "no such argument")


def check_finding(finding: Finding, study: Study) -> None:
    """Assert that a finding is well formed and fits the study that it is about."""
    assert 0 <= finding.score <= 1
    assert finding.location in ("", *verbal.LOCATIONS)
    assert finding.code.value
    assert finding.present or finding.region is None, f"{finding.label} is absent but has a region"
    names = [measure.name for measure in finding.measures]
    assert len(set(names)) == len(names)
    for measure in finding.measures:
        assert isfinite(measure.value)
        assert measure.unit in _KNOWN_UNITS, measure
        assert measure.uncertainty is None or measure.uncertainty >= 0
    shape = study.images[finding.image].grid.shape
    region = finding.region
    if isinstance(region, Mask):
        assert region.data.dtype == np.bool_
        assert region.data.shape == shape
        assert region.data.any()
    elif isinstance(region, Box):
        assert all(0 <= a < b <= n for a, b, n in zip(region.start, region.stop, shape, strict=True))
    elif region is not None:
        points = (region.center,) if isinstance(region, OrientedBox) else region.points
        assert 0 <= region.slice < shape[0]
        assert all(-0.5 <= row <= shape[1] and -0.5 <= column <= shape[2] for row, column in points)
    if finding.slices is not None:
        assert 0 <= finding.slices[0] < finding.slices[1] <= shape[0]


def offered(refusal: UnsupportedError) -> list[str]:
    """The formats that a refusal of `Domain.export` names after "one of"."""
    return re.findall(r"[\w.+-]+", refusal.expected.partition("one of ")[2])


def _synth(domain: Domain, directory: Path, seed: int) -> tuple[dict[str, bytes], list[object]]:
    directory.mkdir()
    samples = domain.synth(directory, 2, seed)
    truth = [to_json(replace(s, path=(directory / s.path).relative_to(directory).as_posix())) for s in samples]
    files = {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    return files, truth


def _check_picture(picture: Picture, study: Study, size: int) -> None:
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (size, size, 3)
    assert picture.panels
    border = np.ones((size, size), bool)
    for panel in picture.panels:
        grid = study.images[panel.image].grid
        for start, stop in (panel.rows, panel.columns):
            assert 0 <= start < stop <= size
        assert 0 <= panel.slice < grid.shape[0]
        assert panel.shape == grid.shape[1:]
        if np.isclose(grid.spacing[1], grid.spacing[2], rtol=0.01):
            height, width = panel.rows[1] - panel.rows[0], panel.columns[1] - panel.columns[0]
            scale = max(panel.shape) / max(height, width)
            assert abs(height * scale - panel.shape[0]) <= scale, "the aspect is not kept"
            assert abs(width * scale - panel.shape[1]) <= scale, "the aspect is not kept"
        border[slice(*panel.rows), slice(*panel.columns)] = False
    assert not picture.pixels[border].any(), "the border is not black"
    assert picture.pixels.any()


def _report(study: Study, findings: tuple[Finding, ...]) -> Report:
    call = Call("contract", "all", findings)
    text = "There are findings." if findings else "Nothing was found."
    sentence = Sentence(text, "expert", tuple(range(len(findings))))
    return Report(study, (Answer("Report.", text, 0.9, (sentence,), (call,)),), {"model": "contract"})
