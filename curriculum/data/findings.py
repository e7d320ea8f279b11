"""What the experts found in every study of a run, from their cache on disk, and the overlays drawn of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from curriculum.data.corpus import Corpus, Item, open_study
from experts.cache import FindingsCache
from fovea.contracts import Domain, Expert
from fovea.errors import ExpertError
from fovea.overlay import overlay
from fovea.progress import track
from fovea.types import Bytes, Call, ExpertCard, Facts, Finding, Picture


@dataclass(frozen=True, eq=False)
class Findings:
    """Findings without regions by study and expert, and a picture of each study with all of them drawn."""

    cards: Mapping[str, ExpertCard]
    found: Mapping[str, Mapping[str, tuple[Finding, ...] | str]]
    overlays: Mapping[str, Bytes]

    def call(self, study: str, expert: str, argument: str) -> Call:
        """The call as the expert would answer it."""
        result = self.found[study].get(expert, "the study is not of its kind")
        if isinstance(result, str):
            return Call(expert, argument, failure=result)
        labels = self.cards[expert].arguments[argument]
        return Call(expert, argument, tuple(finding for finding in result if finding.label in labels))

    def facts(self, study: str, calls: Sequence[tuple[str, str]]) -> Facts:
        """What the calls together claim."""
        return claimed([self.call(study, *call) for call in calls])


def claimed(calls: Sequence[Call]) -> Facts:
    """Findings of calls as facts, to be answered from."""
    findings = [finding for call in calls for finding in call.findings]
    return Facts(tuple(f for f in findings if f.present), frozenset(f.label for f in findings))


def consult(domain: Domain, corpus: Corpus, experts: Sequence[Expert], cache: FindingsCache) -> Findings:
    """Run every expert on every study that it accepts; what is in the cache is not run again."""
    found: dict[str, dict[str, tuple[Finding, ...] | str]] = {}
    overlays: dict[str, Bytes] = {}
    for item in track(corpus.items, f"{domain.name}: findings of the experts"):
        results = {
            expert.card.name: result for expert in experts if (result := _run(domain, item, expert, cache)) is not None
        }
        drawn = [f for result in results.values() if not isinstance(result, str) for f in result]
        overlays[item.id] = overlay(Picture(item.picture, item.panels), drawn, domain.vocabulary)
        found[item.id] = {
            name: result if isinstance(result, str) else tuple(replace(f, region=None) for f in result)
            for name, result in results.items()
        }
    return Findings({expert.card.name: expert.card for expert in experts}, found, overlays)


def true_overlays(domain: Domain, corpus: Corpus) -> dict[str, Bytes]:
    """A picture of each study with its true findings drawn."""
    return {
        item.id: overlay(Picture(item.picture, item.panels), item.truth().findings, domain.vocabulary)
        for item in corpus.items
    }


def _run(domain: Domain, item: Item, expert: Expert, cache: FindingsCache) -> tuple[Finding, ...] | str | None:
    """Findings, the reason of a failure, or None where the expert takes no such study."""
    if item.modality not in expert.card.modalities:
        return None
    try:
        return cache.run(expert, item.study, "all", lambda: open_study(domain, item))
    except ExpertError as error:
        return error.given
