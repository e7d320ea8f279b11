"""The viewer's page. Started by `fovea app`; arguments come after `--`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from apps.service import Item, find_studies
from apps.viewer import panels
from apps.viewer.session import Run, Session, Uploads, open_runs
from fovea.errors import UnsupportedError
from fovea.verbal import words

SAMPLES, OWN = "Samples", "Your files"


def page(runs: Mapping[str, Run]) -> None:
    """The whole page, for the runs that there are."""
    st.set_page_config("Fovea", ":material/center_focus_strong:", "wide")
    st.html(panels.STYLE)
    if not runs:
        st.error("There is no trained model here. Run `fovea demo` first.", icon=":material/error:")
        return
    item = _choose(runs)
    if item is None:
        st.info("Choose a study on the left, or add files.", icon=":material/arrow_back:")
        return
    with panels.said():
        session = _session(item, runs)
        service = runs[item.domain].service
        panels.heading(service, session.study)
        look, read = st.tabs(["Study", "Report"])
        with look:
            left, right = st.columns([6, 5], gap="medium")
            with right:
                panels.questions(service, session)
            with left:
                panels.picture(service, session)
        with read:
            panels.report(service, session)


def _choose(runs: Mapping[str, Run]) -> Item | None:
    """The study that the sidebar names."""
    with st.sidebar:
        st.html("<b style='font-size:1.15rem'>Fovea</b><br><span style='color:#5b6776'>Looks, and asks experts.</span>")
        source = st.segmented_control("Studies", (SAMPLES, OWN), default=SAMPLES, key="source", required=True)
        items = _own_files(runs) if source == OWN else _samples(runs)
        readable = [item for item in items if item.domain]
        if len(readable) < len(items):
            st.warning(f"{len(items) - len(readable)} of {len(items)} inputs are of no kind that a model here reads.")
        if not readable:
            return None
        number = st.selectbox(
            "Study",
            range(len(readable)),
            format_func=lambda i: f"Study {i + 1} of {len(readable)}",
            key=f"study-{source}",
        )
        return readable[number]


def _samples(runs: Mapping[str, Run]) -> tuple[Item, ...]:
    name = st.selectbox("Domain", list(runs), format_func=lambda name: words(name).capitalize(), key="domain")
    run = runs[name]
    return find_studies([run.samples], (run.service.domain,)).items if run.samples.is_dir() else ()


def _own_files(runs: Mapping[str, Run]) -> tuple[Item, ...]:
    files = st.file_uploader(
        "Files", accept_multiple_files=True, key="files",
        help="A file, or all files of a series. They stay on this machine and are removed when the session ends.",
    )  # fmt: skip
    uploads: Uploads = st.session_state.setdefault("uploads", Uploads())
    uploads.take(files or [], runs)
    return uploads.items


def _session(item: Item, runs: Mapping[str, Run]) -> Session:
    """The open session of a study; another study starts another."""
    session: Session | None = st.session_state.get("session")
    if session is None or session.item != item:
        if item.domain not in runs:
            raise UnsupportedError(f"a study of {item.domain}", f"one of {', '.join(runs)}")
        session = Session(item, runs[item.domain].service.load(item.files))
        st.session_state["session"] = session
    return session


@st.cache_resource
def _runs(demo: Path) -> dict[str, Run]:
    return open_runs(demo)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    page(_runs(parser.parse_args().demo))
