"""`vidpipe list`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from vidpipe.cli.options import app


@app.command("list")
def list_(what: Annotated[Literal["recipes", "datasets", "models", "codecs"], typer.Argument()]) -> int:
    """List what there is."""
    if what == "recipes":
        from vidpipe.recipes import describe_recipes

        lines = describe_recipes()
    elif what == "datasets":
        from vidpipe.datasets import list_formats

        lines = [(name, (kind.__doc__ or "").strip().splitlines()[0]) for name, kind in list_formats().items()]
    elif what == "codecs":
        from vidpipe.shards.codecs import CODECS

        lines = [(name, codec.summary) for name, codec in CODECS.items()]
    else:
        from vidpipe.models import list_models

        lines = [(name, str(summary)) for name, summary in list_models().items()]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")
    return 0
