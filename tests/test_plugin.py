"""A stranger's domain and expert, exactly as the guides spell them out, found and used without touching the core."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import install, lay_out

from fovea import registry
from fovea.errors import InputError
from fovea.testing import DomainContract, ExpertContract
from fovea.types import Code, Picture, Reply, Study, Term

GUIDES = Path(__file__).resolve().parents[1] / "docs" / "guides"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The package of the two guides, importable as pip would have made it."""
    folder = tmp_path_factory.mktemp("stranger")
    lay_out(GUIDES / "add-an-expert.md", folder)
    (root,) = install(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "dish"]:
        del sys.modules[name]


def test_it_passes_both_contract_kits_in_its_own_test_run(project):
    env = {**os.environ, "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_registry_finds_it_beside_the_built_in_ones(project):
    assert {"dish", "radiology", "remote_sensing"} <= set(registry.plugins("fovea.domains"))
    assert registry.plugins("fovea.domains")["dish"].origin == "fovea-dish"
    domain, expert = registry.domain("dish"), registry.expert_kind("colony_counter").open(None)
    (sample, *_) = [s for s in domain.synth(project / "studies", 5, seed=1) if s.facts.findings]
    (found,) = expert.run(domain.load(project / "studies" / sample.path), "all")
    assert found.measure("count").value == sample.facts.findings[0].measure("count").value


def test_the_command_line_lists_it(project):
    env = {**os.environ, "PYTHONPATH": str(project)}
    for command, name in ((["domains"], "dish"), (["experts"], "colony_counter")):
        done = subprocess.run([sys.executable, "-m", "apps.cli", *command], env=env, capture_output=True, text=True)
        assert name in done.stdout, done.stderr


def faulty(domain, **changes):
    """The domain with some of its attributes or methods replaced."""
    return type("Faulty", (type(domain),), {k: staticmethod(v) if callable(v) else v for k, v in changes.items()})()


def said(domain, change):
    """`Domain.answer` with a change made to each reply."""
    return lambda question, facts: change(domain.answer(question, facts))


def drawn(domain, change):
    return lambda study, view: Picture(change(domain.render(study, view).pixels), domain.render(study, view).panels)


def read(domain, change):
    """`Domain.load` with a change made to each study."""
    return lambda path, window=None: change(domain.load(path, window))


def shifted(study: Study) -> Study:
    image = study.images[0]
    affine = image.grid.affine.copy()
    affine[0, 3] = 0
    return replace(study, images=(replace(image, grid=replace(image.grid, affine=affine)),))


FAULTS = {
    "test_vocabulary_is_closed_and_unambiguous": lambda d: {
        "vocabulary": (*d.vocabulary, Term("growth", Code("99DISH", "2", "growth"), synonyms=("colonies",)))
    },
    "test_same_seed_writes_same_bytes": lambda d: {
        "synth": lambda directory, n, seed: d.synth(directory, n, np.random.SeedSequence().entropy)
    },
    "test_sniffs_by_content": lambda d: {"sniff": lambda path: path.is_file()},
    "test_finds_exactly_its_studies": lambda d: {"studies": lambda path: d.studies(path)[1:]},
    "test_studies_hold_no_names": lambda d: {
        "load": lambda path, window=None: replace(d.load(path), meta={"modality": "DISH", "file": path.name})
    },
    "test_a_window_is_a_slice_and_its_grid_moves": lambda d: {"load": read(d, shifted)},
    "test_facts_are_findings_of_the_vocabulary": lambda d: {"vocabulary": (replace(d.vocabulary[0], label="plaque"),)},
    "test_renders_every_preset": lambda d: {"render": drawn(d, lambda pixels: pixels[:-1])},
    "test_describes_in_one_line": lambda d: {"describe": lambda study: "Dish\n"},
    "test_every_answer_reads_back": lambda d: {"answer": said(d, lambda reply: replace(reply, text="It is so."))},
    "test_questions_do_not_tell_the_answer": lambda d: {
        "questions": lambda study, facts, rng: [
            replace(q, text=f"{q.text} Is it {d.answer(q, facts).value}?") for q in d.questions(study, facts, rng)
        ]
    },
    "test_questions_repeat_by_seed_and_vary_in_words": lambda d: {
        "questions": lambda study, facts, rng: [replace(q, text="?") for q in d.questions(study, facts, rng)]
    },
    "test_absent_is_answered_as_absent": lambda d: {
        "answer": said(d, lambda reply: Reply("There are 2.", 2) if reply.value == 0 else reply)
    },
    "test_captions_vary_and_name_what_is_there": lambda d: {
        "caption": lambda study, facts, rng: f"A dish with colonies {rng.random()}."
    },
    "test_exports_what_it_offers": lambda d: {"export": lambda report, format: b"label"},
    "test_unreadable_files_are_input_errors_without_names": lambda d: {
        "load": lambda path, window=None: d.load(path) if d.sniff(path) else _complain(path)
    },
}


def _complain(path):
    raise InputError(f"{path} is no dish")


def check(name, domain, tmp_path):
    """Run one test of the kit for a domain, with the kit's own fixtures made by hand."""
    kit = type("TestFaulty", (DomainContract,), {"name": "dish", "kinds": {"presence", "count", "size", "report"}})
    made = {"domain": domain, "folder": tmp_path / "studies", "tmp_path": tmp_path / "own"}
    made["folder"].mkdir(parents=True)
    made["tmp_path"].mkdir()
    made["samples"] = domain.synth(made["folder"], 6, 7)
    made["studies"] = [domain.load(made["folder"] / sample.path) for sample in made["samples"]]
    test = getattr(kit(), name)
    test(**{parameter: made[parameter] for parameter in inspect.signature(test).parameters})


@pytest.mark.parametrize("name", FAULTS)
def test_the_kit_sees_the_fault(project, tmp_path, name):
    domain = registry.domain("dish")
    check(name, domain, tmp_path / "whole")
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(name, faulty(domain, **FAULTS[name](domain)), tmp_path / "faulty")


EXPERT_FAULTS = {
    "test_card_can_be_written_and_called": lambda e: replace(
        e, card=replace(e.card, arguments={"colony": ("colony",)})
    ),
    "test_accepts_its_own_and_no_other": lambda e: _expert(e, accepts=lambda study: True),
    "test_answers_each_label_once": lambda e: _expert(e, run=lambda study, argument: e.run(study, argument) * 2),
    "test_says_the_same_twice_and_leaves_the_study_alone": lambda e: _expert(
        e,
        run=lambda study, argument: (
            replace(e.run(study, argument)[0], score=float(np.random.default_rng().random())),
        ),
    ),
    "test_refuses_an_unknown_argument": lambda e: _expert(e, run=lambda study, argument: e.run(study, "all")),
}


def _expert(expert, **changes):
    faults = {name: staticmethod(change) for name, change in changes.items()}
    return type("Faulty", (type(expert),), faults)()


@pytest.mark.parametrize("name", EXPERT_FAULTS)
def test_the_expert_kit_sees_the_fault(project, tmp_path, name):
    domain, expert = registry.domain("dish"), registry.expert_kind("colony_counter").open(None)
    study = domain.load(tmp_path / domain.synth(tmp_path, 1, seed=0)[0].path)

    def check(subject):
        test = getattr(ExpertContract(), name)
        made = {"expert": subject, "study": study}
        test(**{parameter: made[parameter] for parameter in inspect.signature(test).parameters})

    check(expert)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(EXPERT_FAULTS[name](expert))
