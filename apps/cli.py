"""The command line. Every import of weight stands inside the command that needs it, so that help is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.data import data_app
from fovea import __version__
from fovea.errors import ConfigError, FoveaError

if TYPE_CHECKING:
    from curriculum.recipe import Recipe
    from fovea.types import Answer

REJECTS, REFUSED = 1, 2
"""Exit codes: finished, but some inputs have no report; and not done, with the reason on standard error."""

app = typer.Typer(
    name="fovea",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich costs help half a second
    help="Make, check and use specialist vision-language models that know when to ask an expert network.",
)
experts_app = typer.Typer(invoke_without_command=True, help="List the kinds of expert, train, run or show experts.")
app.add_typer(experts_app, name="experts")
app.add_typer(data_app, name="data")

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A recipe (YAML).", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Changes to the recipe.", show_default=False)
]
Write = Annotated[
    str, typer.Option(metavar="A,B", help="Outputs for other systems to write too, such as dicom-seg or cog, or all.")
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A run folder, a stage folder, or models:/name@alias.", show_default=False),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error of Fovea ends as one line on standard error and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it advises on kernels for other machines
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "32")  # batches differ in shape: by default a thousand kernels would be kept
    try:
        app(args=None if arguments is None else list(arguments), prog_name="fovea")
    except FoveaError as error:
        typer.secho(f"error: {' '.join(str(error).split())}", err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(REFUSED)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"fovea {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    configs: Annotated[Path | None, typer.Option(help="Folder with the two recipes.", show_default="configs")] = None,
) -> None:
    """Train, examine and report in both domains, under demo/."""
    from apps.demo import run_demo

    run_demo(configs)


@app.command("app")
def viewer(
    demo: Annotated[Path, typer.Option(help="Folder of runs, one a domain.")] = Path("demo"),
    port: Annotated[int, typer.Option(help="Port on the loopback interface.")] = 8501,
) -> None:
    """Open the viewer in the browser; it listens on 127.0.0.1 only."""
    from apps.viewer.launch import launch

    launch(demo, port)


@app.command()
def domains() -> None:
    """List the domains that are installed."""
    from fovea import registry

    rows = []
    for name, plugin in registry.plugins("fovea.domains").items():
        if plugin.lacks:
            rows.append((name, plugin.origin, "", plugin.lacks))
        else:
            domain = plugin.value()
            rows.append((name, plugin.origin, str(len(domain.vocabulary)), ", ".join(domain.presets)))
    _table(("domain", "from", "labels", "presets"), rows)


@experts_app.callback()
def experts(context: typer.Context) -> None:
    """List the kinds of expert that are installed."""
    from fovea import registry

    if context.invoked_subcommand is None:
        plugins = registry.listed("fovea.experts")
        _table(("kind", "from", "state"), [(n, p.origin, p.lacks or "ready") for n, p in plugins.items()])


@experts_app.command("train")
def experts_train(config: Config, overrides: Overrides = None) -> None:
    """Train and calibrate the experts of a recipe."""
    recipe = _recipe(config, overrides)
    from curriculum.run import train_experts

    train_experts(recipe)


Expert = Annotated[
    str,
    typer.Argument(metavar="NAME", help="An expert's folder, its name in a run, or a kind.", show_default=False),
]
Run = Annotated[
    Path | None, typer.Option("--in", metavar="RUN", help="The run whose expert NAME is.", show_default=False)
]


@experts_app.command("run")
def experts_run(
    name: Expert,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file, or the folder of a series.")],
    run: Run = None,
    argument: Annotated[str, typer.Option(help="What to ask for; all that it knows if left out.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where picture, JSON and text go.", show_default=False)
    ] = None,
    write: Write = "",
) -> None:
    """Ask an expert about a study, without a language model; large scenes become a map in DIR."""
    from apps import experts as consulting

    if write and out is None:
        raise ConfigError("--write without --out", "a folder to write to")
    from apps.outputs import named

    expert = consulting.open_expert(name, run)
    done = consulting.consult(expert, file, argument, out)
    typer.echo(f"{done.card.name}@{done.card.version} on {done.domain.describe(done.study)}\n")
    _table(("label", "present", "probability", "measures", "location"), consulting.finding_rows(done.findings))
    typer.echo(f"\n{done.notice}")
    if out is not None:
        models = consulting.model_items(expert, name, run) if write else ()
        paths, refused = consulting.write(done, out, named(write), models)
        for path in paths:
            typer.echo(str(path))
        for output, reason in refused.items():
            typer.echo(f"no {output}: {reason}")


@experts_app.command("show")
def experts_show(name: Expert, run: Run = None) -> None:
    """Print what an expert takes, answers and is worth."""
    from apps import experts as consulting

    card = consulting.open_expert(name, run).card
    _table(("", ""), [*consulting.card_rows(card), ("", "")], head=False)
    rows = consulting.performance_rows(card)
    if rows:
        _table(("label", "metric", "value", "95 % interval", "cases"), rows)
    else:
        typer.echo("Its performance was not measured.")


@app.command()
def inspect(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, folders and series.", show_default=False)
    ],
    table: Annotated[bool, typer.Option("--table", help="One row a file, whether it can be read or not.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table as one JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The table as CSV.")] = False,
) -> None:
    """Say what a file is, or why it is refused; needs no model."""
    from apps.service import installed_domains

    if table or as_json or as_csv:
        _inventory(paths, as_json, as_csv)
        return
    from apps.inspection import facts, studies

    for path in paths:
        for domain, files in studies(path, installed_domains()):
            _table(("", ""), [*facts(domain, domain.load(files), files), ("", "")], head=False)


def _inventory(paths: Sequence[Path], as_json: bool, as_csv: bool) -> None:
    from apps import inventory
    from apps.service import installed_domains
    from fovea.progress import track

    if as_json and as_csv:
        raise ConfigError("--json and --csv together", "one of them")
    rows = list(track(inventory.inventory(paths, installed_domains()), "files"))
    if as_json or as_csv:
        typer.echo(inventory.as_json(rows) if as_json else inventory.as_csv(rows), nl=False)
        return
    typer.echo(f"{inventory.as_text(rows)}\n{inventory.summary(rows)}")


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    stage: Annotated[list[int] | None, typer.Option(help="Only this stage; may be repeated.", min=1, max=4)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
) -> None:
    """Train the stages of a recipe and examine the result."""
    recipe = _recipe(config, overrides)
    from curriculum.run import train as run

    typer.echo(run(recipe, stages=stage, resume=resume))


@app.command()
def evaluate(
    config: Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="A recipe, or the folder of its run.")],
    overrides: Overrides = None,
) -> None:
    """Examine a trained model on held-out studies."""
    if config.is_dir() and overrides:
        raise ConfigError("changes to the recipe of a run", "the run as it was made", "Name a recipe instead.")
    recipe = _recipe_of_run(config) if config.is_dir() else _recipe(config, overrides)
    from curriculum.evaluation import evaluate as examine

    examine(recipe)


@app.command()
def ask(
    model: Model,
    file: Annotated[Path, typer.Argument(help="A file, or the folder of a series.")],
    question: Annotated[str, typer.Argument(help="In words.")],
    experts: Annotated[bool, typer.Option("--experts/--no-experts", help="Whether experts may be asked.")] = True,
) -> None:
    """Ask about a study and see what stands behind the answer."""
    from apps.service import Service

    service = Service.open(model)
    _print_answer(service.ask(service.load_one(file), question, experts))


@app.command()
def report(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, folders and series.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the reports go.")],
    write: Write = "",
) -> None:
    """Write a report for every study that has none yet."""
    from apps.outputs import named
    from apps.report.batch import Done, Outcome, write_reports
    from apps.service import Item, Service, find_studies, installed_domains
    from fovea.progress import track

    service = Service.open(model)
    others = [domain for name, domain in installed_domains().items() if name != service.domain.name]
    inputs = find_studies(paths, (service.domain, *others))
    for path in inputs.left_out:
        typer.echo(f"left out, plain text: {path}", err=True)
    bar = track(range(len(inputs.items)), "reports", len(inputs.items))

    def notify(item: Item, outcome: Outcome) -> None:
        next(bar, None)
        if not isinstance(outcome, Done):
            typer.echo(f"input {outcome.number}, {item.files[0]}: {outcome.happened}", err=True)

    batch = write_reports(service, inputs, out, notify, named(write))
    next(bar, None)
    reused = sum(done.reused for done in batch.done)
    typer.echo(f"{len(batch.done)} reports ({reused} from before), {len(batch.failures)} failures: {batch.index}")
    if batch.failures or not batch.done:
        raise typer.Exit(REJECTS)


def _recipe(config: Path, overrides: Sequence[str] | None) -> Recipe:
    from curriculum.recipe import Recipe
    from fovea.config import load

    return load(Recipe, config, overrides or ())


def _recipe_of_run(run: Path) -> Recipe:
    """The recipe that the last stage of a run has noted."""
    import json

    from curriculum.recipe import Recipe
    from fovea.config import parse

    records = sorted(run.glob("stage*/record.json"))
    if not records:
        raise ConfigError("a folder without a trained stage", "a recipe, or the folder of a run")
    return parse(Recipe, json.loads(records[-1].read_text())["recipe"])


def _print_answer(answer: Answer) -> None:
    from apps.wording import SUPPORT, chance, cited, claims, one_line

    known = claims([answer])
    for sentence in answer.sentences:
        marks = " ".join(claim.mark for claim in cited(answer, sentence.evidence, known))
        typer.echo(f"{sentence.text}  [{', '.join(part for part in (SUPPORT[sentence.support], marks) if part)}]")
    for call in answer.calls:
        typer.echo(f"\n{call.expert}({call.argument})" + (f" failed: {call.failure}" if call.failure else ""))
        for claim in known:
            if claim.finding in call.findings:
                typer.echo(f"  {claim.mark} {one_line(claim.finding)} ({chance(claim.finding.score)})")
    typer.echo(f"\nModel's own certainty {answer.confidence:.2f} (mean token probability, not calibrated)")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], head: bool = True) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, show_header=head, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False, markup=False, highlight=False).print(table)


if __name__ == "__main__":
    main()
