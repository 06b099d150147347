"""What a search is told: spectra, functions, signals, pseudo-experiments."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.search.families import FAMILIES
from coffea_ad.search.hunting import HuntSettings, Statistic
from coffea_ad.search.reading import Source

__all__ = ["AbcdConfig", "FitConfig", "LimitConfig", "SearchConfig"]

Names = tuple[str, ...]
Width = Annotated[float, Field(ge=0, le=0.5)]


class FitConfig(Frozen):
    """The function that describes the background."""

    family: str = Field("dijet", description="of functions: " + ", ".join(FAMILIES))
    orders: tuple[int, int] | None = Field(
        None,
        description="fewest and most parameters, between which the F-test decides (default: 3 to the most of the family)",
    )
    low: float | None = Field(
        None, gt=0, description="GeV, where the fit begins (default: as low as it describes the spectrum)"
    )
    high: float | None = Field(None, gt=0, description="GeV, where it ends (default: with the axis, or at √s)")
    envelope: tuple[str, ...] = Field(
        ("dijet", "cube_root", "ua2", "exponential"),
        description="families over which the strength of the largest excess is profiled; empty: none",
    )
    p_min: float = Field(0.05, ge=0, le=1, description="p-value of the fit, for where it begins")

    @model_validator(mode="after")
    def _possible(self) -> FitConfig:
        for name in (self.family, *self.envelope):
            if name not in FAMILIES:
                raise ConfigError(str(UnknownName.of("family of functions", name, FAMILIES)))
        low, high = FAMILIES[self.family].orders
        if self.orders is not None and not low <= self.orders[0] <= self.orders[1] <= high:
            raise ConfigError(
                f"orders: {self.family} has {low} to {high} parameters, not {self.orders[0]} to {self.orders[1]}"
            )
        if self.high is not None and self.low is None:
            raise ConfigError("high: say also where the fit begins, with low")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ConfigError(f"low {self.low:g} is not below high {self.high:g}")
        return self


class LimitConfig(Frozen):
    """Upper limits at 95 % CLs."""

    widths: tuple[Width, ...] = Field((0.05,), description="σ/m of Gaussian signals; empty: no limits on these")
    masses: tuple[float, ...] = Field((), description="GeV (default: at equal ratios, up to the last event)")
    places: int = Field(8, ge=1, description="so many masses, where none are said")
    signals: bool = Field(True, description="limits on the simulated signals of the results, too")
    spurious: bool = Field(
        False, description="an error on the events of the signal as large as what the function makes up in simulation"
    )
    lumi_error: float = Field(0.0, ge=0, lt=1, description="relative error of the luminosity, for cross-sections")
    background_error: float = Field(
        0.2, ge=0, le=1, description="relative error of the simulated background, for visible cross-sections of regions"
    )
    injected: str | None = Field(
        None,
        description="file injected.json of the recipe resonant: limits in its windows, with the efficiency at the strength that is tested",
    )


class AbcdConfig(Frozen):
    """An estimate by two variables: a tag, and a cut in another one."""

    observable: str = Field(description="the second variable, with one entry for each event")
    region: str = Field(description="the tagged region, such as loose_2tag")
    cut: float = Field(description="an edge of the observable's axis")
    control: str | None = Field(
        None, description="the untagged region (default: that of 0 tags, or all events outside)"
    )
    subtract: dict[str, float] = Field(
        {}, description="simulated processes that do not follow it, with their relative errors"
    )
    correct: bool = Field(False, description="multiply by the closure of simulation")
    unblind: bool = Field(False, description="look at the data in the region above the cut")


class SearchConfig(Frozen):
    """A search for bumps in the spectra of a results folder."""

    observables: Names = Field(
        (), description="masses (default: dijet, transverse and all two-body masses that were filled)"
    )
    regions: Names = Field((), description="default: all but those without a tag")
    source: Source | None = Field(
        None,
        description="data; pseudo-data, of simulated events; smooth, of functions fitted to these (default: data if there are any, else pseudo-data)",
    )
    era: str | None = Field(None, description="one only (default: all are added)")
    sqrt_s: float | None = Field(None, gt=0, description="GeV (default: by the metadata)")
    resolution: float = Field(
        0.0, ge=0, le=0.5, description="σ(m)/m: bins are merged to it, and signals are as wide at least"
    )
    fit: FitConfig = FitConfig()
    statistic: Statistic = Field(
        "likelihood", description="the one that counts: likelihood (√q₀ of Gaussian signals) or windows (BumpHunter)"
    )
    widths: tuple[Width, ...] = Field((0.0, 0.03, 0.05, 0.1, 0.15), min_length=1, description="σ/m of Gaussian signals")
    exclude: float = Field(
        3.0,
        gt=0,
        description="local significance from which the window of the largest excess does not count when the number of parameters is selected",
    )
    sliding: float | None = Field(
        None,
        gt=0,
        description="fit each signal in so many of its widths on both sides only (default: in the whole range)",
    )
    spurious: bool = Field(
        True,
        description="fit signals to the simulated background, where the results have any: what is seen there, the function makes up",
    )
    toys: int = Field(1000, ge=0, description="pseudo-experiments; 0: no global p-value")
    seed: int = Field(1, ge=0)
    limits: LimitConfig = LimitConfig()
    abcd: tuple[AbcdConfig, ...] = Field((), description="regions without a bump: list of {observable, region, cut}")
    exports: bool = Field(True, description="write hepdata/, workspaces/ and datacards/, too")
    explore_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="look at this part of the events first, and at the rest only where it has its largest excesses",
    )
    explore_places: int = Field(3, ge=1, description="so many of them")

    @property
    def settings(self) -> HuntSettings:
        """How spectra are fitted and scanned."""
        interval = None if self.fit.low is None else (self.fit.low, self.fit.high or float("inf"))
        return HuntSettings(
            family=self.fit.family, orders=self.fit.orders, interval=interval, minimum=self.fit.p_min, widths=self.widths,
            resolution=self.resolution, exclude=self.exclude, sliding=self.sliding, toys=self.toys, seed=self.seed,
        )  # fmt: skip
