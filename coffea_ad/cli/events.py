"""`coffea-ad events`: the most anomalous events of results, as a table, as text for other programs, and as a file."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable
from typing import Any

from coffea_ad.cli.words import forcible, out, table_of
from coffea_ad.errors import ConfigError, listed

__all__ = ["add_events"]


def _events(args: argparse.Namespace) -> int:
    from coffea_ad import files, outputs
    from coffea_ad.event_lists.joined import joined, twice, unlisted
    from coffea_ad.results.folder import load_results
    from coffea_ad.weights import is_simulation

    if args.number < 1:
        raise ConfigError(f"-n is {args.number}, but must be at least 1")
    if args.output:
        outputs.check_file(args.output, force=args.force)
    if args.skim:
        outputs.check_file(args.skim, suffix=".root", force=args.force)
    results = load_results(args.folder)
    everything = joined(results.event_lists, args.list, args.datasets)
    top = everything.shortened(args.number)
    simulated = [name for name, entry in results.report["datasets"].items() if is_simulation(entry["metadata"])]
    text = _FORMATS[args.format](top)
    if args.output:
        files.write(args.output, text.encode())
    elif args.format == "table":
        _show(top, everything.ranked)
    else:
        print(text, end="")
    said = [f"note: {sentence}" for sentence in twice(top, simulated)]
    if lacking := unlisted(results.event_lists, results.report["datasets"]):
        said.append(f"note: there is no list of {', '.join(lacking)}; blinded data have none")
    if args.skim:
        from coffea_ad.event_lists.originals import write_originals

        with files.replacing(args.skim) as file:
            left_out = write_originals(top, file)
        if left_out:
            said.append(f"{len(left_out)} branches that not all files have alike are left out: {listed(left_out, 5)}")
        said.append(f"{len(top)} events in {args.skim}")
    screen = args.format == "table" or args.output
    for sentence in [*said, *([args.output] if args.output else [])]:
        if screen:
            out.print(sentence, soft_wrap=True, markup=False)
        else:  # what another program reads stays alone
            print(sentence, file=sys.stderr)
    return 0


def _show(top: Any, ranked: int) -> None:
    """Print what fits a screen: single jets, weights and files are in the other formats."""
    numbers = [top.by[0], *(n for n in top.observables if not n.endswith(("_1", "_2")))]
    table = table_of(
        f"{len(top)} of {ranked} events by {', '.join(top.by)}", "run:lumi:event", "dataset", "entry", *numbers
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.overflow = "fold"
    for i in range(len(top)):
        table.add_row(top.ids(i), top["dataset"][i], str(top["entry"][i]), *(f"{top[name][i]:.4g}" for name in numbers))
    out.print(table)


def _records(top: Any) -> list[dict[str, Any]]:
    return [
        {name: column[i].item() if hasattr(column[i], "item") else column[i] for name, column in top.columns.items()}
        for i in range(len(top))
    ]


def _as_csv(top: Any) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(top.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(top))
    return text.getvalue()


_FORMATS: dict[str, Callable[[Any], str]] = {
    "table": _as_csv,
    "csv": _as_csv,
    "json": lambda top: json.dumps(_records(top), indent=1) + "\n",
    "ids": lambda top: "".join(f"{top.ids(i)}\n" for i in range(len(top))),
}


def add_events(verbs: Any) -> None:
    """Add the words of `events`."""
    p = verbs.add_parser("events", help="the most anomalous events of results, and a file with them")
    p.add_argument("folder", help="results folder")
    p.add_argument("-n", "--number", type=int, default=20, help="so many (default: 20)")
    p.add_argument("--list", help="a model's, or a region's (default: that of the first model)")
    p.add_argument("--datasets", nargs="+", default=[], help="(default: all)")
    p.add_argument("--format", choices=tuple(_FORMATS), default="table", help="ids: run:lumi:event, for edmPickEvents")
    p.add_argument("-o", "--output", help="a file for the list; a table is written as CSV")
    p.add_argument("--skim", metavar="OUT.root", help="write these events with all of their branches")
    forcible(p)
    p.set_defaults(do=_events)
