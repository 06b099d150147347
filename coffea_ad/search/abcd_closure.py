"""Closure of an ABCD estimate: whether tag and second variable depend on each other, in simulation and in data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coffea_ad.search.abcd_counts import Homogeneity, Kappa, Plane, enough, homogeneity, kappa
from coffea_ad.search.abcd_planes import Table
from coffea_ad.typing import Float64s

__all__ = ["Closure", "Correlation", "closure_tests"]

CORRELATED = 0.01
"""p-values below are called a correlation."""
_PARTS = (0.5, 0.25, 0.125)  # of the untagged events below the cut, above the cut of a plane within them


@dataclass(frozen=True)
class Correlation:
    """Whether a tag and the second variable depend on each other.

    Attributes
    ----------
    tagged, observable, where : str
        Where: in simulation, or in which data.
    test : Homogeneity
        Of the tagged fraction along the observable.
    kappa : Kappa
        How much it is worth, at the cut.
    """

    tagged: str
    observable: str
    where: str
    test: Homogeneity
    kappa: Kappa

    @property
    def significant(self) -> bool:
        """Whether the p-value is below `CORRELATED`."""
        return self.test.p < CORRELATED

    @property
    def sentence(self) -> str:
        """What the test says, with κ."""
        both = f"{self.tagged} and {self.observable}"
        k = f"κ = {self.kappa.value:.3g} ± {self.kappa.error:.2g}"
        if not self.test.ndf:
            known = f", {k}" if np.isfinite(self.kappa.value) else ""
            return f"{both}: too few events in {self.where} for a test of their correlation{known}"
        numbers = f"χ² = {self.test.statistic:.1f} for {self.test.ndf} degrees of freedom (p = {self.test.p:.2g}), {k}"
        if self.significant:
            return f"{both} are correlated in {self.where}: {numbers}"
        return f"{both}: no correlation is seen in {self.where}: {numbers}"


@dataclass(frozen=True)
class Closure:
    """What the tests of closure say.

    Attributes
    ----------
    kappas : tuple of Kappa
    correlations : tuple of Correlation
    notes : tuple of str
        Which test could not be made.
    """

    kappas: tuple[Kappa, ...]
    correlations: tuple[Correlation, ...]
    notes: tuple[str, ...]


def closure_tests(
    observable: str,
    tagged: str,
    k: int,
    *,
    simulation: Table | None = None,
    data: Table | None = None,
    validation: Mapping[str, Table] | None = None,
    simulated: Mapping[str, Table] | None = None,
    spread: float | None = None,
) -> Closure:
    """Test closure in simulation, in data below the cut, and in validation regions.

    Parameters
    ----------
    observable, tagged : str
        As sentences name them.
    k : int
        Edge of the cut.
    simulation, data : Table, optional
        Of the plane of the estimate. Of the data, only what lies below the cut is used: at up to three cuts within it, planes
        are made of B and D.
    validation : {tagged: Table}, optional
        Data of regions without signal, with the same cut.
    simulated : {tagged: Table}, optional
        Simulation of the validation regions: an estimate is corrected by the κ of simulation, and what is tested is κ of data over κ
        of simulation in each plane.
    spread : float, optional
        Standard deviation of ln κ of simulation, where its processes say more than their sum.

    Returns
    -------
    Closure
    """
    kappas: list[Kappa] = []
    correlations: list[Correlation] = []
    notes: list[str] = []
    corrected = simulated is not None
    if simulation is not None:
        value = kappa(simulation.plane(k), "simulation", direct=True)
        if spread is not None:
            value = replace(value, error=value.value * spread)
        test = homogeneity(simulation.tagged, simulation.untagged)
        correlations.append(Correlation(tagged, observable, "simulation", test, value))
        if np.isfinite(value.value):
            kappas.append(replace(value, value=1.0, error=value.error / value.value) if corrected else value)
        else:
            notes.append(f"closure of {tagged} is not tested in simulation: a region is empty there")
    if data is not None:
        where = f"data below {observable} = {data.edges[k]:g}"
        inner = _below(data, observable, k)
        value = min(inner.values(), key=_relative) if inner else Kappa("", float("nan"), float("nan"))
        test = homogeneity(data.tagged.bins(0, k + 1), data.untagged.bins(0, k + 1))
        correlations.append(Correlation(tagged, observable, where, test, value))
        if not inner:
            least = enough(data.tagged, data.untagged)
            notes.append(
                f"closure of {tagged} is not tested in {where}: no plane within them has {least:g} effective events in each region"
            )
        for j, one in inner.items():
            _add(kappas, notes, one, simulation.plane(j, end=k) if corrected and simulation is not None else None)
    for name, table in (validation or {}).items():
        plane = table.plane(k)
        value = kappa(plane, name)
        correlations.append(Correlation(name, observable, "data", homogeneity(table.tagged, table.untagged), value))
        if _filled(plane):
            _add(kappas, notes, value, simulated[name].plane(k) if simulated is not None else None)
        else:
            notes.append(f"closure is not tested in {name}: too few events in a region of its plane")
    return Closure(tuple(kappas), tuple(correlations), tuple(notes))


def _relative(one: Kappa) -> float:
    return one.error / one.value


def _add(kappas: list[Kappa], notes: list[str], of_data: Kappa, reference: Plane | None) -> None:
    """Add κ of data, over that of simulation where there is a reference; one that is empty is named."""
    if reference is None:
        kappas.append(of_data)
        return
    of_simulation = kappa(reference)
    if np.isfinite(of_simulation.value):
        kappas.append(of_data.over(of_simulation))
    else:
        notes.append(f"the corrected closure is not tested in {of_data.name}: a region is empty in simulation")


def _filled(plane: Plane) -> bool:
    regions = [y for y in (plane.a, plane.b, plane.c, plane.d) if y is not None]
    return all(float(y.n_effective) >= enough(*regions) for y in regions)


def _below(data: Table, observable: str, k: int) -> dict[int, Kappa]:
    """Return κ of planes within the events below the cut, by edge; their cuts are set by the untagged events alone."""
    content = np.cumsum(data.untagged.value[: k + 1])
    if content[-1] <= 0:
        return {}
    part: Float64s = 1 - content[:k] / content[-1]  # of the untagged events, above the edge
    cuts = sorted({int(np.argmin(np.abs(part[1:] - p))) + 1 for p in _PARTS}) if k > 1 else []
    planes = {j: data.plane(j, end=k) for j in cuts}
    return {
        j: kappa(plane, f"data, {observable} {data.edges[j]:g} to {data.edges[k]:g}")
        for j, plane in planes.items()
        if _filled(plane)
    }
