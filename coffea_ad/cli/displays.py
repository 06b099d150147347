"""`coffea-ad display`: pictures of single events, of a list of results or of NanoAOD files."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from coffea_ad.cli.words import forcible, out
from coffea_ad.errors import ConfigError, MissingBranch, UnknownName

__all__ = ["add_display"]

_VIEWS = ("event", "transverse", "jet", "lund", "rmm")


@dataclass(frozen=True)
class _Event:
    """An event to be drawn: where it is, the metadata of its dataset, and its scores."""

    place: Any
    metadata: dict[str, Any]
    scores: dict[str, float]


def _display(args: argparse.Namespace) -> int:
    import mplhep  # noqa: F401  said at once, not for each picture

    from coffea_ad import outputs
    from coffea_ad.event_lists.opened import open_event
    from coffea_ad.nanoaod.campaigns import CAMPAIGNS, named_campaign
    from coffea_ad.plotting.displays import content_of, draw_event

    if args.number < 1:
        raise ConfigError(f"-n is {args.number}, but must be at least 1")
    if args.campaign is not None and named_campaign(args.campaign) is None:
        raise UnknownName.of("campaign", args.campaign, CAMPAIGNS)
    campaign = {} if args.campaign is None else {"campaign": args.campaign}
    opened: dict[str, tuple[Any, dict[str, float]]] = {}
    for event in _events(args):
        events = open_event(event.place, {**event.metadata, **campaign})
        stem = _stem(content_of(events), opened)
        for view in args.views:
            outputs.check_file(_path(args, stem, view), force=args.force)
        opened[stem] = events, event.scores
    drawn = 0
    for stem, (events, scores) in opened.items():
        for view in dict.fromkeys(args.views):
            path = _path(args, stem, view)
            try:
                draw_event(events, path, view, scores=scores)
            except (ConfigError, MissingBranch) as error:
                unknown = view == "rmm" and isinstance(error, ConfigError) and "is not known" in str(error)
                why = "the campaign, which decides on b jets and √s, is not known; say --campaign" if unknown else error
                out.print(f"note: {stem}_{view} is left out: {why}", soft_wrap=True, markup=False)
            else:
                out.print(path, soft_wrap=True, markup=False)
                drawn += 1
    if not drawn:
        raise ConfigError("nothing was drawn: these events do not have what was asked for")
    return 0


def _path(args: argparse.Namespace, stem: str, view: str) -> str:
    from coffea_ad import files

    return files.join(args.output, f"{stem}_{view}.{args.format}")


def _stem(content: Any, others: Collection[str]) -> str:
    """Return the name of an event's files; simulated samples may have several of the same numbers."""
    from coffea_ad import files

    stem = files.as_name("_".join([content.name, *map(str, content.event)]))
    return next(name for n in itertools.count(1) if (name := stem if n == 1 else f"{stem}_{n}") not in others)


def _events(args: argparse.Namespace) -> Iterator[_Event]:
    roots = [path for path in args.places if path.endswith(".root")]
    if len(roots) == len(args.places):
        return _of_files(args)
    if len(args.places) > 1:
        raise ConfigError("give one results folder, or files whose names end in .root")
    return _of_results(args)


def _of_files(args: argparse.Namespace) -> Iterator[_Event]:
    from coffea_ad.event_lists.opened import Place, number_of_events, parsed_id, places_of

    for flag, value in (("--list", args.list), ("--datasets", args.datasets)):
        if value:
            raise ConfigError(f"{flag} is for results; of files, name events by --event or --entry")
    if args.entry and len(args.places) > 1:
        raise ConfigError("--entry is for one file; of several, name events by --event")
    if args.event:
        places = [p for text in dict.fromkeys(args.event) for p in places_of(args.places, parsed_id(text), args.tree)]
    elif args.entry:
        places = [Place(args.places[0], entry, args.tree) for entry in dict.fromkeys(args.entry)]
    else:
        places = [Place(p, entry, args.tree) for p in args.places for entry in range(number_of_events(p, args.tree))][
            : args.number
        ]
        if not places:
            raise ConfigError(f"{', '.join(args.places)}: there are no events")
    return (_Event(place, {}, {}) for place in places)


def _of_results(args: argparse.Namespace) -> Iterator[_Event]:
    from coffea_ad.event_lists.joined import joined
    from coffea_ad.event_lists.opened import listed_places
    from coffea_ad.results.folder import load_results

    if args.entry:
        raise ConfigError("--entry is for a file; of results, name events by --event")
    results = load_results(args.places[0])
    datasets = results.report["datasets"]
    asked = joined(results.event_lists, args.list, args.datasets)
    names = [args.list] if args.list or not args.event else _names(results.event_lists, args.datasets)
    tops = [joined(results.event_lists, name, args.datasets) for name in names] if args.event else [asked]
    rows = _rows(tops, args) if args.event else [(asked, i) for i in range(min(args.number, len(asked)))]
    if not rows:
        raise ConfigError(f"{args.places[0]}: this list of events is empty")
    for top, i in rows:
        dataset = top["dataset"][i]
        scores = {name: float(top[name][i]) for name in top.by}
        yield _Event(
            listed_places(top)[i], {**datasets.get(dataset, {}).get("metadata", {}), "dataset": dataset}, scores
        )


def _names(lists: Any, datasets: Sequence[str]) -> list[str]:
    return list(
        dict.fromkeys(name for dataset, of in lists.items() if not datasets or dataset in datasets for name in of)
    )


def _rows(tops: Sequence[Any], args: argparse.Namespace) -> list[tuple[Any, int]]:
    """Return where in some lists the events are that were asked for; the first list that has one counts.

    Raises
    ------
    ConfigError
        No list has it.
    """
    from coffea_ad.event_lists.opened import parsed_id
    from coffea_ad.nanoaod.columns import EVENT_ID, event_text

    rows: list[tuple[Any, int]] = []
    for text in dict.fromkeys(args.event):
        ids = parsed_id(text)
        for top in tops:
            same = [i for i in range(len(top)) if tuple(int(top[name][i]) for name in EVENT_ID) == ids]
            if same:
                rows += [(top, i) for i in same]
                break
        else:
            which = f"the list {args.list}" if args.list else "the lists of events"
            raise ConfigError(
                f"{args.places[0]}: {event_text(ids)} is not in {which}; name the file that has it, coffea-ad display FILE.root --event …"
            )
    return rows


def add_display(verbs: Any) -> None:
    """Add the words of `display`."""
    p = verbs.add_parser("display", help="pictures of single events and their jets")
    p.add_argument("places", nargs="+", metavar="RESULTS|FILE.root", help="results folder, or NanoAOD files")
    p.add_argument("-o", "--output", required=True, help="a folder for the pictures")
    p.add_argument("-n", "--number", type=int, default=3, help="the first so many events (default: 3)")
    p.add_argument("--event", nargs="+", default=[], metavar="RUN:LUMI:EVENT", help="these events in their place")
    p.add_argument("--entry", nargs="+", type=int, default=[], metavar="N", help="these entries of a file, from 0 on")
    p.add_argument("--list", help="of results: a model's, or a region's (default: that of the first model)")
    p.add_argument("--datasets", nargs="+", default=[], help="of results (default: all)")
    p.add_argument("--views", nargs="+", choices=_VIEWS, default=list(_VIEWS), help="(default: all)")
    p.add_argument("--format", choices=("png", "pdf", "svg"), default="png")
    p.add_argument(
        "--campaign", help="of files that do not tell it, such as 2018: b jets and √s of the rapidity-mass matrix"
    )
    p.add_argument("--tree", default="Events", help="of files (default: Events)")
    forcible(p)
    p.set_defaults(do=_display)
