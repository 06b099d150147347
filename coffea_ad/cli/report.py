"""`coffea-ad report`: results, and what belongs to them, as one HTML page."""

from __future__ import annotations

import argparse
from typing import Any

from coffea_ad import files
from coffea_ad.cli.words import forcible, out
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import check_file

__all__ = ["add_report"]


def _report(args: argparse.Namespace) -> int:
    from coffea_ad.report import write_report

    if args.max_events < 0:
        raise ConfigError(f"--max-events is {args.max_events}, but must not be negative")
    if args.pictures < 0:
        raise ConfigError(f"--pictures is {args.pictures}, but must not be negative")
    check_file(args.output, suffix=".html", force=args.force)
    notes = write_report(
        args.folder, args.others, args.output, title=args.title, max_events=args.max_events, pictures=args.pictures
    )
    for note in notes:
        out.print(f"note: {note}", soft_wrap=True, markup=False)
    size = len(files.read(args.output)) / 1e6
    out.print(f"{args.output}, {size:.1f} MB", soft_wrap=True, markup=False)
    return 0


def add_report(verbs: Any) -> None:
    """Add the words of `report`."""
    p = verbs.add_parser("report", help="results, searches, evaluations and trainings as one HTML page")
    p.add_argument("folder", metavar="RESULTS", help="results folder")
    p.add_argument("others", nargs="*", metavar="FOLDER", help="of searches, evaluations, models")
    p.add_argument("-o", "--output", default="report.html")
    p.add_argument("--title", help="(default: processor and datasets)")
    p.add_argument("--max-events", type=int, default=20, help="of each list of events (default: 20; 0: none)")
    p.add_argument("--pictures", type=int, default=3, help="so many of the best events are drawn (default: 3; 0: none)")
    forcible(p)
    p.set_defaults(do=_report)
