"""Event selection that processors share: triggers, filters, lepton veto, dijet kinematics, cutflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from coffea.analysis_tools import PackedSelection
from pydantic import BeforeValidator

from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features.objects import KINDS, SelectedObjects
from coffea_ad.nanoaod.columns import as_mask, where
from coffea_ad.nanoaod.conventions import all_met_filters, met_filters_of, say
from coffea_ad.typing import Bools, Float64s
from coffea_ad.weights import is_mc

__all__ = [
    "BY_CAMPAIGN",
    "LEPTON_BRANCHES",
    "TWO_BODY",
    "Cut",
    "Names",
    "Path",
    "Triggers",
    "above",
    "any_trigger",
    "below",
    "certified_by",
    "cutflow",
    "delta_phi",
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

TWO_BODY: dict[str, tuple[str, str]] = {
    "mjj": ("jet", "jet"),
    "mbb": ("bjet", "bjet"),
    "mjb": ("jet", "bjet"),
    "mje": ("jet", "electron"),
    "mbe": ("bjet", "electron"),
    "mjmu": ("jet", "muon"),
    "mbmu": ("bjet", "muon"),
    "mjgamma": ("jet", "photon"),
    "mbgamma": ("bjet", "photon"),
}
"""The masses in which the search of arXiv:2307.01612 looks for bumps, and the kinds of leading objects they are of."""


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
    own = str((getattr(events, "metadata", None) or {}).get("primaryDataset"))
    if own not in triggers:
        raise ConfigError(
            f"{where(events)}primaryDataset in the metadata of the dataset is {own!r}, but triggers are given for "
            f"{', '.join(triggers)}"
        )
    names = list(triggers)
    taken = any_trigger(events, triggers[own])
    for earlier in names[: names.index(own)]:
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


@np.errstate(invalid="ignore")  # an infinite angle gives NaN
def delta_phi(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64s:
    """Return a − b in (−π, π].

    >>> float(delta_phi(3.0, -3.0).round(4))
    -0.2832
    """
    d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.asarray(np.pi - (np.pi - d) % (2 * np.pi))


@np.errstate(invalid="ignore", over="ignore")
def transverse_mass(dijet: Any, met_pt: npt.ArrayLike, met_phi: npt.ArrayLike) -> Float64s:
    """Return the transverse mass of a dijet and missing momentum, GeV.

    m_T² = m_jj² + 2 MET (√(m_jj² + pT_jj²) − pT_jj cos Δφ)

    Parameters
    ----------
    dijet : (n,) Lorentz vectors
    met_pt, met_phi : (n,)

    Returns
    -------
    (n,) float64, GeV
        NaN where an input is not a finite number.
    """
    mass, pt = np.asarray(ak.to_numpy(dijet.mass), np.float64), np.asarray(ak.to_numpy(dijet.pt), np.float64)
    missing = np.asarray(met_pt, np.float64)
    angle = delta_phi(ak.to_numpy(dijet.phi), met_phi)
    square = mass**2 + 2 * missing * (np.hypot(mass, pt) - pt * np.cos(angle))
    return np.where(np.isfinite(square), np.sqrt(np.maximum(square, 0)), np.nan)


@np.errstate(invalid="ignore", over="ignore")
def two_body_masses(objects: SelectedObjects) -> dict[str, Float64s]:
    """Return the invariant masses of pairs of leading objects, {name in `TWO_BODY`: (n_events,) float64}, GeV.

    m² = (E₁ + E₂)² − |p₁ + p₂|²; of two objects of one kind, those of highest pT. NaN in events without such a pair.

    Parameters
    ----------
    objects : SelectedObjects
        Light jets and b jets are different kinds.

    Examples
    --------
    >>> one, two = np.array([100.0, 100.0]), np.zeros(2)
    >>> event = SelectedObjects(
    ...     np.array([0, 2]), np.array([0, 4]), np.array([0, 0]), one, two, np.array([0, np.pi]), two, two, two, two == 0
    ... )
    >>> masses = two_body_masses(event)
    >>> float(masses["mjgamma"][0].round(6)), float(masses["mjj"][0])
    (200.0, nan)
    """
    n = len(objects.offsets) - 1
    event = np.repeat(np.arange(n), np.diff(objects.offsets))
    momentum = np.full((4, n, len(KINDS), 2), np.nan)
    top = objects.rank < 2
    place = event[top], objects.kind[top], objects.rank[top]
    pt, eta, phi, mass = (column[top] for column in (objects.pt, objects.eta, objects.phi, objects.mass))
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    for k, component in enumerate((px, py, pz, np.sqrt(px**2 + py**2 + pz**2 + mass**2))):
        momentum[(k, *place)] = component
    out = {}
    for name, kinds in TWO_BODY.items():
        one, two = (KINDS.index(kind) for kind in kinds)
        px, py, pz, e = momentum[:, :, one, 0] + momentum[:, :, two, int(one == two)]
        out[name] = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0.0))
    return out


def event_numbers(objects: SelectedObjects, *, leptons: bool = True) -> dict[str, Float64s]:
    """Return numbers of events that a skim stores and a processor gives to its taggers, by the same names.

    Jets are light jets and b jets together: m_jj is of the two of highest pT, whatever their flavour, and 0 with fewer.

    Parameters
    ----------
    objects : SelectedObjects
    leptons : bool
        Whether leptons were looked at; otherwise their numbers are NaN, which is not 0.

    Returns
    -------
    {name: (n_events,) float64}
        met, ht, leading_jet_pt, leading_lepton_pt, mjj in GeV; n_jets, n_leptons.

    Examples
    --------
    >>> one, zero = np.array([100.0, 100.0]), np.zeros(2)
    >>> light_and_b = SelectedObjects(
    ...     np.array([0, 2]), np.array([0, 1]), np.array([0, 0]), one, zero, np.array([0, np.pi]), zero, zero, zero, zero == 0
    ... )
    >>> float(event_numbers(light_and_b)["mjj"][0].round(6))
    200.0
    """
    n = len(objects.offsets) - 1
    event = np.repeat(np.arange(n), np.diff(objects.offsets))
    jets, lepton = np.flatnonzero(objects.kind < 2), np.isin(objects.kind, (2, 3))
    jets = jets[np.lexsort((-objects.pt[jets], event[jets]))]
    number = np.bincount(event[jets], minlength=n)
    place = np.arange(len(jets)) - np.repeat(np.cumsum(number) - number, number)
    pt, eta, phi, mass = (np.zeros((n, 2)) for _ in range(4))
    two = jets[place < 2]
    for table, values in ((pt, objects.pt), (eta, objects.eta), (phi, objects.phi), (mass, objects.mass)):
        table[event[two], place[place < 2]] = values[two]
    with np.errstate(invalid="ignore", over="ignore"):  # events with infinite numbers are undefined
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        e = np.sqrt(px**2 + py**2 + pz**2 + mass**2).sum(axis=1)
        square = e**2 - px.sum(axis=1) ** 2 - py.sum(axis=1) ** 2 - pz.sum(axis=1) ** 2
    leading = np.zeros(n)
    np.maximum.at(leading, event[lepton], objects.pt[lepton])
    return {
        "met": np.asarray(objects.met, np.float64),
        "ht": np.bincount(event[jets], objects.pt[jets], minlength=n),
        "n_jets": number.astype(np.float64),
        "n_leptons": np.bincount(event[lepton], minlength=n).astype(np.float64) if leptons else np.full(n, np.nan),
        "leading_jet_pt": pt[:, 0],
        "leading_lepton_pt": leading if leptons else np.full(n, np.nan),
        "mjj": np.where(number >= 2, np.sqrt(np.maximum(square, 0)), 0.0),
    }


def cutflow(
    selection: PackedSelection, steps: Sequence[str], weight: npt.NDArray[Any], *, and_: str | None = None
) -> dict[str, dict[str, float]]:
    """Return events and sum of weights after each step, cuts applied one after the other; `and_` goes with every step."""
    out = {"all": {"events": len(weight), "weight": float(weight.sum())}}
    for i, step in enumerate(steps):
        passed = selection.all(*steps[: i + 1], *([and_] if and_ else []))
        out[step] = {"events": int(passed.sum()), "weight": float(weight[passed].sum())}
    return out
