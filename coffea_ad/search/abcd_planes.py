"""Planes of ABCD estimates in the results of a run: which regions are tagged and untagged, and what is filled in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hist
import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.results.results import Results
from coffea_ad.scoring.regions import Definitions
from coffea_ad.search.abcd_counts import Plane, Yield
from coffea_ad.typing import Float64s
from coffea_ad.weights import kind_of

__all__ = ["Pair", "Table", "hidden_cells", "pairs_of", "read_data", "read_processes", "table_of"]

_MAIN = "the plane"


@dataclass(frozen=True)
class Pair:
    """Two exclusive regions of events: those that are tagged, and those that are not.

    Attributes
    ----------
    tagged, untagged : str
        As a sentence names them.
    regions : (str, str)
        Their names in the results.
    """

    tagged: str
    untagged: str
    regions: tuple[str, str]


@dataclass(frozen=True)
class Table:
    """Tagged and untagged events along the second variable, with what lies below and above its axis at the ends.

    Attributes
    ----------
    edges : (n + 1,)
    tagged, untagged : Yield, (n + 2,)
    """

    edges: Float64s
    tagged: Yield
    untagged: Yield

    def plane(self, k: int, *, binned: bool = False, end: int | None = None, blind: bool = False) -> Plane:
        """Return the plane of a cut at an edge.

        Parameters
        ----------
        k : int
            Of the edge.
        binned : bool
            The regions above the cut bin by bin, without what lies above the axis.
        end : int, optional
            Of the edge above which nothing is counted.
        blind : bool
            Leave A out.
        """
        last = len(self.edges) if binned else len(self.edges) + 1
        last = last if end is None else end + 1

        def above(y: Yield) -> Yield:
            return y.bins(k + 1, last) if binned else y.bins(k + 1, last).sum()

        a = None if blind else above(self.tagged)
        return Plane(a, self.tagged.bins(0, k + 1).sum(), above(self.untagged), self.untagged.bins(0, k + 1).sum())

    def edge(self, observable: str, cut: float) -> int:
        """Return the index of the edge at a cut.

        Raises
        ------
        ConfigError
            There is none inside the axis; the message says the nearest ones.
        """
        k = int(np.argmin(np.abs(self.edges - cut)))
        inside = 0 < k < len(self.edges) - 1
        if inside and np.isclose(self.edges[k], cut, rtol=1e-9, atol=1e-9 * float(np.ptp(self.edges))):
            return k
        near = sorted(self.edges[1:-1], key=lambda e: abs(e - cut))[:2]
        raise ConfigError(
            f"the cut {observable} = {cut:g} is at no edge inside its axis; the nearest are {' and '.join(f'{e:g}' for e in sorted(near))}"
        )

    def minus(self, *others: Table) -> Table:
        """Return the table less others; variances add."""
        tagged, untagged = self.tagged, self.untagged
        for other in others:
            tagged, untagged = tagged.minus(other.tagged), untagged.minus(other.untagged)
        return Table(self.edges, tagged, untagged)

    def scaled(self, factor: float) -> Table:
        """Return the table times a factor."""
        parts = (Yield(y.value * factor, y.variance * factor**2) for y in (self.tagged, self.untagged))
        return Table(self.edges, *parts)


def pairs_of(
    results: Results,
    region: str,
    control: str | None,
    validation: Mapping[str, tuple[str, str]] | None,
    hidden: frozenset[str],
) -> tuple[Results, Pair, dict[str, Pair], list[str]]:
    """Return the regions of an estimate, the plane's and those of validation planes, and the results with them.

    Parameters
    ----------
    results : Results
    region : str
        The tagged one.
    control : str, optional
        The untagged one. By default `{working point}_0tag` of a region of tagged jets, and all events that are not in it of a
        region of whole events.
    validation : {name: (tagged, untagged)}, optional
        Regions; by default the looser working points, without what the region's own working point tags.
    hidden : frozenset of str
        Cells that data do not show: they are left out of all regions.

    Returns
    -------
    results : Results
    pair : Pair
    validation : {name: Pair}
    notes : list of str

    Raises
    ------
    ConfigError
        The regions share events; all of the region is hidden in data; there is no default for the control region.
    UnknownName
        There is no such region.
    """
    defs = results.regions
    if region not in defs or (control is not None and control not in defs):
        missing = region if region not in defs else str(control)
        if control is None or missing not in _all_regions(results):
            raise UnknownName.of("region", missing, {*defs, *_all_regions(results)})
        named = {n: Pair(t, u, (t, u)) for n, (t, u) in (validation or {}).items()}
        return results, Pair(region, control, (region, control)), named, []
    label, cells = _control(defs, region, control)
    sets = {_MAIN: (region, defs[region], label, cells), **_validation(defs, region, validation)}
    out: Definitions = {}
    pairs: dict[str, Pair] = {}
    notes: list[str] = []
    for i, (name, (tag, tagged, no_tag, untagged)) in enumerate(sets.items()):
        if tagged & untagged:
            raise ConfigError(f"regions {tag} and {no_tag} share the cells {', '.join(sorted(tagged & untagged))}")
        shown = (tagged - hidden, untagged - hidden)
        if not all(shown):
            which = tag if not shown[0] else no_tag
            sentence = f"region {which} is hidden in data as a whole"
            if name == _MAIN:
                raise ConfigError(
                    f"{sentence}, below the cut too, and the estimate counts its events there; take a looser region, or unblind"
                )
            notes.append(f"{sentence}: no validation with it")
            continue
        left = sorted((tagged | untagged) & hidden)
        if left and name == _MAIN:
            notes.append(f"the cells {', '.join(left)} are hidden in data: the estimate is of {tag} without them")
        names = (f"abcd.{i}.tagged", f"abcd.{i}.untagged")
        out |= dict(zip(names, shown, strict=True))
        pairs[name] = Pair(tag, no_tag, names)
    main = pairs.pop(_MAIN)
    return results.with_regions(out), main, pairs, notes


def _all_regions(results: Results) -> set[str]:
    return {r for named in results.in_regions.values() for h in named.values() for r in h.axes["region"]}


def _working_point(defs: Definitions, region: str) -> tuple[str, str] | None:
    """Return working point and number of tags of a region of tagged jets."""
    match = re.fullmatch(r"(.+)_([012])tag", region)
    return (match[1], match[2]) if match and f"{match[1]}_0tag" in defs else None


def _control(defs: Definitions, region: str, control: str | None) -> tuple[str, frozenset[str]]:
    if control is not None:
        return control, defs[control]
    point = _working_point(defs, region)
    if point and point[1] != "0":
        return f"{point[0]}_0tag", defs[f"{point[0]}_0tag"]
    larger = [cells for name, cells in defs.items() if name.endswith("inclusive") and cells > defs[region]]
    if point or not larger:
        raise ConfigError(f"region {region}: say which region is its untagged one, with control=…")
    return f"not {region}", min(larger, key=len) - defs[region]


_Sets = tuple[str, frozenset[str], str, frozenset[str]]


def _validation(defs: Definitions, region: str, validation: Mapping[str, tuple[str, str]] | None) -> dict[str, _Sets]:
    if validation is not None:
        for name in (n for pair in validation.values() for n in pair):
            if name not in defs:
                raise UnknownName.of("region", name, defs)
        return {name: (t, defs[t], u, defs[u]) for name, (t, u) in validation.items()}
    out: dict[str, _Sets] = {}
    point = _working_point(defs, region)
    if point:
        none = defs[f"{point[0]}_0tag"]
        for name, cells in defs.items():
            looser = _working_point(defs, name)
            if looser and looser[1] == point[1] != "0" and defs[f"{looser[0]}_0tag"] < none and cells & none:
                out[name] = (
                    f"{name} and {point[0]}_0tag",
                    cells & none,
                    f"{looser[0]}_0tag",
                    defs[f"{looser[0]}_0tag"],
                )
        return out
    everything = [cells for name, cells in defs.items() if name.endswith("inclusive") and cells > defs[region]]
    for name, cells in defs.items():
        if everything and not name.endswith("inclusive") and defs[region] < cells:
            out[name] = (
                f"{name} without {region}",
                cells - defs[region],
                f"not {name}",
                min(everything, key=len) - cells,
            )
    return out


def hidden_cells(results: Results) -> frozenset[str]:
    """Return the cells that any data do not show."""
    entries = results.report["datasets"].values()
    return frozenset(c for e in entries if kind_of(e["metadata"]) == "data" for c in e.get("hidden_cells", ()))


def _yield(histogram: Any, what: str) -> tuple[Float64s, Yield]:
    """Return edges and content, with what lies outside the axis at both ends."""
    if histogram.ndim != 1:
        raise ConfigError(f"histogram {what} is over {histogram.ndim} observables, and a plane is cut in one")
    axis = histogram.axes[0]
    if isinstance(axis, (hist.axis.StrCategory, hist.axis.IntCategory)):
        raise ConfigError(f"histogram {what} is over names, in which there are no cuts")
    view = histogram.view(flow=True)
    parts = (view["value"], view["variance"]) if view.dtype.names else (view, view)
    pad = (int(not axis.traits.underflow), int(not axis.traits.overflow))
    return np.asarray(axis.edges, np.float64), Yield(*(np.pad(np.asarray(p, np.float64), pad) for p in parts))


def read_data(results: Results, observable: str, pair: Pair, era: str | None) -> Table:
    """Return what data hold in both regions.

    Raises
    ------
    ConfigError, UnknownName
        As `Results.data` raises.
    """
    (edges, tagged), (_, untagged) = (
        _yield(results.data(observable, region, era=era), observable) for region in pair.regions
    )
    return Table(edges, tagged, untagged)


def read_processes(results: Results, kind: str, observable: str, pair: Pair, era: str | None) -> dict[str, Table]:
    """Return what the simulated processes hold in both regions, at luminosity.

    Parameters
    ----------
    kind : "background" or "signal"

    Raises
    ------
    ConfigError, UnknownName, NotNormalisable
        As `Results.background` raises.
    """
    read = results.background if kind == "background" else results.signals
    both = [read(observable, region, era=era) for region in pair.regions]
    out = {}
    for process in both[0]:
        (edges, tagged), (_, untagged) = (_yield(h[process][{"variation": "nominal"}], observable) for h in both)
        out[process] = Table(edges, tagged, untagged)
    return out


def table_of(tables: Sequence[Table]) -> Table:
    """Return the sum of tables with the same axis."""
    tagged, untagged = (
        Yield(sum(y.value for y in of), sum(y.variance for y in of))  # type: ignore[arg-type]
        for of in ([t.tagged for t in tables], [t.untagged for t in tables])
    )
    return Table(tables[0].edges, tagged, untagged)
