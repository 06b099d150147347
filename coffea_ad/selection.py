"""Event selection that processors share: triggers, filters, lepton veto, leading jets, cutflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from coffea.analysis_tools import PackedSelection
from pydantic import BeforeValidator

from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features.two_body import TWO_BODY, event_numbers, two_body_masses
from coffea_ad.kinematics import Dijet, delta_phi, dijet, transverse_mass
from coffea_ad.nanoaod.columns import as_mask, where
from coffea_ad.nanoaod.conventions import all_met_filters, met_filters_of, say
from coffea_ad.typing import Bools
from coffea_ad.weights import is_mc

__all__ = [
    "BY_CAMPAIGN",
    "LEPTON_BRANCHES",
    "TWO_BODY",
    "Cut",
    "Dijet",
    "Names",
    "Path",
    "Triggers",
    "above",
    "any_trigger",
    "below",
    "certified_by",
    "cutflow",
    "delta_phi",
    "dijet",
    "event_numbers",
    "filter_reads",
    "has_lepton",
    "leading_jets",
    "lepton_branches",
    "met_filters",
    "not_applied",
    "transverse_mass",
    "trigger_reads",
    "triggered",
    "two_body_masses",
    "undefined_in",
    "undefined_numbers",
]


Triggers = Annotated[
    tuple[str, ...] | dict[str, tuple[str, ...]], BeforeValidator(lambda names: () if names is None else names)
]
"""Trigger paths, any of which is asked for; or those of every primary dataset, the first of which keeps an overlap."""


LEPTON_BRANCHES = (
    *(f"Electron_{f}" for f in ("pt", "eta", "cutBased", "miniPFRelIso_all")),
    *(f"Muon_{f}" for f in ("pt", "eta", "looseId", "miniPFRelIso_all")),
)
"""What `has_lepton` reads, with an isolation."""


Cut = float | None
"""A cut of a configuration; null is no cut, for which no branch is read either."""
Path = Annotated[str, BeforeValidator(lambda path: "" if path is None else path)]
"""Path of a file, or none."""
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda names: () if names is None else [names] if isinstance(names, str) else names),
]
"""Names of branches, or none."""


BY_CAMPAIGN = ("campaign",)
"""The word for the MET filters of the dataset's campaign."""


def any_trigger(events: Any, names: Sequence[str]) -> Bools:
    """Return whether any of the trigger paths fired; paths that a file lacks are left out.

    Parameters
    ----------
    events : NanoEvents
    names : sequence of str
        Such as "HLT_PFHT1050"; none means no trigger is asked for.

    Raises
    ------
    MissingBranch
        The file has none of the paths.
    """
    if not names:
        return np.ones(len(events), bool)
    menu = _menu(events, names)
    if not menu:
        raise MissingBranch(f"{where(events)}none of the triggers is there: {', '.join(names)}")
    fired = np.zeros(len(events), bool)
    for path in menu:
        fired |= as_mask(ak.to_numpy(events["HLT"][path]))
    return fired


def _menu(events: Any, names: Sequence[str]) -> list[str]:
    """Return which of some trigger paths a file has, without HLT_."""
    fields = set(ak.fields(events["HLT"])) if "HLT" in ak.fields(events) else set()
    return [path for path in (n.removeprefix("HLT_") for n in names) if path in fields]


def triggered(events: Any, triggers: Sequence[str] | Mapping[str, Sequence[str]]) -> Bools:
    """Return whether events are taken by their trigger, each event from one primary dataset only.

    An event of data that fired paths of several primary datasets is in the files of all of them. It is kept where a path
    of its file's own primary dataset fired, and no path of one that stands before it in `triggers`; of one whose paths were
    not in the menu then, it cannot have been in the files. In simulation any path will do.

    Parameters
    ----------
    events : NanoEvents
        Data needs `primaryDataset` in its metadata if `triggers` is a mapping.
    triggers : sequence of str, or {primary dataset: sequence of str}

    Raises
    ------
    ConfigError
        Data does not say which primary dataset it is of, or `triggers` does not have it.
    MissingBranch
        The file has none of the paths.
    """
    if not isinstance(triggers, Mapping):
        return any_trigger(events, triggers)
    if is_mc(events):
        return any_trigger(events, [path for paths in triggers.values() for path in paths])
    primary = str((getattr(events, "metadata", None) or {}).get("primaryDataset"))
    if primary not in triggers:
        raise ConfigError(
            f"{where(events)}primaryDataset in the metadata of the dataset is {primary!r}, but triggers are given for "
            f"{', '.join(triggers)}"
        )
    names = list(triggers)
    taken = any_trigger(events, triggers[primary])
    for earlier in names[: names.index(primary)]:
        if _menu(events, triggers[earlier]):
            taken &= ~any_trigger(events, triggers[earlier])
        else:
            say(f"no overlap with {earlier} where a file has none of its trigger paths")
    return taken


def trigger_reads(triggers: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the branches of triggers for the check before a run: one path at least, and whichever else is there.

    >>> trigger_reads(["HLT_PFHT1050"])
    {'the trigger': (('HLT_PFHT1050',),), 'HLT_PFHT1050': (('HLT_PFHT1050',), ())}
    """
    groups = triggers if isinstance(triggers, Mapping) else {"": triggers}
    out: dict[str, tuple[tuple[str, ...], ...]] = {}
    every = tuple((path,) for paths in groups.values() for path in paths)
    if every:  # which of several primary datasets a file is of, its metadata say
        out["the trigger"] = every
    for paths in groups.values():
        out |= {path: ((path,), ()) for path in paths}
    return out


def met_filters(events: Any, names: Sequence[str]) -> Bools:
    """Return whether all filters passed.

    Parameters
    ----------
    events : NanoEvents
    names : sequence of str
        Such as "Flag_goodVertices"; "campaign" alone means those of the dataset's campaign.

    Raises
    ------
    MissingBranch
        The file lacks one.
    """
    passed = np.ones(len(events), bool)
    if tuple(names) == BY_CAMPAIGN:
        names = met_filters_of(events)
    have = set(ak.fields(events["Flag"])) if "Flag" in ak.fields(events) else set()
    missing = [n for n in names if n.removeprefix("Flag_") not in have]
    if missing:
        raise MissingBranch(f"{where(events)}MET filters are missing: {', '.join(missing)}")
    for name in names:
        passed &= as_mask(ak.to_numpy(events["Flag"][name.removeprefix("Flag_")]))
    return passed


def filter_reads(names: Sequence[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the branches of MET filters for the check before a run; those of a campaign are looked for with the events.

    >>> filter_reads(["Flag_goodVertices"])
    {'MET filters': (('Flag_goodVertices',),)}
    """
    if tuple(names) == BY_CAMPAIGN:
        return {name: ((name,), ()) for name in all_met_filters()}
    return {"MET filters": (tuple(names),)} if names else {}


def not_applied(config: Any, *, data: bool) -> list[str]:
    """Return what a configuration has keys for and does not ask for: triggers, MET filters, certified luminosity of data.

    Parameters
    ----------
    config : pydantic model or None
        With `triggers`, `met_filters`, and `lumi_mask` or `corrections.lumi_mask`, or without.
    data : bool
        Whether there are data, for which luminosity sections are certified.
    """
    names = {"triggers": "triggers", "met_filters": "MET filters"}
    lacking = [name for key, name in names.items() if hasattr(config, key) and not getattr(config, key)]
    if data and certified_by(config) == "":
        lacking.append("certified luminosity (lumi_mask)")
    return lacking


def certified_by(config: Any) -> str | None:
    """Return the golden JSON of a configuration, `lumi_mask` or `corrections.lumi_mask`; None: it has no such key."""
    parts: tuple[Any, ...] = (config, getattr(config, "corrections", None))
    return next((str(c.lumi_mask) for c in parts if hasattr(c, "lumi_mask")), None)


def above(values: Any, cut: Any) -> Any:
    """Return whether values are above a cut; without one all are, what is not a number too.

    >>> above(np.array([1.0, np.nan]), 0.5), above(np.array([1.0, np.nan]), None)
    (array([ True, False]), array([ True,  True]))
    """
    return _all(values) if cut is None else values > cut


def below(values: Any, cut: Any) -> Any:
    """Return whether values are below a cut; without one all are."""
    return _all(values) if cut is None else values < cut


def _all(values: Any) -> Any:
    return np.ones(np.shape(values), bool) if isinstance(values, np.ndarray) else ak.ones_like(values, dtype=bool)


def lepton_branches(pt_min: float | None, isolation_max: float | None) -> tuple[str, ...]:
    """Return what `has_lepton` reads: nothing without a veto, no isolation without a cut on it.

    >>> lepton_branches(None, 0.2), len(lepton_branches(10.0, 0.2)), len(lepton_branches(10.0, None))
    ((), 8, 6)
    """
    if pt_min is None:
        return ()
    return tuple(b for b in LEPTON_BRANCHES if isolation_max is not None or not b.endswith("_miniPFRelIso_all"))


def has_lepton(events: Any, pt_min: float | None, isolation_max: float | None) -> Bools:
    """Return whether an event has an isolated electron (cut-based loose) or muon (loose) with |η| < 2.4.

    Parameters
    ----------
    events : NanoEvents
    pt_min : float or None, GeV
        None: there is no veto, no event has a lepton, and no branch is read.
    isolation_max : float or None
        None: every lepton counts as isolated.
    """
    vetoed = np.zeros(len(events), bool)
    if pt_min is None:
        return vetoed
    for collection, identity, grade in (("Electron", "cutBased", 2), ("Muon", "looseId", 1)):
        good = (
            (events[collection, "pt"] > pt_min)
            & (abs(events[collection, "eta"]) < 2.4)
            & (events[collection, identity] >= grade)
        )
        if isolation_max is not None:
            good = good & (events[collection, "miniPFRelIso_all"] < isolation_max)
        vetoed |= ak.to_numpy(ak.any(good, axis=1))
    return vetoed


def leading_jets(jets: Any, n: int = 2) -> tuple[Any, Bools]:
    """Return the leading jets of every event by pT, and in which events they cannot be told.

    A jet whose pT is NaN or infinite never leads. If it is among the first `n` of its file, which are ordered by pT, it
    would have been a leading one: the event is undefined. Further back it changes nothing.

    Parameters
    ----------
    jets : (n_events, jets) with pt
    n : int
        At most so many are returned.

    Returns
    -------
    leading : (n_events, ≤ n)
    undefined : (n_events,) bool

    Examples
    --------
    >>> leading, undefined = leading_jets(ak.Array([[{"pt": 5.0}, {"pt": 9.0}, {"pt": np.nan}], [{"pt": np.inf}]]))
    >>> leading["pt"].to_list(), undefined.tolist()
    ([[9.0, 5.0], [inf]], [False, True])
    """
    finite = np.isfinite(jets["pt"])
    order = ak.argsort(ak.where(finite, jets["pt"], -np.inf), axis=1, ascending=False)
    return jets[order][:, :n], np.asarray(ak.to_numpy(ak.any(~finite[:, :n], axis=1)), bool)


def undefined_in(events: Any, branches: Iterable[str]) -> dict[str, int]:
    """Return in how many events a branch has a NaN or an infinite number, {branch: events}, for those that have any.

    The report adds the numbers of all chunks up, and names them after a run.

    Parameters
    ----------
    events : NanoEvents
        Those that cannot be used; few, since each branch is read.
    branches : iterable of str
        Such as "FatJet_pt"; a branch that the file lacks is left out.

    Examples
    --------
    >>> events = ak.Array([{"Jet": [{"pt": 50.0, "eta": np.nan}, {"pt": 40.0, "eta": np.nan}], "MET": {"pt": 9.0}}])
    >>> undefined_in(events, ["Jet_pt", "Jet_eta", "MET_pt"])
    {'Jet_eta': 1}
    """
    number: dict[str, int] = {}
    for branch in branches if len(events) > 0 else ():
        collection, _, field = branch.partition("_")
        if collection not in ak.fields(events) or field not in ak.fields(events[collection]):
            continue
        bad = ~np.isfinite(events[collection][field])
        affected = int(ak.sum(ak.any(bad, axis=-1) if bad.ndim > 1 else bad))
        if affected:
            number[branch] = affected
    return number


def undefined_numbers(jets: Any, undefined: Bools) -> int:
    """Return how many events are undefined, and how many jets of the others have a pT that is NaN or infinite.

    >>> undefined_numbers(ak.Array([[{"pt": 5.0}, {"pt": np.nan}], [{"pt": np.inf}]]), np.array([False, True]))
    2
    """
    return int(undefined.sum() + ak.sum(~np.isfinite(jets["pt"][~undefined])))


def cutflow(
    selection: PackedSelection, steps: Sequence[str], weight: npt.NDArray[Any], *, and_: str | None = None
) -> dict[str, dict[str, float]]:
    """Return events and sum of weights after each step, cuts applied one after the other; `and_` goes with every step."""
    out = {"all": {"events": len(weight), "weight": float(weight.sum())}}
    for i, step in enumerate(steps):
        passed = selection.all(*steps[: i + 1], *([and_] if and_ else []))
        out[step] = {"events": int(passed.sum()), "weight": float(weight[passed].sum())}
    return out
