"""Words and tables that verbs of the command line share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from coffea_ad import files
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.tables import Listing

__all__ = [
    "Parser",
    "beside",
    "cluster_of",
    "forcible",
    "out",
    "read_model",
    "refuse_url",
    "say_left_out",
    "show_table",
    "table_of",
    "write_model",
]


out = Console(markup=False, emoji=False)  # [source=stored] is part of a name, not a colour


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """End the process with one sentence."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table with a title on its left."""
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def show_table(table: Listing) -> None:
    """Print a table of texts."""
    shown = table_of(table.title, *table.columns)
    for row in table.rows:
        shown.add_row(*row)
    out.print(shown)


def read_model(path: str) -> bytes:
    """Return the bytes of a model file.

    Raises
    ------
    BadModel
        It cannot be read.
    """
    if files.is_url(path):
        return files.read(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read ({error.strerror})") from None


def write_model(path: str | Path, data: bytes) -> None:
    """Write a model file, and say where."""
    files.write(path, data)
    out.print(str(path), soft_wrap=True, markup=False)


def beside(model: str, what: str) -> str:
    """Return a name beside a model file: wnae.onnx → wnae-int8.onnx."""
    return f"{model.removesuffix('.onnx')}-{what}.onnx"


def refuse_url(path: str | None, who: str) -> None:
    """Raise for what is written to local paths only: a folder called `root:` is never meant."""
    if path is not None and files.is_url(path):
        raise ConfigError(f"{path}: {who} writes to local paths only")


def say_left_out(sealed: bytes) -> None:
    """Say which regions a new card has not, and why."""
    from coffea_ad.scoring.card import read_card

    for sentence in read_card(sealed).provenance.get("regions_left_out", ()):
        out.print(f"note: {sentence}", soft_wrap=True, markup=False)


def forcible(parser: argparse.ArgumentParser) -> None:
    """Add --force."""
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def cluster_of(args: argparse.Namespace) -> Any:
    """Return the cluster that the words of `run` ask for, or None if they ask for none."""
    from coffea_ad.running.clusters.config import load_cluster

    batch = args.cluster is not None or args.site is not None or args.minimum is not None
    if batch and args.scheduler is not None:
        raise ConfigError("give either --scheduler or --cluster, not both")
    if not batch and args.scheduler is None:
        return None
    return load_cluster(args.cluster or args.scheduler, workers=args.workers, minimum=args.minimum, site=args.site)
