"""Lists of events of two results folders, added: a sum is never longer than what both of them can vouch for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.results.results import ALL, Results

__all__ = ["OPTION", "added_lists", "without_option"]

OPTION = "top_events"
"""The key of a configuration by which the shipped processors set the length of their lists, and nothing else."""


def added_lists(one: Results, two: Results) -> tuple[dict[str, dict[str, TopEvents]], list[str]]:
    """Return the lists of two results as one, and what has to be said of them.

    Parameters
    ----------
    one, two : Results

    Returns
    -------
    lists : {dataset: {name: TopEvents}}
        Of those of different length, as long as the shorter one: what that one has left out is not known. So is one that
        only one of both has, if the other has looked at events of the same dataset and kept none.
    notes : list of str

    Raises
    ------
    ConfigError
        Events were ranked by other scores.
    """
    out: dict[str, dict[str, TopEvents]] = {}
    notes = []
    for dataset in dict.fromkeys([*one.event_lists, *two.event_lists]):
        for name in dict.fromkeys([*one.event_lists.get(dataset, {}), *two.event_lists.get(dataset, {})]):
            parts = [part for part in (_list(r, dataset, name) for r in (one, two)) if part is not None]
            try:
                total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
            except ValueError as error:
                raise ConfigError(f"{dataset}: {name}: {error}") from None
            out.setdefault(dataset, {})[name] = total
            if len({part.k for part in parts}) > 1:
                notes.append(f"{dataset}: {_shorter(name, total.k)}")
    return out, notes


def _shorter(name: str, k: int) -> str:
    if k == 0:
        return f"there is no list of events {name}, since one of the folders has kept none"
    return f"the list of events {name} has the best {k} only, as many as the shorter one of both folders"


def _list(results: Results, dataset: str, name: str) -> TopEvents | None:
    """Return the list of a folder; an empty one where the folder has events of the dataset and kept no list of them."""
    lists = results.event_lists.get(dataset, {})
    if name in lists:
        return lists[name]
    return TopEvents(0) if _keeps_none(results.report, dataset) else None


def _keeps_none(report: Mapping[str, Any], dataset: str) -> bool:
    """Say whether events of a dataset were looked at where no lists were kept: by choice, before there were any, or blinded."""
    entries = report["datasets"]
    looked_at = sum(e["events"] for d, e in entries.items() if dataset in (d, ALL))
    runs = report.get("runs") or [report]
    off = any(r.get("event_lists") is None or 0 in _lengths(r.get("config") or {}) for r in runs)
    return looked_at > 0 and (off or (dataset == ALL and bool(report.get("blinded"))))


def without_option(config: Any) -> Any:
    """Return a configuration without the length of lists, which changes no histogram.

    >>> without_option({"met_min": 100, "top_events": 5})
    {'met_min': 100}
    >>> without_option({"eras": {"2022": {"met_min": 100, "top_events": 5}}})
    {'eras': {'2022': {'met_min': 100}}}
    """
    if not isinstance(config, Mapping):
        return config
    rest = {k: v for k, v in config.items() if k != OPTION}
    if isinstance(rest.get("eras"), Mapping):
        rest["eras"] = {era: without_option(of_era) for era, of_era in rest["eras"].items()}
    return rest


def _lengths(config: Mapping[str, Any]) -> set[Any]:
    """Return how long lists are by a configuration, or by those of its eras."""
    eras = config.get("eras")
    return {c.get(OPTION) for c in (eras.values() if isinstance(eras, Mapping) else [config])}
