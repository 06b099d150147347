"""The ABCD estimate of a non-resonant background: tagged events above a cut from those below it, and from untagged ones.

tag │ B │ A          A: tagged, above the cut        N_A = N_B N_C / N_D
untagged │ D │ C          for two variables that are independent
└───┴───→ second variable
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coffea_ad.errors import ConfigError, NotNormalisable
from coffea_ad.results.results import Results
from coffea_ad.search.abcd_closure import Closure, Correlation, closure_tests
from coffea_ad.search.abcd_counts import Estimate, Kappa, Plane, Yield, closure_uncertainty, estimate, kappa
from coffea_ad.search.abcd_likelihood import Ratio, interval, plane_ratio, significance
from coffea_ad.search.abcd_notes import notes_of_bins, notes_of_regions
from coffea_ad.search.abcd_planes import Pair, Table, hidden_cells, pairs_of, read_data, read_processes, table_of
from coffea_ad.search.channels import Sample
from coffea_ad.typing import Float64s
from coffea_ad.weights import kind_of

__all__ = ["Abcd", "abcd"]

_TAGGED = {"b": 1.0, "c": 1.0, "d": -1.0}
_KAPPA = {"a": 1.0, "d": 1.0, "b": -1.0, "c": -1.0}


@dataclass(frozen=True)
class Abcd:
    """The estimate of one region above one cut.

    Attributes
    ----------
    observable : str
        The second variable.
    region, control : str
        Tagged and untagged.
    cut : float
    source : "data" or "background"
        Whose events B, C and D are.
    plane : Plane
        The numbers of events; A is None if it was not looked at.
    correction : float
        κ of simulation that the estimate is multiplied with, or 1.
    simulated : Ratio or None
        The numbers of simulation that it is made of.
    estimate : Estimate
        N_B N_C / N_D, corrected, with its statistical interval of 1σ.
    edges : (n + 1,)
        Bins of the observable above the cut.
    binned : Estimate, (n,)
        The shape of C, scaled by N_B / N_D; the statistical interval of each bin holds that of the scale.
    shape : Yield, (n,)
        The content of C.
    others, others_binned : float, (n,)
        Expected events in A of the subtracted processes.
    subtraction : float
        Error of the estimate and the others together, in events, by the errors of the subtracted processes.
    kappas : tuple of Kappa
        Closure tests of simulation and of data where there is no signal.
    correlations : tuple of Correlation
    closure : float
        Uncertainty of ln N_A by the closure tests: a factor exp(± closure); NaN without any. Beside a correction, which has its
        error, what data do not have in common with simulation.
    observed, observed_binned : float or None, (n,) or None
        Events in A, where it was looked at.
    notes : tuple of str
        What a reader must know, in sentences.
    """

    observable: str
    region: str
    control: str
    cut: float
    source: str
    plane: Plane
    correction: float
    simulated: Ratio | None
    estimate: Estimate
    edges: Float64s
    binned: Estimate
    shape: Yield
    others: float
    others_binned: Float64s
    subtraction: float
    kappas: tuple[Kappa, ...]
    correlations: tuple[Correlation, ...]
    closure: float
    observed: float | None
    observed_binned: Float64s | None
    notes: tuple[str, ...]

    @property
    def expected(self) -> float:
        """All events that are expected in A: the estimate, corrected if asked, and the subtracted processes."""
        return float(self.estimate.value) + self.others

    @property
    def errors(self) -> tuple[float, float]:
        """Downward and upward uncertainty of `expected`: statistics, closure and subtraction in quadrature."""
        value = float(self.estimate.value)
        ends = (value - float(self.estimate.low), float(self.estimate.high) - value)
        down, up = (
            float(np.sqrt(statistics**2 + (value * closure) ** 2 + self.subtraction**2))
            for statistics, closure in zip(ends, self.closure_errors, strict=True)
        )
        return down, up

    @property
    def correction_errors(self) -> tuple[float, float]:
        """Downward and upward uncertainty of ln κ of the correction, by the profile likelihood; 0 without one."""
        return (0.0, 0.0) if self.simulated is None else interval(self.simulated)

    @property
    def closure_errors(self) -> tuple[float, float]:
        """Relative downward and upward uncertainty by the closure tests and of the correction; 0 without any."""
        down, up = self._closure_logs
        return float(-np.expm1(-down)), float(np.expm1(up))

    @property
    def _closure_logs(self) -> tuple[float, float]:
        size = 0.0 if np.isnan(self.closure) else self.closure
        down, up = (float(np.hypot(size, error)) for error in self.correction_errors)
        return down, up

    @property
    def significance(self) -> float:
        """Signed significance of the observed data by the likelihood ratio of all numbers; NaN where A was not looked at.

        The numbers of events are Poisson, those of a correction process by process; the closure is a factor whose logarithm is normal.
        """
        if self.source != "data" or self.observed is None or not np.isfinite(self.expected):
            return float("nan")
        ratios = [plane_ratio([self.plane], _TAGGED), *([] if self.simulated is None else [self.simulated])]
        size = 0.0 if np.isnan(self.closure) else self.closure
        return significance(self.observed, ratios, closure=size, others=self.others, subtraction=self.subtraction)

    def sample(self) -> Sample:
        """Return the estimate as a sample of a channel, bin by bin above the cut.

        The variance is that of C, bin by bin; what all bins have in common, the scale N_B / N_D and the closure, are sources of
        number.

        Raises
        ------
        ConfigError
            There is no estimate, since D or B is empty.
        """
        b, d = self.plane.b, self.plane.d
        if not (b.value > 0 and d.value > 0):
            raise ConfigError(f"region {self.region}: there is no estimate, since B or D is empty")
        transfer = self.correction * float(b.value / d.value)
        scale = float(np.sqrt(b.variance / b.value**2 + d.variance / d.value**2))
        logs = {f"{self.region}_transfer": (scale, scale), f"{self.region}_closure": self._closure_logs}
        factors = {name: (float(np.exp(-down)), float(np.exp(up))) for name, (down, up) in logs.items() if up > 0}
        return Sample(np.asarray(self.binned.value), transfer**2 * self.shape.variance, norm=factors)

    def sentences(self) -> list[str]:
        """Return what the estimate says, its tests and the notes."""
        down, up = self.errors
        value, low, high = (float(v) for v in (self.estimate.value, self.estimate.low, self.estimate.high))
        above = f"{self.region}, {self.observable} above {self.cut:g}"
        percent = [100 * e for e in self.closure_errors]
        closure = "not tested" if np.isnan(self.closure) else f"−{percent[0]:.2g} +{percent[1]:.2g} %"
        lines = [
            f"{above}: {self.expected:.4g} −{down:.2g} +{up:.2g} events expected (statistics −{value - low:.2g} +{high - value:.2g}, closure {closure})"
        ]
        if self.observed is not None:
            said = f"observed, {self.significance:+.2f}σ" if self.source == "data" else "in simulation"
            lines.append(f"{above}: {self.observed:.4g} events {said}")
        return [*lines, *(c.sentence for c in self.correlations), *self.notes]


def abcd(
    results: Results,
    observable: str,
    region: str,
    cut: float,
    *,
    control: str | None = None,
    subtract: Mapping[str, float] | None = None,
    validation: Mapping[str, tuple[str, str]] | None = None,
    correct: bool = False,
    era: str | None = None,
    unblind: bool = False,
) -> Abcd:
    """Estimate the events of a region above a cut in a second variable, from data or, where there are none, from simulation.

    Parameters
    ----------
    results : Results
        Of a search: its histograms are over cells, variations and observables.
    observable : str
        The second variable: a histogram of one entry per event.
    region : str
        The tagged region, such as `loose_2tag`.
    cut : float
        At an edge of the observable's axis.
    control : str, optional
        The untagged region; by default `{working point}_0tag`, or what is not in the region.
    subtract : {process: relative error}, optional
        Simulated processes that are subtracted from data, and added to the estimate, with errors of their cross-sections.
    validation : {name: (tagged, untagged)}, optional
        Regions without signal, in which closure is tested; by default the looser working points, without what the region's own
        tags. {}: none.
    correct : bool
        Multiply the estimate of data by κ of simulation. Its error is then an uncertainty of closure, and tests in data are of κ over that of
        simulation in the same plane.
    era : str, optional
        One only; without, all are added.
    unblind : bool
        Look at the data in A.

    Returns
    -------
    Abcd

    Raises
    ------
    ConfigError
        The cut is at no edge; regions share events; all tagged data are hidden; a process to subtract is not there.
    UnknownName
        There is no such region or process.
    """
    kinds = {kind_of(entry["metadata"]) for entry in results.report["datasets"].values()}
    from_data = "data" in kinds
    hidden = hidden_cells(results) if from_data else frozenset()
    results, pair, planes, notes = pairs_of(results, region, control, validation, hidden)
    if correct and not from_data:
        raise ConfigError("an estimate from simulation is not corrected by itself: correct=True needs data")
    errors = dict(subtract or {})
    simulated = _simulation(results, observable, pair, era, notes, needed=not from_data or correct or bool(errors))
    for process in errors:
        if process not in simulated:
            raise ConfigError(f"process {process} cannot be subtracted: the background is {', '.join(simulated)}")
    mc = _rest(simulated, errors)
    if mc is None and (correct or not from_data):
        raise ConfigError("all simulated background is subtracted, and none is left for the estimate")
    ratio, spread = _kappa_of(simulated, errors, observable, cut)
    if not from_data:
        assert mc is not None
        tests = closure_tests(observable, region, mc.edge(observable, cut), simulation=mc, spread=spread)
        return _assembled(mc, pair, observable, region, cut, tests, notes, {}, {}, source="background", look=True)
    data = read_data(results, observable, pair, era)
    tables, references = {}, {}
    for plane in planes.values():
        of_plane = read_processes(results, "background", observable, plane, era) if errors or correct else {}
        less = [of_plane[p] for p in errors if p in of_plane]
        tables[plane.tagged] = read_data(results, observable, plane, era).minus(*less)
        references[plane.tagged] = _rest(of_plane, errors)
    others = {p: simulated[p] for p in errors}
    k = data.edge(observable, cut)
    tests = closure_tests(
        observable, region, k, simulation=mc, data=data.minus(*others.values()), validation=tables,
        simulated={name: t for name, t in references.items() if t is not None} if correct else None, spread=spread,
    )  # fmt: skip
    if correct and ratio is None:
        raise ConfigError(f"{region} cannot be corrected: a region of its plane is empty in simulation")
    return _assembled(
        data, pair, observable, region, cut, tests, notes, others, errors, source="data", look=unblind,
        correction=kappa(mc.plane(k)).value if correct and mc is not None else 1.0, simulated=ratio if correct else None,
    )  # fmt: skip


def _kappa_of(
    simulated: Mapping[str, Table], subtracted: Mapping[str, float], observable: str, cut: float
) -> tuple[Ratio | None, float | None]:
    """Return κ of simulation, process by process, and the standard deviation of its logarithm; None if a region is empty."""
    rest = [table for process, table in simulated.items() if process not in subtracted]
    planes = [table.plane(table.edge(observable, cut)) for table in rest]
    if not planes or not np.isfinite(kappa(table_of(rest).plane(rest[0].edge(observable, cut))).value):
        return None, None
    ratio = plane_ratio(planes, _KAPPA)
    return ratio, float(np.sqrt(np.mean(np.square(interval(ratio)))))


def _rest(simulated: Mapping[str, Table], subtracted: Mapping[str, float]) -> Table | None:
    """Return the sum of the processes that are not subtracted."""
    rest = [table for process, table in simulated.items() if process not in subtracted]
    return table_of(rest) if rest else None


def _assembled(
    events: Table, pair: Pair, observable: str, region: str, cut: float, tests: Closure, notes: Sequence[str],
    others: Mapping[str, Table], errors: Mapping[str, float], *, source: str, look: bool,
    correction: float = 1.0, simulated: Ratio | None = None,
) -> Abcd:  # fmt: skip
    """Put an estimate together from the events of its plane, less other processes, and the tests of closure."""
    k = events.edge(observable, cut)
    edges = events.edges[k:]
    table = events.minus(*others.values())
    total, bins = table.plane(k, blind=not look), table.plane(k, binned=True, blind=not look)
    correlated = any(c.significant for c in tests.correlations)
    closure = closure_uncertainty(tests.kappas, correlated=correlated)
    if simulated is not None:  # which has its error
        closure = max((k.deviation for k in tests.kappas if not k.direct), default=0.0)
    said = [*notes, *tests.notes]
    if correlated and tests.kappas and not any(k.direct for k in tests.kappas):
        said.append(
            f"closure of {region} was tested in other planes only, and where variables are correlated these say little of it"
        )
    if np.isnan(closure):
        said.append(f"closure of {region} was not tested: the stated uncertainty is statistical only")
    said += [*notes_of_regions(total, pair, observable, cut), *notes_of_bins(bins, pair, observable, edges)]
    above = float(table.untagged.value[-1])
    if above:
        said.append(
            f"{above:.4g} events of {pair.untagged} are above the axis of {observable}: in the estimate, and in no bin"
        )
    expected = [(_a(t.plane(k)), _a_binned(t.plane(k, binned=True))) for t in others.values()]
    return Abcd(
        observable=observable, region=region, control=pair.untagged, cut=float(edges[0]), source=source, plane=total,
        correction=correction, simulated=simulated, estimate=estimate(total.b, total.c, total.d).scaled(correction), edges=edges,
        binned=estimate(bins.b, bins.c, bins.d).scaled(correction), shape=bins.c,
        others=sum(number for number, _ in expected),
        others_binned=np.sum([np.zeros(len(edges) - 1), *(of_bins for _, of_bins in expected)], axis=0),
        subtraction=_subtraction(events, others, errors, k, correction), kappas=tests.kappas, correlations=tests.correlations,
        closure=closure, observed=_a(events.plane(k)) if look else None,
        observed_binned=_a_binned(events.plane(k, binned=True)) if look else None, notes=tuple(said),
    )  # fmt: skip


def _a(plane: Plane) -> float:
    assert plane.a is not None
    return float(plane.a.value.sum())


def _a_binned(plane: Plane) -> Float64s:
    assert plane.a is not None
    return plane.a.value


def _simulation(
    results: Results, observable: str, pair: Pair, era: str | None, notes: list[str], *, needed: bool
) -> dict[str, Table]:
    """Return the simulated background; where data suffice, none if it cannot be had, and the reason as a note."""
    try:
        return read_processes(results, "background", observable, pair, era)
    except (ConfigError, NotNormalisable) as error:
        if needed:
            raise
        notes.append(f"closure is not tested in simulation: {error}")
        return {}


def _subtraction(
    events: Table, others: Mapping[str, Table], errors: Mapping[str, float], k: int, factor: float
) -> float:  # fmt: skip
    """Return half of what estimate and subtracted processes together change by, each process at ± its error, in quadrature."""
    squares = 0.0
    table = events.minus(*others.values())
    for process, other in others.items():
        ends = []
        for sign in (-1, 1):
            shift = sign * errors[process]
            p = table.minus(other.scaled(shift)).plane(k)
            ends.append(factor * float(estimate(p.b, p.c, p.d).value) + shift * _a(other.plane(k)))
        squares += (0.5 * (ends[1] - ends[0])) ** 2
    return float(np.sqrt(squares))
