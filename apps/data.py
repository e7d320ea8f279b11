"""`fovea data`: commands about files and sets of data, which need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

data_app = typer.Typer(no_args_is_help=True, help="Make, import, check and de-identify data.")


@data_app.command("synth")
def data_synth(
    domain: Annotated[str, typer.Argument(help="A domain's name.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")],
    n: Annotated[int, typer.Option(help="How many studies.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="The same seed writes the same bytes.")] = 0,
) -> None:
    """Write synthetic studies of a domain with their ground truth."""
    from fovea import registry

    samples = registry.domain(domain).synth(directory, n, seed)
    typer.echo(f"{len(samples)} studies in {directory}")


def _list_sets(show: bool) -> None:
    if show:
        from curriculum.data.importers import importer, names

        for known in map(importer, names()):
            typer.echo(f"{known.name}\n    {known.title}: {known.licence}\n    {known.url}")
        raise typer.Exit


@data_app.command("import")
def data_import(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set's name, as --list tells.", show_default=False)],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The set's folder, as published.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write the records.", show_default=False)],
    disjoint: Annotated[
        bool, typer.Option("--disjoint", help="Leave out training items of patients or places that are held out too.")
    ] = False,
    _list: Annotated[
        bool, typer.Option("--list", callback=_list_sets, is_eager=True, help="Tell the sets and their licences.")
    ] = False,
) -> None:
    """Read a published training set into records; its images stay where they are."""
    from curriculum.data.importers import import_set, importer

    info = import_set(importer(name), source, out, disjoint=disjoint)
    counts = ", ".join(f"{n} {split}" for split, n in info["records"].items())
    typer.echo(f"{sum(info['records'].values())} records ({counts}) in {out}")
    typer.echo(f"licence: {info['licence']}")
    for reason, n in info["left_out"].items():
        typer.echo(f"left out: {n} ({reason})")
    if info["missing_files"]:
        typer.echo(f"missing files: {info['missing_files']}")


@data_app.command("export-dialogues")
def data_export_dialogues(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A recipe whose experts are trained.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where JSON and images go.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Changes to the recipe.", show_default=False)
    ] = None,
    questions: Annotated[int, typer.Option(help="Dialogues a study, at most.", min=1)] = 4,
) -> None:
    """Write dialogues with experts as VILA-M3 reads them: LLaVA's JSON by split, and the images."""
    from curriculum.data.vila import Exporter
    from curriculum.recipe import Recipe
    from curriculum.tracking import Tracker
    from curriculum.workshop import Workshop
    from experts.cache import FindingsCache
    from fovea.config import load

    recipe = load(Recipe, config, overrides or ())
    shop = Workshop(recipe, Tracker(recipe, ""))
    cache = FindingsCache(recipe.out / "findings")
    counts = Exporter(shop.domain, shop.corpus, shop.experts, cache, recipe.dialogues, recipe.seed).write(
        out, questions
    )
    typer.echo(f"{', '.join(f'{n} {split}' for split, n in counts.items())} dialogues in {out}")


@data_app.command("check")
def data_check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="An imported set, or a folder with a manifest.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write.", show_default="DIR/check")] = None,
) -> None:
    """Look for missing, broken and doubled images, for leakage between splits and for empty texts.

    Ends with exit code 2 where files are missing or broken, or where a patient, place or image stands in two splits.
    """
    from apps.report.data_check import write_check
    from curriculum.data.check import check_set

    check = check_set(directory)
    for problem in check.problems:
        typer.echo(f"{'FAULT' if problem.fault else 'note'}: {problem.count} {problem.text}")
    typer.echo(f"page: {write_check(check, out or directory / 'check')}")
    if check.faults:
        raise typer.Exit(2)


@data_app.command("deidentify")
def data_deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of DICOM files.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty folder, or an earlier OUT.", show_default=False)],
    key: Annotated[
        Path, typer.Option(help="The secret that makes pseudonyms; made on first use. Keep it.", show_default=False)
    ],
    burned_in: Annotated[
        Literal["refuse", "mask"], typer.Option(help="What to do with pictures that show text, or may.")
    ] = "refuse",
    more: Annotated[list[str] | None, typer.Option("--with", help="An option of the profile, more.")] = None,
    fewer: Annotated[list[str] | None, typer.Option("--without", help="An option of the profile, fewer.")] = None,
) -> None:
    """Copy DICOM files without what identifies patients, by DICOM PS3.15 Annex E.

    Ends with exit code 2 where files are rejected; they are told by their number among the sorted paths.
    """
    from domains.radiology.deidentify.folder import deidentify
    from domains.radiology.deidentify.profile import chosen

    done = deidentify(source, out, key, chosen(more or (), fewer or ()), burned_in)
    typer.echo(f"{len(done.rows)} files in {out}, {done.masked} of them with masked text")
    for kind, n in sorted(done.left_out.items()):
        typer.echo(f"left out: {n} ({kind})")
    for number, reason in done.rejected:
        typer.echo(f"rejected: input {number}: {reason}", err=True)
    if done.faces:
        typer.echo(f"faces are not removed: {done.faces} files of CT, MR or PET may show one")
    if done.rejected:
        raise typer.Exit(2)


@data_app.command("pull")
def data_pull(
    url: Annotated[str, typer.Argument(help="A DICOMweb server: https://host/path.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the files.", show_default=False)],
    study: Annotated[str, typer.Option(metavar="UID", help="Which study.", show_default=False)],
    series: Annotated[str, typer.Option(metavar="UID", help="Only this series of it.")] = "",
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Permit plain http to another machine.")] = False,
) -> None:
    """Retrieve a study from a DICOMweb server as DICOM files, which hold the patient's name as they come.

    Credentials are read from FOVEA_DICOMWEB_USER and FOVEA_DICOMWEB_PASSWORD, FOVEA_DICOMWEB_TOKEN, or netrc.
    """
    from domains.formats.dicom.dicomweb import Server

    count = Server(url, allow_http=allow_http).pull(out, study, series)
    typer.echo(f"{count} files in {out}")
