"""`fovea data`: commands about files and sets of data, which need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
