"""`coffea-ad explain`: what each input adds to the scores of the most anomalous events."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coffea_ad.cli.words import forcible, out, table_of
from coffea_ad.errors import ConfigError

if TYPE_CHECKING:
    from coffea_ad.explaining import Attribution, Explanations, Part, Rows
    from coffea_ad.scoring.tagger import Tagger

__all__ = ["add_explain"]

_FIGURES = (".png", ".pdf", ".svg")
_SHOWN = 8  # parts of each event in a table


def _explain(args: argparse.Namespace) -> int:
    from coffea_ad import files, outputs
    from coffea_ad.explaining import explain
    from coffea_ad.scoring.tagger import Tagger

    for path in filter(None, (args.output, args.figure)):
        outputs.check_file(path, force=args.force, read=[args.model])
    if args.figure and not args.figure.endswith(_FIGURES):
        raise ConfigError(f"--figure {args.figure}: its name must end in {', '.join(_FIGURES)}")
    if args.parts is not None and args.parts < 1:
        raise ConfigError(f"--parts is {args.parts}, but must be at least 1")
    tagger = Tagger(args.model)
    rows = _rows(args, tagger)
    explanations = explain(tagger.scorer, rows, _attribution(args, tagger))
    text = "" if args.format == "table" and not args.output else _FORMATS[args.format](explanations, args.parts)
    if args.output:
        files.write(args.output, text.encode())
    elif args.format == "table":
        _show(explanations, args.parts or _SHOWN)
    else:
        print(text, end="")
    said = [f"note: {note}" for note in explanations.notes]
    if args.figure:
        from coffea_ad.explaining.figures import draw

        said += [f"note: {note}" for note in draw(explanations, args.figure)]
    screen = args.format == "table" or args.output
    for sentence in [*said, *(path for path in (args.output, args.figure) if path)]:
        if screen:
            out.print(sentence, soft_wrap=True, markup=False)
        else:  # what another program reads stays alone
            print(sentence, file=sys.stderr)
    return 0


def _rows(args: argparse.Namespace, tagger: Tagger) -> Rows:
    from coffea_ad.event_lists.joined import joined
    from coffea_ad.explaining import listed_rows, skimmed_rows
    from coffea_ad.explaining.listed import list_of
    from coffea_ad.results.folder import load_results

    if args.skim:
        if args.list:
            raise ConfigError("--list is of results, and has no meaning for a skim; give --events RESULTS")
        return skimmed_rows(tagger.scorer, args.skim, n=args.number, datasets=args.datasets)
    results = load_results(args.events)
    name, same = list_of(results.report, tagger.scorer)
    joined(results.event_lists, None, args.datasets)  # without lists it is no matter of the model
    if not same and not args.list:
        raise ConfigError(
            f"{args.events}: these results were made with other models than {args.model}; to explain events of theirs by it, name the "
            "list with --list"
        )
    top = joined(results.event_lists, args.list or name, args.datasets)
    metadata = {dataset: entry["metadata"] for dataset, entry in results.report["datasets"].items()}
    same = same and (not args.list or top.by[-1] == f"{name}_score")
    return listed_rows(tagger, top, n=args.number, metadata=metadata, same_model=same)


def _attribution(args: argparse.Namespace, tagger: Tagger) -> Attribution | None:
    """Return gradients, where they are asked for or the model has no contributions; they need torch."""
    if tagger.card.contributions is not None and not args.gradients:
        return None
    from coffea_ad.nn.attribution import integrated_gradients

    return integrated_gradients(tagger.scorer, args.training or str(Path(args.model).with_suffix("")))


def _show(explanations: Explanations, parts: int) -> None:
    title = f"{explanations.card.name}: {explanations.by}, which add up to {explanations.of}"
    out.print(title, soft_wrap=True, markup=False)
    for row in explanations.rows:
        table = table_of(row.title, "part", "value", "typical", "contribution", "share")
        for part in row.leading(parts):
            table.add_row(part.name, *_numbers(part))
        others = row.leading()[parts:]
        if others:
            rest, share = sum(part.contribution for part in others), sum(part.share for part in others)
            table.add_row(f"{len(others)} others", "", "", f"{rest:.4g}", f"{share:.1%}")
        if abs(row.remainder) > 1e-4 * abs(row.total):
            table.add_row("not accounted for", "", "", f"{row.remainder:.4g}", "")
        out.print(table)


def _numbers(part: Part) -> list[str]:
    values = ["–" if math.isnan(v) else f"{v:.4g}" for v in (part.value, part.typical)]
    return [*values, f"{part.contribution:.4g}", f"{part.share:.1%}"]


def _records(explanations: Explanations, parts: int | None) -> list[dict[str, Any]]:
    return [
        {
            "id": row.id, "dataset": row.dataset, "jet": row.jet, "score": row.score, "sum": row.total, "remainder": row.remainder,
            "parts": [
                {"name": p.name, "value": _finite(p.value), "typical": _finite(p.typical), "contribution": p.contribution, "share": _finite(p.share)}
                for p in row.leading(parts)
            ],
        }
        for row in explanations.rows
    ]  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _as_json(explanations: Explanations, parts: int | None) -> str:
    card = explanations.card
    about = {"model": card.name, "method": card.method, "by": explanations.by, "of": explanations.of}
    return json.dumps({**about, "events": _records(explanations, parts)}, indent=1) + "\n"


def _as_csv(explanations: Explanations, parts: int | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "dataset", "jet", "score", "part", "value", "typical", "contribution", "share"])
    for record in _records(explanations, parts):
        event = [record["id"], record["dataset"], record["jet"], record["score"]]
        writer.writerows([*event, *part.values()] for part in record["parts"])
    return text.getvalue()


_FORMATS: dict[str, Callable[[Explanations, int | None], str]] = {"table": _as_csv, "csv": _as_csv, "json": _as_json}


def add_explain(verbs: Any) -> None:
    """Add the words of `explain`."""
    p = verbs.add_parser("explain", help="why events are anomalous: what each input adds to their scores")
    p.add_argument("model")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--events", metavar="RESULTS", help="the most anomalous events of results, out of their files")
    source.add_argument("--skim", metavar="FOLDER", help="the most anomalous rows of a skim")
    p.add_argument("-n", "--number", type=int, default=10, help="so many (default: 10)")
    p.add_argument("--list", help="of results: a model's, or a region's (default: that of the model)")
    p.add_argument("--datasets", nargs="+", default=[], help="(default: all)")
    p.add_argument(
        "--parts", type=int, help=f"so many of each event, the largest (default: {_SHOWN} in a table, else all)"
    )
    p.add_argument(
        "--gradients", action="store_true", help="integrated gradients, also where the model has contributions"
    )
    p.add_argument(
        "--training", metavar="FOLDER", help="of the training, for gradients (default: beside the model file)"
    )
    p.add_argument("--format", choices=tuple(_FORMATS), default="table")
    p.add_argument("-o", "--output", help="a file for the list; a table is written as CSV")
    p.add_argument(
        "--figure", metavar="F.png", help="bars of the largest contributions, or maps of images and matrices"
    )
    forcible(p)
    p.set_defaults(do=_explain)
