"""The command line: quick help, errors in one line, and commands that do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import apps_toys as toys
import pytest

from apps import cli, demo, service
from fovea.errors import ConfigError, ModelError


def _run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> toys.Oracle:
    """The toy domain is the one that is installed, and every model is its oracle."""
    oracle = toys.Oracle()
    monkeypatch.setattr(service, "installed_domains", lambda: {"toy": toys.Toy()})
    monkeypatch.setattr(service, "open_assistant", lambda reference: oracle)
    return oracle


def test_help_loads_nothing_heavy_and_is_quick() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "apps.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert not loaded & {"torch", "monai", "streamlit", "mlflow", "transformers", "numpy", "pydantic", "jinja2"}
    used = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "apps.cli", "--help"], capture_output=True, check=True)
        after = os.times()  # processor time: the clock also counts what else the machine does
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < 0.5


def test_every_command_is_listed_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = _run("--help", capsys=capsys)
    for command in ("demo", "app", "domains", "experts", "inspect", "data", "train", "evaluate", "ask", "report"):
        assert f"\n  {command}" in text
        code, own, _ = _run(command, "--help", capsys=capsys)
        assert code == 0
        assert own.startswith(f"Usage: fovea {command}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from fovea import __version__

    assert _run("--version", capsys=capsys)[:2] == (0, f"fovea {__version__}\n")


def test_lists_come_from_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = _run("domains", capsys=capsys)
    assert {"radiology", "remote_sensing"} <= {line.split()[0] for line in text.splitlines()}
    _, text, _ = _run("experts", capsys=capsys)
    assert {"segmentation", "classification"} <= {line.split()[0] for line in text.splitlines()}


def test_an_error_is_one_line_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apps.cli", "train", str(tmp_path / "none.yaml")], capture_output=True, text=True
    )
    assert done.returncode == cli.REFUSED
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_typo_in_an_override_names_the_nearest_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"domain: radiology\nout: {tmp_path}\nclip: {{}}\ndecoder: {{}}\n")
    code, _, err = _run("train", str(recipe), "stage1.stepps=20", capsys=capsys)
    assert code == cli.REFUSED
    assert "did you mean 'steps'" in err


def test_evaluate_refuses_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run("evaluate", str(tmp_path), capsys=capsys)
    assert code == cli.REFUSED
    assert "without a trained stage" in err


def test_inspect_says_what_a_file_is(tmp_path: Path, toy: toys.Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = _run("inspect", str(toys.write(tmp_path, "scene")), capsys=capsys)
    assert code == 0
    for word in ("toy", "optical", "1 × 180 × 180", "10 m", "EPSG:32636", "intensity", "0 to 1", "2024-05-01"):
        assert word in text, word
    assert toy.asked == 0


def test_inspect_says_why_a_file_is_refused(
    tmp_path: Path, toy: toys.Oracle, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "DOE.bin").write_bytes(b"\0\1\2")
    code, _, err = _run("inspect", str(tmp_path / "DOE.bin"), capsys=capsys)
    assert code == cli.REFUSED
    assert "recognises" in err
    assert "DOE" not in err
    code, _, err = _run("inspect", str(toys.write(tmp_path, "broken")), capsys=capsys)
    assert code == cli.REFUSED
    assert "slices with different spacing" in err
    assert _run("inspect", str(tmp_path / "missing"), capsys=capsys)[0] == cli.REFUSED


def test_ask_prints_sentences_with_what_stands_behind_them(
    tmp_path: Path, toy: toys.Oracle, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(toys.write(tmp_path, "film"))
    code, text, _ = _run("ask", "run", path, "What is there?", capsys=capsys)
    assert code == 0
    assert "There is a left pleural effusion of 23.1 cm2.  [supported by expert, F1]" in text
    assert "toy_segmentation(all)" in text
    assert "toy_classification(heart) failed: needs a frontal view" in text
    assert "F1 left pleural effusion, area 23.1 ± 1.2 cm² (about 9 in 10)" in text
    _, text, _ = _run("ask", "run", path, "What is there?", "--no-experts", capsys=capsys)
    assert "[model only]" in text
    assert "toy_segmentation" not in text


def test_ask_wants_exactly_one_study(tmp_path: Path, toy: toys.Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    toys.write(tmp_path, "film")
    toys.write(tmp_path, "scene")
    code, _, err = _run("ask", "run", str(tmp_path), "What?", capsys=capsys)
    assert code == cli.REFUSED
    assert "2 studies" in err


def test_report_ends_with_rejects_and_names_them_only_here(
    tmp_path: Path, toy: toys.Oracle, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    toys.write(folder, "film")
    assert _run("report", "run", str(folder), "--out", str(out), capsys=capsys)[0] == 0
    broken = toys.write(folder, "broken", name="0-DOE.toy")
    code, text, err = _run("report", "run", str(folder), "--out", str(out), capsys=capsys)
    assert code == cli.REJECTS
    assert "1 reports (1 from before), 1 failures" in text
    assert f"input 1, {broken}: Slices with different spacing" in err
    assert "0-DOE" not in "".join(path.read_text() for path in out.iterdir())


def test_a_model_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(reference: str) -> service.Assistant:
        raise ModelError(f"{reference} holds no model", "a run's folder", "Train one.")

    monkeypatch.setattr(service, "open_assistant", refuse)
    code, _, err = _run("report", "nowhere", str(tmp_path), "--out", str(tmp_path / "out"), capsys=capsys)
    assert code == cli.REFUSED
    assert err == "error: nowhere holds no model. expected a run's folder. Train one.\n"


# The demo's runner


def _job(name: str, code: str) -> demo.Job:
    return demo.Job(name, (sys.executable, "-c", code))


def test_jobs_run_side_by_side_and_mark_their_lines(capfd: pytest.CaptureFixture[str]) -> None:
    wait = "import time, os; print('one\\rtwo', flush=True); time.sleep(1.5); print(os.environ['OMP_NUM_THREADS'])"
    start = time.perf_counter()
    demo.run_jobs([_job("left", wait), _job("sinister", wait)])
    assert time.perf_counter() - start < 2.9
    out = capfd.readouterr().out.splitlines()
    assert sorted(out) == sorted(
        [f"{name:8} | {text}" for name in ("left", "sinister") for text in ("one", "two", "1")]
    )


def test_a_failed_job_is_named_with_its_last_lines(capfd: pytest.CaptureFixture[str]) -> None:
    bad = "import sys; [print(i) for i in range(40)]; sys.exit('no space left')"
    with pytest.raises(demo.DemoError, match="bad failed"):
        demo.run_jobs([_job("good", "print('fine')"), _job("bad", bad)])
    out, err = capfd.readouterr()
    assert "good | fine" in out
    assert "bad ended with exit code 1" in err
    assert "no space left" in err
    assert "  20\n" not in err


def test_jobs_are_stopped_when_the_demo_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.Thread, "join", interrupt)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        demo.run_jobs([_job("long", "import time; time.sleep(60)")])
    assert time.perf_counter() - start < 10


def test_peak_memory_counts_children() -> None:
    own = demo.psutil.Process().memory_info().rss
    with demo.Peak(every=0.05) as peak:
        demo.run_jobs([_job("big", "import time; x = bytearray(200_000_000); time.sleep(0.5)")])
    assert peak.bytes - own > 180_000_000


def test_the_table_of_arms_is_printed_from_its_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evaluation.csv"
    path.write_text(
        "stage,arm,kind,n,accuracy,low,high\n"
        "3,none,size,40,0.25,0.1,0.4\n3,none,measuring,40,0.25,0.1,0.4\n4,expert,measuring,40,0.9012,0.8,0.95\n"
    )
    demo.print_evaluation(path)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["4", "expert", "90", "[80,", "95]"] for line in lines)
    assert any(line.split()[:2] == ["3", "none"] and line.count("25 [10, 40]") == 2 for line in lines)
    with pytest.raises(demo.DemoError):
        demo.print_evaluation(tmp_path / "none.csv")


def test_the_demo_needs_its_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "apps" / "demo.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="recipes"):
        demo.run_demo()


_STUB = """
import sys
from pathlib import Path
out = Path({out!r})
out.mkdir(parents=True, exist_ok=True)
if {command!r} == "train":
    head = "stage,arm,kind,n,accuracy,low,high\\n"
    (out / "evaluation.csv").write_text(head + "4,expert,all,30,0.5,0.4,0.6\\n")
else:
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["study01", "study02.toy", "study03.toy"]
print({command!r}, "done")
"""


def test_the_demo_trains_then_shows_then_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from curriculum import tracking
    from curriculum.data import corpus

    films = [toys.write(tmp_path / "data", "film", i) for i in range(2)]
    toys.write(tmp_path / "data" / "series", "volume", 1)
    items = [SimpleNamespace(modality="DX", path=str(path)) for path in films]
    items.append(SimpleNamespace(modality="CT", path=str(tmp_path / "data" / "series")))
    for name in demo.DOMAINS:
        recipe = f"domain: {name}\nout: {tmp_path / 'demo' / name}\nclip: {{}}\ndecoder: {{}}\n"
        (tmp_path / f"{name}.yaml").write_text(recipe)
        (tmp_path / "demo" / name / "samples").mkdir(parents=True)
        (tmp_path / "demo" / name / "samples" / "stale").write_text("")

    def stub(name: str, command: str, *arguments: str) -> demo.Job:
        return _job(name, _STUB.format(out=str(tmp_path / "demo" / name), command=command))

    monkeypatch.setattr(tracking, "ensure", lambda recipe: None)
    monkeypatch.setattr(corpus, "prepare", lambda recipe, domain: SimpleNamespace(split=lambda name: items))
    monkeypatch.setattr(demo, "_fovea", stub)
    demo.run_demo(tmp_path)
    out = capfd.readouterr().out
    for name in demo.DOMAINS:
        assert out.index(f"{name:14} | train done") < out.index(f"{name}: right answers")
        assert out.index(f"{name}: right answers") < out.index(f"{name:14} | report done")
        assert str(tmp_path / "demo" / name / "reports" / "index.html") in out
    assert out.count("50 [40, 60]") == 2
    assert "GiB" in out
