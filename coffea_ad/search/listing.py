"""What a search has found, in tables and sentences; the folder of one, read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad.errors import BadFile
from coffea_ad.tables import Listing, html_of

__all__ = ["SCHEMA", "SearchResults", "load_search", "search_sentences", "search_tables"]

SCHEMA = 1
"""Version of `search.json`."""


class SearchResults(dict[str, Any]):
    """The content of `search.json`: a dictionary that shows itself in a notebook."""

    def __repr__(self) -> str:
        """Return what was found, in one line; `dict(…)` has everything."""
        return f"<SearchResults of {len(self['spectra'])} spectra of {self['source']}: {self['verdict']}>"

    def _repr_html_(self) -> str:
        return html_of("search", search_tables(self), search_sentences(self))


def load_search(folder: str | Path) -> SearchResults:
    """Read the folder of a search.

    Raises
    ------
    BadFile
        It is none.
    """
    path = files.join(folder, "search.json")
    if not files.exists(path):
        raise BadFile(f"{folder}: there is no search.json; this is not the folder of a search")
    try:
        content = SearchResults(json.loads(files.read(path)))
        search_tables(content)
        search_sentences(content)
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadFile(
            f"{path}: this was not written by coffea-ad search ({type(error).__name__}: {str(error)[:100]})"
        ) from None
    if version != SCHEMA:
        raise BadFile(f"{path}: its schema version is {version}, and this coffea-ad knows {SCHEMA}")
    return content


def search_tables(content: Mapping[str, Any]) -> list[Listing]:
    """Return spectra with their fits and largest excesses, counts against templates, and limits on simulated signals.

    Parameters
    ----------
    content : dict
        Of `search.json`.
    """
    tables = [_spectra(content)] if content["spectra"] or not content["templates"] else []
    return [*tables, *(table for table in (_templates(content["templates"]), _limits(content["limits"])) if table.rows)]


def _spectra(content: Mapping[str, Any]) -> Listing:
    of, rows = content["statistic"], []
    for name, s in content["spectra"].items():
        bump, worth, fit = s["bumps"][of], s["global"][of], s["fit"]
        excess = "none" if bump is None else (
            f"{bump['local']:.1f}σ, {bump['low']:.0f}–{bump['high']:.0f} GeV: {bump['events']:g} for {bump['expected']:.1f}"
        )  # fmt: skip
        described = f"{fit['family']} {fit['order']} from {s['edges'][0]:.0f} GeV, p {fit['goodness']['p_value']:.2f}"
        rows.append(
            (name, f"{sum(s['counts']):.0f}", described, excess, "–" if worth is None else f"{worth['p_value']:.2g}")
        )
    columns = ("spectrum", "events", "fit", "largest excess", "p in spectrum")
    return Listing(f"{len(rows)} spectra of {content['source']}", columns, tuple(rows))


def _templates(counts: list[dict[str, Any]]) -> Listing:
    rows = (
        (c["region"], f"{c['spectator']} {c['low']:g}–{c['high']:g}", f"{c['events']:g}", f"{c['expected']:.1f} ± {c['error']:.1f}",
         f"{c['significance']:+.1f}σ")
        for c in counts
    )  # fmt: skip
    columns = ("region", "window", "events", "expected", "significance")
    return Listing("counted against templates", columns, tuple(rows))


def _limits(limits: list[dict[str, Any]]) -> Listing:
    """Return the limits on simulated signals; those on Gaussian ones are curves."""
    rows = []
    for limit in limits:
        if limit["expected"] and limit["signal"]:
            pb = limit.get("signal_cross_section") or limit.get("cross_section")
            of = pb or limit
            observed = "–" if of["observed"] is None else f"{of['observed']:.3g}"
            rows.append(
                (
                    limit["spectrum"],
                    limit["signal"],
                    observed,
                    f"{of['expected'][2]:.3g}",
                    "pb" if pb else "events",
                    limit["method"],
                )
            )
    columns = ("spectrum", "signal", "observed", "expected", "unit", "by")
    return Listing("95 % CLs limits", columns, tuple(rows))


def search_sentences(content: Mapping[str, Any]) -> list[str]:
    """Return the verdict, what a global significance needs, second stages, estimates, and what was left out."""
    return [content["verdict"], *_needed(content), *_confirmed(content), *_estimated(content), *_remarks(content)]


def _needed(content: Mapping[str, Any]) -> Iterator[str]:
    worth = content["global"][content["statistic"]]
    if worth is not None:
        yield (
            f"5σ global need {worth['local_for_5_sigma']:.1f}σ local ({worth['trials_at_5_sigma']:.0f} trials: {len(content['spectra'])} "
            "spectra, all positions and widths)"
        )


def _confirmed(content: Mapping[str, Any]) -> Iterator[str]:
    for place in content["confirmed"]:
        told = place["said"] or (
            f"{place['events']:g} events, {place['expected']:.1f} ± {place['error']:.1f} expected, {place['significance']:.1f}σ, "
            f"p = {place['p_value']:.2g} with the number of places"
        )
        yield f"in the rest, {place['spectrum']} at {place['low']:.0f} to {place['high']:.0f} GeV: {told}"


def _estimated(content: Mapping[str, Any]) -> Iterator[str]:
    for estimate in content["abcd"]:
        yield from estimate["sentences"]


def _remarks(content: Mapping[str, Any]) -> Iterator[str]:
    for sentence in content["skipped"].values():
        yield f"left out: {sentence}"
    for note in content["notes"]:
        yield f"note: {note}"
