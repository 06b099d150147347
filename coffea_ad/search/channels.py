"""What the statistics are made with: binned channels with samples and their uncertainties, and pyhf workspaces of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad import files
from coffea_ad.errors import ConfigError
from coffea_ad.progress import say
from coffea_ad.typing import Float64s

__all__ = ["LUMI", "Channel", "Sample", "check", "floored", "workspace"]

LUMI = "lumi"
"""The source that is the luminosity: one parameter with its relative error, in the samples that have it."""
POI = "mu"


def _array(values: npt.ArrayLike) -> Float64s:
    return np.array(values, np.float64)


@dataclass(frozen=True)
class Sample:
    """One process in one channel.

    Attributes
    ----------
    nominal, variance : (n,)
        Expected events, and the variance of their statistics.
    signal : bool
        Whether the strength scales it.
    variations : {source: ((n,), (n,))}
        Expected events at +1σ and at −1σ of sources that change the shape.
    norm : {source: (down, up)}
        Factors at −1σ and at +1σ of sources that change the number of events only, such as (0.9, 1.1).
    """

    nominal: Float64s
    variance: Float64s
    signal: bool = False
    variations: Mapping[str, tuple[Float64s, Float64s]] = field(default_factory=dict)
    norm: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nominal", _array(self.nominal))
        object.__setattr__(self, "variance", _array(self.variance))
        object.__setattr__(self, "variations", {s: (_array(u), _array(d)) for s, (u, d) in self.variations.items()})


@dataclass(frozen=True)
class Channel:
    """One binned channel: what was observed, and what is expected of each sample.

    Attributes
    ----------
    name : str
        Letters, digits and _ . + - only, as those of samples and sources.
    edges : (n + 1,)
        Rising.
    observed : (n,)
        Events.
    samples : {name: Sample}
    unit, label : str
        Of the axis, such as GeV and m_T.

    Raises
    ------
    ConfigError
        Shapes differ, a number is not finite, a name cannot be one, or a source changes shape and number of one sample.

    Examples
    --------
    >>> background, signal = Sample([50, 20], [5, 2]), Sample([2, 8], [0, 0], signal=True)
    >>> Channel("sr", [1000, 1500, 2000], [48, 25], {"qcd": background, "svj": signal}, "GeV").expected()
    array([50., 20.])
    """

    name: str
    edges: Float64s
    observed: Float64s
    samples: Mapping[str, Sample]
    unit: str = ""
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", _array(self.edges))
        object.__setattr__(self, "observed", _array(self.observed))
        where = f"channel {self.name}"
        if len(self.edges) < 2 or not np.all(np.isfinite(self.edges)) or not np.all(np.diff(self.edges) > 0):
            raise ConfigError(f"{where}: its edges must be two numbers or more that rise")
        if not self.samples:
            raise ConfigError(f"{where}: there are no samples")
        sources = {s for sample in self.samples.values() for s in (*sample.variations, *sample.norm)}
        for name in (self.name, *self.samples, *sources):
            if not files.is_name(name):
                raise ConfigError(f"{where}: {name!r} is no name: letters, digits and _ . + - only")
        arrays = {"the observed events": self.observed}
        for name, sample in self.samples.items():
            arrays |= {f"sample {name}": sample.nominal, f"the variance of sample {name}": sample.variance}
            for source, pair in sample.variations.items():
                arrays |= {f"sample {name}, {source} {way}": a for way, a in zip(("up", "down"), pair, strict=True)}
                if source in sample.norm or source == LUMI:
                    raise ConfigError(f"{where}, sample {name}: source {source} is of shape and of number at once")
        for what, values in arrays.items():
            if values.shape != (self.bins,):
                raise ConfigError(f"{where}: {what} must be {self.bins} numbers, and has the shape {values.shape}")
            if not np.all(np.isfinite(values)):
                raise ConfigError(f"{where}: {what}, {self.bin_name(int(np.argmin(np.isfinite(values))))}: not finite")

    @property
    def bins(self) -> int:
        """The number of bins."""
        return len(self.edges) - 1

    def expected(self) -> Float64s:
        """Return the expected events of all samples that are no signal, (n,)."""
        background = [s.nominal for s in self.samples.values() if not s.signal]
        return np.asarray(np.sum(background, axis=0)) if background else np.zeros(self.bins)

    def asimov(self) -> Channel:
        """Return the channel with the expected background in the place of what was observed."""
        return replace(self, observed=self.expected())

    def bin_name(self, i: int) -> str:
        """Return how a sentence names a bin, such as `bin 1000 to 1500 GeV`."""
        return f"bin {self.edges[i]:g} to {self.edges[i + 1]:g}{' ' if self.unit else ''}{self.unit}"


def floored(channels: Sequence[Channel], floor: float) -> tuple[list[Channel], list[str]]:
    """Return channels that every fit can be made with, and what was changed.

    Bins of a sample below 0 become 0. Where the expected background is less than the floor, the largest sample is raised by
    what lacks, with an error as large as that.

    Parameters
    ----------
    channels : sequence of Channel
    floor : float
        Events, above 0.

    Raises
    ------
    ConfigError
        The floor is not above 0; a channel has no background.
    """
    if not floor > 0:
        raise ConfigError(f"the floor of the expected background is {floor:g}, and must be above 0")
    out, notes = [], []
    for channel in channels:
        samples = {}
        for name, sample in channel.samples.items():
            notes += [f"{sentence}: taken as 0" for sentence in _negative(channel, name, sample)]
            samples[name] = replace(
                sample,
                nominal=np.maximum(sample.nominal, 0.0),
                variance=np.maximum(sample.variance, 0.0),
                variations={s: (np.maximum(u, 0.0), np.maximum(d, 0.0)) for s, (u, d) in sample.variations.items()},
            )
        raised = replace(channel, samples=samples)
        lacking = np.maximum(floor - raised.expected(), 0.0)
        if np.any(lacking > 0):
            background = {name: s for name, s in samples.items() if not s.signal}
            if not background:
                raise ConfigError(f"channel {channel.name}: there is no background")
            largest = max(background, key=lambda name: float(background[name].nominal.sum()))
            for i in np.flatnonzero(lacking):
                b = raised.expected()[i]
                notes.append(
                    f"channel {channel.name}, sample {largest}, {channel.bin_name(int(i))}: raised by {lacking[i]:g}, since the expected background is {b:g}"
                )
            of = samples[largest]
            samples[largest] = replace(
                of,
                nominal=of.nominal + lacking,
                variance=of.variance + lacking**2,
                variations={s: (u + lacking, d + lacking) for s, (u, d) in of.variations.items()},
            )
            raised = replace(channel, samples=samples)
        out.append(raised)
    return out, notes


def _negative(channel: Channel, name: str, sample: Sample) -> list[str]:
    """Say which numbers of a sample are below 0."""
    arrays = {"": sample.nominal, " variance": sample.variance}
    for source, (up, down) in sample.variations.items():
        arrays |= {f" {source} up": up, f" {source} down": down}
    return [
        f"channel {channel.name}, sample {name}{what}, {channel.bin_name(int(i))}: {values[i]:g} {'events ' if what != ' variance' else ''}is below 0"
        for what, values in arrays.items()
        for i in np.flatnonzero(values < 0)
    ]


def check(channels: Sequence[Channel]) -> None:
    """Refuse what a fit would go wrong with, and not say: it is named by channel, sample and bin.

    Raises
    ------
    ConfigError
        A name is twice; there is no signal; a number is below 0; a bin without expected background; a factor is not above 0; the
        samples disagree on the luminosity.
    """
    names = [channel.name for channel in channels]
    if not channels or len(set(names)) < len(names):
        raise ConfigError("there must be channels, each with a name of its own")
    advice = "; merge bins, or give a floor"
    for channel in channels:
        for name, sample in channel.samples.items():
            for sentence in _negative(channel, name, sample):
                raise ConfigError(sentence + advice)
            for source, factors in sample.norm.items():
                if not all(np.isfinite(f) and f > 0 for f in factors):
                    raise ConfigError(
                        f"channel {channel.name}, sample {name}, {source}: the factors {factors} must be above 0"
                    )
        for i in np.flatnonzero(channel.observed < 0):
            raise ConfigError(f"channel {channel.name}, {channel.bin_name(int(i))}: {channel.observed[i]:g} observed")
        empty = np.flatnonzero(channel.expected() <= 0)
        for i in sorted(empty, key=lambda i: -channel.observed[i]):  # those with data first
            raise ConfigError(
                f"channel {channel.name}, {channel.bin_name(int(i))}: {channel.observed[i]:g} events are observed, and no "
                f"background is expected{advice}"
            )
    samples = [(c.name, n, s) for c in channels for n, s in c.samples.items()]
    if not any(s.signal and s.nominal.sum() > 0 for _, _, s in samples):
        raise ConfigError("no sample is a signal with expected events")
    _lumi(samples)


def _lumi(samples: Sequence[tuple[str, str, Sample]]) -> float | None:
    """Return the relative error of the luminosity, if any sample has one."""
    errors = {s.norm[LUMI] for _, _, s in samples if LUMI in s.norm}
    if len(errors) > 1:
        raise ConfigError(f"the samples have different errors of the luminosity: {sorted(errors)}")
    for down, up in errors:
        return 0.5 * (up - down)
    return None


def workspace(channels: Sequence[Channel], poi: str = POI, *, floor: float | None = None) -> dict[str, Any]:
    """Return the specification of a pyhf workspace.

    Sources of shape become `histosys`, those of number `normsys`, the source `lumi` the luminosity, and the statistics of all
    samples of a channel `staterror`; sources with one name are one parameter in all channels and samples. Before, `check` refuses
    what pyhf would compute a wrong limit with: a bin of −0.3 gives one without a word.

    Parameters
    ----------
    channels : sequence of Channel
    poi : str
        The signal strength, between 0 and 10.
    floor : float, optional
        Events: bins are raised as `floored` does, and what was changed is said.

    Returns
    -------
    dict
        As of JSON, valid by pyhf's schema.

    Raises
    ------
    ConfigError
        As `check` raises; a source is named as the strength.

    Examples
    --------
    >>> background, signal = Sample([50, 20], [5, 2]), Sample([2, 8], [0, 0], signal=True)
    >>> spec = workspace([Channel("sr", [1000, 1500, 2000], [48, 25], {"qcd": background, "svj": signal})])
    >>> [modifier["type"] for modifier in spec["channels"][0]["samples"][1]["modifiers"]]
    ['normfactor']
    """
    if floor is not None:
        channels, notes = floored(channels, floor)
        for note in notes:
            say(note)
    check(channels)
    samples = [(c.name, n, s) for c in channels for n, s in c.samples.items()]
    sources = {source for _, _, s in samples for source in (*s.variations, *s.norm)}
    if poi in sources:
        raise ConfigError(f"a source of uncertainty is named {poi}, as the signal strength is")
    parameters: list[dict[str, Any]] = [{"name": poi, "bounds": [[0.0, 10.0]], "inits": [1.0]}]
    error = _lumi(samples)
    if error is not None:
        bounds = [[max(1 - 5 * error, 1e-3), 1 + 5 * error]]
        parameters.append({"name": LUMI, "auxdata": [1.0], "sigmas": [error], "bounds": bounds, "inits": [1.0]})
    return {
        "channels": [
            {"name": c.name, "samples": [_sample(c.name, n, s, poi) for n, s in c.samples.items()]} for c in channels
        ],
        "observations": [{"name": c.name, "data": c.observed.tolist()} for c in channels],
        "measurements": [{"name": "search", "config": {"poi": poi, "parameters": parameters}}],
        "version": "1.0.0",
    }


def _sample(channel: str, name: str, sample: Sample, poi: str) -> dict[str, Any]:
    modifiers: list[dict[str, Any]] = []
    if sample.signal:
        modifiers.append({"name": poi, "type": "normfactor", "data": None})
    for source, (up, down) in sample.variations.items():
        data = {"hi_data": up.tolist(), "lo_data": down.tolist()}
        modifiers.append({"name": source, "type": "histosys", "data": data})
    for source, (lower, upper) in sample.norm.items():
        if source == LUMI:
            modifiers.append({"name": LUMI, "type": "lumi", "data": None})
        else:
            modifiers.append({"name": source, "type": "normsys", "data": {"hi": float(upper), "lo": float(lower)}})
    if np.any(sample.variance > 0):
        error = np.sqrt(sample.variance).tolist()
        modifiers.append({"name": f"staterror_{channel}", "type": "staterror", "data": error})
    return {"name": name, "data": sample.nominal.tolist(), "modifiers": modifiers}
