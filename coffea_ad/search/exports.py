"""Channels and limits for others: a datacard of combine with its shapes, and tables of HEPData."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import hist
import numpy as np
import numpy.typing as npt
import yaml

from coffea_ad import files
from coffea_ad.errors import ConfigError
from coffea_ad.progress import say
from coffea_ad.results.root_export import DATA, root_file
from coffea_ad.search.channels import Channel, Sample, check, floored
from coffea_ad.typing import Float64s

__all__ = ["LimitTable", "SpectrumTable", "datacard", "write_datacard", "write_hepdata"]

SHAPES = "shapes.root"


def datacard(channels: Sequence[Channel], *, mc_stats: float = 10) -> tuple[str, dict[str, hist.Hist]]:
    """Return the text of a datacard and its histograms by path, `channel/process` and `channel/process_sourceUp`.

    Signals have the numbers 0, −1, …. A source of number is `lnN`, down/up, a source of shape `shape`; one that is of shape in any
    sample is so in all, with scaled histograms. Samples without expected events in a channel are left out there.

    Parameters
    ----------
    channels : sequence of Channel
    mc_stats : float
        Threshold of autoMCStats, in effective events; signals are included.

    Raises
    ------
    ConfigError
        As `check` raises; two histograms would have one name; a sample is signal in one channel only.
    """
    check(channels)
    used = [(c, n, s) for c in channels for n, s in c.samples.items() if s.nominal.sum() > 0]
    numbers = _numbers([(n, s) for _, n, s in used])
    columns = [(c, n, s) for i in sorted(numbers, key=numbers.__getitem__) for c, n, s in used if n == i]
    columns.sort(key=lambda column: [c.name for c in channels].index(column[0].name))
    shaped = {source for _, _, s in columns for source in s.variations}
    sources = sorted({source for _, _, s in columns for source in s.norm} | shaped)
    rows = [
        ["bin", "", *(c.name for c, _, _ in columns)],
        ["process", "", *(n for _, n, _ in columns)],
        ["process", "", *(str(numbers[n]) for _, n, _ in columns)],
        ["rate", "", *(_number(s.nominal.sum()) for _, _, s in columns)],
    ]
    systematics = [
        [source, "shape" if source in shaped else "lnN", *(_cell(s, source, shaped) for _, _, s in columns)]
        for source in sources
    ]
    lines = [
        f"imax {len(channels)}",
        f"jmax {len(numbers) - 1}",
        f"kmax {len(sources)}",
        "-" * 40,
        *(f"shapes * {c.name} {SHAPES} {c.name}/$PROCESS {c.name}/$PROCESS_$SYSTEMATIC" for c in channels),
        "-" * 40,
        *_aligned(
            [["bin", *(c.name for c in channels)], ["observation", *(_number(c.observed.sum()) for c in channels)]]
        ),
        "-" * 40,
        *_aligned([*rows, *systematics]),
        "-" * 40,
        *(f"{c.name} autoMCStats {mc_stats:g} 1" for c in channels),
    ]
    return "\n".join(lines) + "\n", _histograms(channels, columns, shaped)


def _numbers(samples: Sequence[tuple[str, Sample]]) -> dict[str, int]:
    """Return the number of each process: of signals 0 and below, of backgrounds above."""
    signal: dict[str, bool] = {}
    for name, sample in samples:
        if signal.setdefault(name, sample.signal) != sample.signal:
            raise ConfigError(f"sample {name} is signal in one channel and background in another")
    signals = [n for n, is_signal in signal.items() if is_signal]
    backgrounds = [n for n, is_signal in signal.items() if not is_signal]
    return {n: -i for i, n in enumerate(signals)} | {n: i for i, n in enumerate(backgrounds, start=1)}


def _number(value: float) -> str:
    return f"{value:.9g}"


def _cell(sample: Sample, source: str, shaped: set[str]) -> str:
    if source in sample.norm and source not in shaped:
        return "/".join(_number(factor) for factor in sample.norm[source])
    return "1" if source in sample.norm or source in sample.variations else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _histograms(
    channels: Sequence[Channel], columns: Sequence[tuple[Channel, str, Sample]], shaped: set[str]
) -> dict[str, hist.Hist]:
    out = {f"{c.name}/{DATA}": _histogram(c, c.observed) for c in channels}

    def put(path: str, histogram: hist.Hist) -> None:
        if path in out:
            raise ConfigError(f"two histograms would be {path}: rename a sample or a source")
        out[path] = histogram

    for channel, name, sample in columns:
        path = f"{channel.name}/{name}"
        put(path, _histogram(channel, sample.nominal, sample.variance))
        scaled = {
            source: (sample.nominal * up, sample.nominal * down)
            for source, (down, up) in sample.norm.items()
            if source in shaped
        }
        for source, pair in {**sample.variations, **scaled}.items():
            for direction, values in zip(("Up", "Down"), pair, strict=True):
                ratio = np.divide(values, sample.nominal, out=np.zeros_like(values), where=sample.nominal > 0)
                put(f"{path}_{source}{direction}", _histogram(channel, values, sample.variance * ratio**2))
    return out


def _histogram(channel: Channel, values: Float64s, variance: Float64s | None = None) -> hist.Hist:
    axis = hist.axis.Variable(channel.edges, name="x", label=channel.label)
    if variance is None:
        out = hist.Hist(axis, storage=hist.storage.Double())
        out.view()[...] = values
        return out
    out = hist.Hist(axis, storage=hist.storage.Weight())
    out.view()["value"], out.view()["variance"] = values, variance
    return out


def write_datacard(
    channels: Sequence[Channel], folder: str | Path, *, name: str = "datacard", mc_stats: float = 10, floor: float | None = None
) -> list[str]:  # fmt: skip
    """Write `{name}.txt` and `shapes.root` for combine.

    Parameters
    ----------
    channels : sequence of Channel
    folder : path or fsspec URL
    name : str
    mc_stats : float
        Threshold of autoMCStats.
    floor : float, optional
        Events: bins are raised as `channels.floored` does, and what was changed is said.

    Returns
    -------
    list of str
        The files.

    Raises
    ------
    ConfigError
        As `datacard` raises.
    NotWritten
    """
    if floor is not None:
        channels, notes = floored(channels, floor)
        for note in notes:
            say(note)
    text, histograms = datacard(channels, mc_stats=mc_stats)
    content = {SHAPES: root_file(histograms), f"{name}.txt": text.encode()}
    for file, data in content.items():
        files.write(files.join(folder, file), data)
    return [files.join(folder, file) for file in content]


@dataclass(frozen=True)
class SpectrumTable:
    """A table of HEPData: observed and expected events of a channel, with the errors of the expectation by source.

    Attributes
    ----------
    name : str
        Of the table, at most 64 characters: letters, digits, spaces and _ . + - only.
    description : str
        The caption.
    channel : Channel
    observed : bool
        Whether the observed events are shown.
    """

    name: str
    description: str
    channel: Channel
    observed: bool = True


@dataclass(frozen=True)
class LimitTable:
    """A table of HEPData: limits against a mass.

    Attributes
    ----------
    name, description : str
        As of a `SpectrumTable`.
    mass : (n,)
    observed : (n,) or None
        None where nothing was observed yet.
    expected : (n,)
    bands : {standard deviations: ((n,), (n,))}
        Lower and upper ends, such as of 1 and 2.
    quantity, unit : str
        What is limited.
    mass_name, mass_unit : str
    """

    name: str
    description: str
    mass: npt.ArrayLike
    observed: npt.ArrayLike | None
    expected: npt.ArrayLike
    bands: Mapping[float, tuple[npt.ArrayLike, npt.ArrayLike]] = field(default_factory=dict)
    quantity: str = "95% CL upper limit on the cross section"
    unit: str = "pb"
    mass_name: str = "mass"
    mass_unit: str = "GeV"


def write_hepdata(tables: Sequence[SpectrumTable | LimitTable], folder: str | Path, *, comment: str = "") -> list[str]:
    """Write a submission of HEPData: `submission.yaml` and one file a table, checked by HEPData's validator before.

    Parameters
    ----------
    tables : sequence of SpectrumTable or LimitTable
    folder : path or fsspec URL
    comment : str
        Of the submission.

    Returns
    -------
    list of str
        The files.

    Raises
    ------
    ConfigError
        Two tables share a name, or a name cannot be one; numbers of a table are not finite or of different length; the validator
        refuses the submission.
    NotWritten
    """
    names = [table.name.lower().replace(" ", "_") for table in tables]
    for name, short in zip([t.name for t in tables], names, strict=True):
        if not files.is_name(short) or len(name) > 64 or names.count(short) > 1:
            raise ConfigError(
                f"table {name!r}: a name of its own with letters, digits, spaces and _ . + -, at most 64, is wanted"
            )
    if not tables:
        raise ConfigError("there are no tables to submit")
    from hepdata_lib import Submission

    with tempfile.TemporaryDirectory() as place:
        about = {"comment": comment, "data_license": Submission.get_license()}
        (Path(place) / "submission.yaml").write_text(yaml.dump(about, explicit_start=True), encoding="utf-8")
        for table in tables:
            content = _spectrum(table) if isinstance(table, SpectrumTable) else _limits(table)
            content.write_output(place)
        _validate(place)
        written = []
        for path in sorted(Path(place).iterdir()):
            files.write(files.join(folder, path.name), path.read_bytes())
            written.append(files.join(folder, path.name))
    return written


def _validate(folder: str) -> None:
    from hepdata_validator.full_submission_validator import FullSubmissionValidator

    validator = FullSubmissionValidator()
    if not validator.validate(directory=folder):
        messages = [f"{Path(file).name}: {m.message}" for file, of in validator.get_messages().items() for m in of]
        raise ConfigError(f"HEPData refuses the submission: {messages[0]}")


def _variable(name: str, unit: str, values: Any, **settings: Any) -> Any:
    from hepdata_lib import Variable

    variable = Variable(name, units=unit, is_independent=False, is_binned=False, **settings)
    variable.digits = 8  # significant; counts above 10⁵ would lose their last ones
    variable.values = values
    return variable


def _axis(name: str, unit: str, values: Any, *, binned: bool) -> Any:
    from hepdata_lib import Variable

    variable = Variable(name, units=unit, is_independent=True, is_binned=binned)
    variable.digits = 8
    variable.values = values
    return variable


def _error(label: str, pairs: Sequence[tuple[float, float]]) -> Any:
    from hepdata_lib import Uncertainty

    error = Uncertainty(label, is_symmetric=False)
    error.values = pairs
    return error


def _spectrum(table: SpectrumTable) -> Any:
    from hepdata_lib import Table

    channel = table.channel
    out = Table(table.name)
    out.description = table.description
    edges = channel.edges.tolist()
    out.add_variable(_axis(channel.label or "x", channel.unit, list(pairwise(edges)), binned=True))
    if table.observed:
        out.add_variable(_variable("Observed", "Events", channel.observed.tolist()))
    background = {n: s for n, s in channel.samples.items() if not s.signal}
    signals = {n: {n: s} for n, s in channel.samples.items() if s.signal}
    for name, samples in {**({"Expected background": background} if background else {}), **signals}.items():
        total = np.sum([s.nominal for s in samples.values()], axis=0)
        variable = _variable(name, "Events", total.tolist(), zero_uncertainties_warning=False)
        statistics = np.sqrt(np.sum([s.variance for s in samples.values()], axis=0))
        variable.add_uncertainty(_error("stat", [(-e, e) for e in statistics.tolist()]))
        for source in sorted({n for s in samples.values() for n in (*s.variations, *s.norm)}):
            shifts = np.sum([_shifts(s, source) for s in samples.values()], axis=0)
            variable.add_uncertainty(_error(source, [(d, u) for u, d in shifts.T.tolist()]))
        out.add_variable(variable)
    return out


def _shifts(sample: Sample, source: str) -> Float64s:
    """Return what +1σ and −1σ of a source add to a sample, (2, n)."""
    if source in sample.variations:
        return np.stack(sample.variations[source]) - sample.nominal
    down, up = sample.norm.get(source, (1.0, 1.0))
    return np.stack([sample.nominal * (up - 1), sample.nominal * (down - 1)])


def _limits(table: LimitTable) -> Any:
    from hepdata_lib import Table

    columns = {"mass": table.mass, "expected": table.expected}
    if table.observed is not None:
        columns["observed"] = table.observed
    for sigma, (low, high) in table.bands.items():
        columns |= {f"lower end at {sigma:g}σ": low, f"upper end at {sigma:g}σ": high}
    arrays = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    for name, values in arrays.items():
        if values.shape != arrays["mass"].shape or values.ndim != 1 or not np.all(np.isfinite(values)):
            raise ConfigError(f"table {table.name}: {name} must be as many finite numbers as there are masses")
    out = Table(table.name)
    out.description = table.description
    out.add_variable(_axis(table.mass_name, table.mass_unit, arrays["mass"].tolist(), binned=False))
    if "observed" in arrays:
        out.add_variable(_variable(f"Observed {table.quantity}", table.unit, arrays["observed"].tolist()))
    expected = _variable(f"Expected {table.quantity}", table.unit, arrays["expected"].tolist())
    for sigma in table.bands:
        ends = [arrays[f"{end} end at {sigma:g}σ"] - arrays["expected"] for end in ("lower", "upper")]
        expected.add_uncertainty(_error(f"{sigma:g} s.d.", list(zip(*(e.tolist() for e in ends), strict=True))))
    out.add_variable(expected)
    return out
