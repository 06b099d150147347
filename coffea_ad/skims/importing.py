"""Public benchmark files → a skim: the same folder that a run of a processor writes, read by `load_skim`.

Events are numbered through, all in run 1, since the files do not number them, or not uniquely: the hash of these ids splits
them into training, validation and test. What a dataset's events weigh together is taken for its cross-section, so that
every event counts as much as its file says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from coffea_ad import features, files
from coffea_ad.errors import ConfigError, SkimError, UnknownName
from coffea_ad.features.spec import FeatureConfig, feature_spec
from coffea_ad.progress import progress
from coffea_ad.skims.blocks import Reader
from coffea_ad.skims.public_dijets import cathode_array, olympics_features, olympics_particles
from coffea_ad.skims.public_objects import adc_table, dark_machines
from coffea_ad.skims.writing import write_manifest, write_rows
from coffea_ad.versions import versions

__all__ = ["FORMATS", "Format", "skim_from"]

_PER_BLOCK = 1000  # events of a luminosity block


@dataclass(frozen=True)
class Format:
    """A format of public files.

    Attributes
    ----------
    title : str
        One line for the help.
    read : Reader
    feature : str
        What the rows of the skim are.
    options : {option: value}
        Where they differ from the feature's usual ones.
    """

    title: str
    read: Reader
    feature: str
    options: Mapping[str, Any] = field(default_factory=dict)


FORMATS: dict[str, Format] = {
    "lhco": Format("LHC Olympics, features of two jets: HDF5 of pandas", olympics_features, "dijet", {"R0": 1.0}),
    "lhco-raw": Format("LHC Olympics, 700 particles: HDF5 of pandas", olympics_particles, "dijet", {"R0": 1.0}),
    "lhco-npy": Format("LHC Olympics, arrays of CATHODE: .npy", cathode_array, "dijet", {"R0": 1.0}),
    "darkmachines": Format(
        "Dark Machines, objects: CSV with semicolons", dark_machines, "event_objects", {"leading_lepton_pt_min": 0.0}
    ),
    "adc2021": Format("ADC 2021, 19 objects: HDF5", adc_table, "event_objects"),
}


@dataclass
class _Dataset:
    """What was read of one dataset, in the order of the files."""

    tables: dict[int, list[pa.Table]] = field(default_factory=dict)
    """By the number of the file."""
    sumw: float = 0.0
    events: int = 0


def skim_from(
    paths: Sequence[str | Path],
    format: str,  # noqa: A002  the word of the command line
    output: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    signals: Sequence[str] = ("signal",),
    events: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Turn public benchmark files into a skim.

    Parameters
    ----------
    paths : sequence of path or fsspec URL
    format : str
        A key of `FORMATS`.
    output : path or fsspec URL
        Folder of the skim, new or to be replaced.
    options : mapping, optional
        Options of the feature, beside those that `FORMATS` has.
    dataset : str, optional
        Name of events that have neither label nor process; that of the file by default.
    signals : sequence of str
        Datasets that are signals.
    events : int, optional
        At most so many of each file.

    Returns
    -------
    dict
        By dataset: events, sumw, undefined (rows that `load_skim` leaves out), is_signal.

    Raises
    ------
    UnknownName, ConfigError
    SkimError
        A file has not the format, or there are no events.

    References
    ----------
    G. Kasieczka et al., "The LHC Olympics 2020", arXiv:2101.08320; T. Aarrestad et al., "The Dark Machines anomaly score
    challenge", arXiv:2105.14027; E. Govorkova et al., "LHC physics dataset for unsupervised new physics detection at 40 MHz",
    arXiv:2107.02157; A. Hallin et al., "Classifying anomalies through outer density estimation", arXiv:2109.00546.

    Examples
    --------
    >>> import tempfile
    >>> from coffea_ad.skims import load_skim
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "few.npy", np.array([[3.4, 0.1, 0.4, 0.5, 0.6, 1.0], [3.5, 0.2, 0.1, 0.8, 0.7, 0.0]] * 9))
    >>> made = skim_from([folder / "few.npy"], "lhco-npy", folder / "skims")
    >>> {name: facts["events"] for name, facts in sorted(made.items())}
    {'background': 9, 'signal': 9}
    >>> load_skim(folder / "skims", "dijet", {"R0": 1.0}).x[0].round(1).tolist()
    [3500.0, 200.0, 100.0, 0.800000011920929, 0.699999988079071]
    """
    if format not in FORMATS:
        raise UnknownName.of("format", format, FORMATS)
    if not paths:
        raise ConfigError("no files are named from which a skim could be made")
    if events is not None and events < 1:
        raise ConfigError(f"events is {events}, but must be at least 1")
    if dataset is not None and not files.is_name(dataset):
        raise ConfigError(f"dataset {dataset!r}: a name has letters, digits and . _ + - only")
    form = FORMATS[format]
    asked = {**form.options, **(options or {})}
    # resolved before the first file is opened, so that a wrong option costs no time
    config = FeatureConfig(name=form.feature, options=asked)
    features.get(config.name).resolve(config.options)
    feature_spec(config.name, config.options)
    datasets: dict[str, _Dataset] = {}
    sources = _read(paths, form, config, datasets, dataset, events)
    if not datasets:
        raise SkimError(f"{', '.join(map(str, paths))}: there are no events")
    unknown = [name for name in signals if name not in datasets and tuple(signals) != ("signal",)]
    if unknown:
        raise UnknownName.of("dataset", unknown[0], datasets)
    return _write(output, datasets, sources, config, format, signals)


def _read(
    paths: Sequence[str | Path],
    form: Format,
    config: FeatureConfig,
    datasets: dict[str, _Dataset],
    name: str | None,
    stop: int | None,
) -> list[dict[str, Any]]:
    """Read all files into `datasets`, and return what they are."""
    sources, number = [], 0
    with progress("read", len(paths)) as advance:
        for i, address in enumerate(map(str, paths)):
            if not files.exists(address):
                raise SkimError(f"{address}: there is no such file")
            local = files.local_copy(address)
            of_file = name if name is not None else files.as_name(Path(address).stem)
            n_before = number
            for block in form.read(local, address, config, stop):
                n = len(block.weight)
                table = _with_ids(block.columns, number, block.weight)
                number += n
                labels = np.where(block.dataset == "", of_file, block.dataset)
                for label in np.unique(labels):
                    of_label = labels == label
                    entry = datasets.setdefault(str(label), _Dataset())
                    entry.tables.setdefault(i, []).append(table.filter(pa.array(of_label)))
                    entry.sumw += float(block.weight[of_label].sum())
                    entry.events += int(of_label.sum())
            with local.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sources.append({"file": address, "sha256": digest, "events": number - n_before})
            advance(1)
    return sources


def _with_ids(columns: Mapping[str, Any], start: int, weight: Any) -> pa.Table:
    event = np.arange(start, start + len(weight), dtype=np.uint64)
    ids = {
        "run": np.ones(len(weight), np.uint32),
        "luminosityBlock": (1 + event // _PER_BLOCK).astype(np.uint32),
        "event": event + np.uint64(1),
        "genWeight": np.asarray(weight, np.float64),
    }
    return pa.table({**ids, **columns})


def _write(
    output: str | Path,
    datasets: Mapping[str, _Dataset],
    sources: Sequence[Mapping[str, Any]],
    config: FeatureConfig,
    format_name: str,
    signals: Sequence[str],
) -> dict[str, dict[str, Any]]:
    output = files.absolute(output)  # the manifest names its files from the folder on
    out, manifest = {}, files.join(output, "manifest.json")
    if files.exists(manifest):
        files.remove(manifest)  # of the skim that is replaced; its files are then no part of any
    outputs: dict[str, dict[str, Any]] = {}
    for name, entry in datasets.items():
        paths, undefined = set(), 0
        for i, tables in entry.tables.items():
            table = pa.concat_tables(tables)
            undefined += _undefined(table, config)
            record = {
                "dataset": name,
                "filename": sources[i]["file"],
                "sha256": sources[i]["sha256"],
                "format": format_name,
                "sumw": float(np.sum(table["genWeight"].to_numpy())),
                "events": len(table),
                "is_mc": True,
                "is_signal": name in signals,
                "flavour": f"public file, {format_name}",
                "selection": {"format": format_name},
                "xsec": entry.sumw,
            }
            file_name = f"{sources[i]['sha256'][:32]}-{i}-{len(table)}.parquet"
            paths.add(write_rows(files.join(output, name, file_name), table, record, [config]))
        facts = {"events": entry.events, "undefined": undefined, "is_signal": name in signals}
        outputs[name] = {"files": paths, **facts}
        out[name] = {**facts, "sumw": entry.sumw}
    report = SimpleNamespace(
        datasets={name: {"sumw": entry.sumw} for name, entry in datasets.items()},
        outputs=outputs,
        config={
            "format": format_name,
            "feature": config.name,
            "options": dict(config.options),
            "sources": list(sources),
        },
        versions=versions("coffea-ad", "numpy", "pyarrow", "h5py", "fastjet"),
    )
    write_manifest(report, output)
    return out


def _undefined(table: pa.Table, config: FeatureConfig) -> int:
    """Return how many rows are undefined: null where a feature is stored sparse, else NaN."""
    columns = [name for name in table.column_names if name.startswith(f"{config.key}.")]
    if columns[0].endswith(".index"):
        return int(table[columns[0]].null_count)
    return int(np.isnan(np.stack([table[name].to_numpy() for name in columns], axis=1)).any(axis=1).sum())
