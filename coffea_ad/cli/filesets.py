"""`coffea-ad fileset`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from coffea_ad.cli.words import out, table_of
from coffea_ad.errors import ConfigError

__all__ = ["add_fileset"]


def _fileset(args: argparse.Namespace) -> int:
    from coffea_ad.filesets import building, is_fileset, sources, validation
    from coffea_ad.filesets.inspection import inspect_files

    if args.skip_bad and not args.validate:
        raise ConfigError("--skip-bad needs the files opened; leave out --no-validate")
    data, behind_data = _apart(args.data, lambda word: "=" not in word and not is_fileset(word))
    xsec, behind_xsec = _apart(args.xsec, lambda word: _is_number(word.rpartition("=")[2]))
    words = [*args.sources, *behind_data, *behind_xsec]
    if not words:
        raise ConfigError("fileset needs at least one NAME=SOURCE, or a fileset such as OLD.json")
    existing, files = sources.parse_sources(words)
    metadata = building.parse_metadata(xsec, data, args.meta)
    if args.output is not None:
        building.refuse_output(args.output, force=args.force)
    fileset = building.build_fileset(files, metadata=metadata, tree=args.tree, existing=existing)
    inspected = inspect_files(fileset, workers=args.workers) if args.validate else {}
    findings = validation.findings_of(fileset, inspected)
    fileset = validation.with_kinds(fileset, inspected)
    left_out = [f for f in findings if f.kind == "bad file" and args.skip_bad]
    if left_out:
        fileset = validation.without_bad_files(fileset, left_out)
    table = table_of("fileset", "dataset", "files", "events", "kind", "xsec", "layout", "size")
    for row in validation.summary(fileset, inspected):
        table.add_row(*row)
    out.print(table)
    for finding in [f for f in findings if f.kind == "note"]:
        out.print(f"note: {finding.sentence}", soft_wrap=True, markup=False)
    for finding in left_out:
        out.print(f"left out: {finding.sentence}", soft_wrap=True, markup=False)
    problems = [f for f in findings if f.kind != "note" and f not in left_out]
    for finding in problems:
        print(f"error: {finding.sentence}", file=sys.stderr)
    if problems:
        hint = "; --skip-bad leaves bad files out" if any(f.kind == "bad file" for f in problems) else ""
        print(f"error: nothing was written{hint}", file=sys.stderr)
        return 1
    if args.output is None:
        out.print("nothing was written; say where with -o FILESET.json")
        return 0
    building.write_fileset(fileset, args.output, force=args.force)
    out.print(args.output, soft_wrap=True, markup=False)
    return 0


def _apart(groups: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """Part the words behind an option that takes several into its own, and sources of the fileset that follow them.

    The first word is always the option's, so that a wrong one is blamed on it.
    """
    options, others = [], []
    for first, *rest in groups:
        n = next((i for i, word in enumerate(rest) if not fits(word)), len(rest))
        options += [first, *rest[:n]]
        others += rest[n:]
    return options, others


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def add_fileset(verbs: Any) -> None:
    """Add the words of `fileset`."""
    p = verbs.add_parser("fileset", help="make a fileset from globs, folders, lists and addresses, and check its files")
    p.add_argument("sources", nargs="*", metavar="NAME=SOURCE | OLD.json", help="file, 'glob', folder, @list, address")
    p.add_argument("-o", "--output", help="fileset (default: only check)")
    p.add_argument(
        "--xsec", action="append", nargs="+", default=[], metavar="NAME=PB", help="cross-sections of simulations"
    )
    p.add_argument(
        "--data", action="append", nargs="+", default=[], metavar="NAME", help="datasets that are no simulation"
    )
    p.add_argument("--meta", action="append", default=[], metavar="NAME.key=value", help="more metadata")
    p.add_argument("--tree", default="Events")
    p.add_argument("--validate", action=argparse.BooleanOptionalAction, default=True, help="open every file")
    p.add_argument("--workers", type=int, default=8, help="files that are open at the same time")
    p.add_argument("--skip-bad", action="store_true", help="leave bad files out, and name them")
    p.add_argument("--force", action="store_true", help="overwrite the output")
    p.set_defaults(do=_fileset)
