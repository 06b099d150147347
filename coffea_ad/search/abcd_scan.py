"""Which cut an ABCD estimate should have: expected events and closure at several, in simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.results.results import Results
from coffea_ad.search.abcd_counts import Kappa, kappa
from coffea_ad.search.abcd_planes import pairs_of, read_processes, table_of
from coffea_ad.weights import kind_of

__all__ = ["CutPoint", "scan_cuts"]


@dataclass(frozen=True)
class CutPoint:
    """What a cut in the second variable would give, in simulation.

    Attributes
    ----------
    cut : float
    expected, error : float
        N_B N_C / N_D at luminosity, and the statistical error that data would have: N √(1/N_B + 1/N_C + 1/N_D).
    simulated : float
        Events in A.
    kappa : Kappa
    signals : {process: float}
        Events in A of the simulated signals.
    """

    cut: float
    expected: float
    error: float
    simulated: float
    kappa: Kappa
    signals: Mapping[str, float]


def scan_cuts(
    results: Results,
    observable: str,
    region: str,
    cuts: Sequence[float] = (),
    *,
    control: str | None = None,
    subtract: Sequence[str] = (),
    era: str | None = None,
) -> list[CutPoint]:
    """Return what cuts in the second variable would give, by simulation alone; which one to take is not decided here.

    Parameters
    ----------
    results : Results
    observable, region : str
    cuts : sequence of float
        At edges; all inner ones by default.
    control : str, optional
    subtract : sequence of str
        Processes that are no part of the estimate.
    era : str, optional

    Returns
    -------
    list of CutPoint

    Raises
    ------
    ConfigError, UnknownName
        As `abcd` raises.
    NotNormalisable
        The weights of a dataset sum to 0.
    """
    results, pair, _, _ = pairs_of(results, region, control, {}, frozenset())
    rest = [
        t for p, t in read_processes(results, "background", observable, pair, era).items() if p not in set(subtract)
    ]
    if not rest:
        raise ConfigError("all simulated background is subtracted")
    table = table_of(rest)
    kinds = {kind_of(entry["metadata"]) for entry in results.report["datasets"].values()}
    signals = read_processes(results, "signal", observable, pair, era) if "signal" in kinds else {}
    out = []
    for k in [table.edge(observable, cut) for cut in cuts] or range(1, len(table.edges) - 1):
        plane = table.plane(k)
        assert plane.a is not None
        b, c, d = (float(y.value) for y in (plane.b, plane.c, plane.d))
        expected = b * c / d if min(b, c, d) > 0 else float("nan")
        error = expected * np.sqrt(1 / b + 1 / c + 1 / d) if min(b, c, d) > 0 else float("nan")
        of_signal = {p: t.plane(k).a for p, t in signals.items()}
        out.append(
            CutPoint(
                float(table.edges[k]), expected, float(error), float(plane.a.value), kappa(plane, "simulation", direct=True),
                {p: float(a.value) for p, a in of_signal.items() if a is not None},
            )
        )  # fmt: skip
    return out
