"""Windows of a resonance search: a signal region in the mass, the sidebands beside it, and scans of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError, SkimError, listed, unknown_text
from coffea_ad.scoring.domains import Domain
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Bools, Float64s

__all__ = ["PRESETS", "Window", "mass_of", "refuse_empty", "scan", "windows_of"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Window(Frozen):
    """Signal region low ≤ m < high with sidebands [outer_low, low) and [high, outer_high).

    Attributes
    ----------
    low, high : float, GeV
        Edges of the signal region.
    outer_low, outer_high : float, GeV
        Where the sidebands end.
    mass : str
        The column of the resonant variable.

    Examples
    --------
    >>> window = Window(low=3300, high=3700, outer_low=1500, outer_high=5500)
    >>> window.name, window.in_signal_region([3299, 3300, 3700]), window.in_sidebands([1499, 1500, 3700, 5500])
    ('3300_3700', array([False,  True, False]), array([False,  True,  True, False]))
    """

    low: Positive
    high: Positive
    outer_low: Positive
    outer_high: Positive
    mass: str = "mjj"

    @model_validator(mode="after")
    def _rising(self) -> Window:
        if not self.outer_low < self.low < self.high < self.outer_high:
            raise ValueError(
                f"a window needs outer_low < low < high < outer_high, not {self.outer_low:g}, {self.low:g}, {self.high:g}, "
                f"{self.outer_high:g}"
            )
        return self

    @property
    def name(self) -> str:
        """What files of the window are named by."""
        return f"{self.low:g}_{self.high:g}"

    @property
    def domain(self) -> Domain:
        """Where its models give scores: the signal region."""
        return Domain(spectator=self.mass, low=self.low, high=self.high)

    def in_signal_region(self, mass: npt.ArrayLike) -> Bools:
        """Say which masses, (n,), lie in the signal region."""
        return self.domain.contains(mass)

    def in_sidebands(self, mass: npt.ArrayLike) -> Bools:
        """Say which masses, (n,), lie in the sidebands."""
        m = np.asarray(mass, np.float64)
        return np.asarray(((m >= self.outer_low) & (m < self.low)) | ((m >= self.high) & (m < self.outer_high)))

    def __str__(self) -> str:
        return f"{self.domain} with sidebands from {self.outer_low:g} and to {self.outer_high:g}"


def scan(
    start: float, stop: float, *, width: float, step: float = 1.0, outer_low: float, outer_high: float, mass: str = "mjj"
) -> tuple[Window, ...]:  # fmt: skip
    """Return windows whose width grows with the mass: [c (1 − w/2), c (1 + w/2)), the next centre a `step` of widths above.

    Parameters
    ----------
    start, stop : float, GeV
        The first window begins at `start`, and none ends above `stop`.
    width : float
        w, relative to the centre, such as 0.1 of a dijet search.
    step : float
        In widths of a window: 1 makes windows that touch, 0.5 windows that overlap by half.
    outer_low, outer_high : float, GeV
        Where all sidebands end.
    mass : str

    Raises
    ------
    ConfigError
        No window fits.

    Examples
    --------
    >>> [w.name for w in scan(2000, 3000, width=0.2, outer_low=1500, outer_high=6000)]
    ['2000_2444.44', '2444.44_2987.65']
    """
    if not (0 < width < 2 and step > 0):
        raise ConfigError(
            f"a scan needs a relative width between 0 and 2 and a positive step, not {width:g} and {step:g}"
        )
    ratio = (1 + width / 2) / (1 - width / 2)
    edges: list[tuple[float, float]] = []
    low = float(start)
    while low * ratio <= stop * (1 + 1e-9) and len(edges) < 1000:
        edges.append((float(f"{low:.6g}"), float(f"{low * ratio:.6g}")))
        low *= 1 + (ratio - 1) * step
    if not edges:
        raise ConfigError(f"no window of the relative width {width:g} fits between {start:g} and {stop:g}")
    return tuple(Window(low=a, high=b, outer_low=outer_low, outer_high=outer_high, mass=mass) for a, b in edges)


PRESETS: dict[str, tuple[Window, ...]] = {
    "lhco": tuple(Window(low=2900 + 100 * k, high=3300 + 100 * k, outer_low=1500, outer_high=5500) for k in range(9)),
    "cms": scan(1800, 6000, width=0.15, outer_low=1500, outer_high=7000),
}
"""lhco: the nine windows of the LHC Olympics, 0.4 TeV wide in steps of 0.1; cms: those of a dijet search, 1.8 to 6 TeV."""


def windows_of(spec: str | Sequence[Window] | Window) -> tuple[Window, ...]:
    """Return windows by the name of a preset, or as they are.

    Raises
    ------
    ConfigError
        There is no such preset, no window, or two of the same name.
    """
    if isinstance(spec, str):
        if spec not in PRESETS:
            raise ConfigError(unknown_text("windows", spec, PRESETS))
        return PRESETS[spec]
    several = (spec,) if isinstance(spec, Window) else tuple(spec)
    names = [w.name for w in several]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"windows must be at least one, and differ in their edges; not {listed(names, 10) or 'none'}")
    return several


def mass_of(data: Skim, mass: str) -> Float64s:
    """Return the resonant variable of rows, (n,), from a column of x or from the spectators.

    Raises
    ------
    SkimError
        There is no such column.
    """
    columns: Any = data.columns if data.x.ndim == 2 else []
    if mass in columns:
        return np.asarray(data.x[:][:, columns.index(mass)], np.float64)
    if mass in data.spectators:
        return np.asarray(data.spectators[mass], np.float64)
    raise SkimError("the skim: " + unknown_text("mass", mass, [*columns, *data.spectators]))


def refuse_empty(window: Window, data: Skim, *, least: int) -> None:
    """Refuse a window in which there is too little to learn from.

    Parameters
    ----------
    window : Window
    data : Skim
    least : int
        Rows that the signal region and each sideband must have.

    Raises
    ------
    SkimError
        Names the window, the region, and the number of rows.
    """
    m = mass_of(data, window.mass)
    parts = {
        "signal region": (window.low, window.high),
        "lower sideband": (window.outer_low, window.low),
        "upper sideband": (window.high, window.outer_high),
    }
    for what, (low, high) in parts.items():
        n = int(((m >= low) & (m < high)).sum())
        if n < least:
            raise SkimError(
                f"window {window.name}: its {what}, {low:g} ≤ {window.mass} < {high:g}, has {n} rows, but needs at least {least}"
            )
