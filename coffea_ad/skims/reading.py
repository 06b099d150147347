"""Skims → rows with their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coffea_ad import files
from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.features.spec import FeatureConfig, FeatureSpec, feature_spec
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.skims.files import check_feature, manifest_of, metadata_of, refuse_other_columns, skim_files
from coffea_ad.skims.filters import Condition, Passing, column_of, conditions, filters_in_words
from coffea_ad.skims.rows import Keep, read_rows
from coffea_ad.skims.skim import Skim, WeightMode
from coffea_ad.splits import split_of
from coffea_ad.typing import Bools, Float32s, Float64s, Ints
from coffea_ad.weights import cross_section, has_cross_section, is_signal, n_effective

__all__ = ["load_skim"]


_KEYS = ("dataset", *EVENT_ID, "objectIdx")  # the last in skims of jets only
_TOO_MANY = 20  # rows of one event


def load_skim(
    folder: str | Path,
    feature: str | FeatureConfig | Sequence[str | FeatureConfig],
    options: Mapping[str, Any] | None = None,
    *,
    datasets: Sequence[str] = (),
    weights: WeightMode = "xsec",
    filters: Sequence[str | Sequence[Any]] = (),
    keep: Keep = "dense",
    out_of_core: str | Path | None = None,
) -> Skim:
    """Read a skim, a block of rows at a time.

    Parameters
    ----------
    folder : path or fsspec URL
        What `coffea-ad run skim_jets -o` wrote. Remote files are copied to the folder for temporary files, which `TMPDIR` names, once.
    feature, options : str, mapping
        The model's input; or several flat features, whose columns then stand side by side, with their options in themselves:
        `["dijet", FeatureConfig(name="rmm", options={…})]`.
    datasets : sequence of str
        All by default.
    weights : "xsec", "flat_pt" or "none"
        What a training draws by: genWeight · xsec / sumw; the same made flat in log pT; or 1. `Skim.event_weight` is the
        first of these in any case.
    filters : sequence of str or (column, operator, value)
        Rows to keep, such as `"met > 100"`, `"abs(eta) < 2"`, or `("met", ">", 100)` in pyarrow's form; of spectators, or of flat
        features, `"jet_substructure.girth > 0.1"`. All must hold.
    keep : "dense" or "auto"
        auto: where the skim stores a feature sparse, such as `rmm`, and dense rows would take more than 128 MB, they stay
        sparse in memory, and `x` is `rows.Rows`.
    out_of_core : path, optional
        A folder for the rows, which are then never in memory as a whole: `x` is `rows.Rows`. Weights, ids and spectators
        stay in memory. What is in the folder from before is replaced; it can be deleted after the training.

    Returns
    -------
    Skim
        Rows with undefined inputs are left out and counted in `provenance`.

    Raises
    ------
    SkimError
        The skim does not hold what is asked for, or no row passes the filters.
    """
    specs = _specs(feature, options)
    manifest = manifest_of(folder)
    contents = _Contents(specs, conditions(filters), weights != "none")
    for dataset, addresses in skim_files(folder, datasets).items():
        contents.sumw[dataset] = manifest[dataset]["sumw"]
        for path in addresses:
            contents.add(dataset, path)
    contents.refuse_mixtures(folder)
    contents.passing.refuse_nothing(folder)
    table, order = _sorted_by_event(contents, folder)
    disk = None if out_of_core is None else Path(out_of_core)
    x, finite = _rows(contents, order, keep, disk)
    spectators = {c: table[c].to_numpy() for c in table.column_names if c != "dataset"}
    dataset_of = np.array(table["dataset"].to_pylist(), dtype=np.str_)
    event_weight, meaning = _event_weights(spectators["genWeight"], dataset_of, contents)
    weight = _drawn_by(weights, event_weight, spectators, folder)
    if not finite.any():
        raise SkimError(f"{folder}: no row has all inputs of {' and '.join(s.key for s in specs)} defined")
    weight = _with_mean_one(weight, event_weight, finite, dataset_of, folder)
    split = split_of(*(spectators[name] for name in EVENT_ID))
    provenance = {
        "files": contents.hashes,
        "rows": contents.counts,
        "undefined_rows": int((~finite).sum()),
        "negative_weight_fraction": float(-weight[finite & (weight < 0)].sum() / np.abs(weight[finite]).sum()),
        "n_effective": n_effective(weight[finite]),
        "total_weight": float(event_weight[finite].sum()),
        "event_weight": meaning,
        "sumw": contents.sumw,
        "xsec": contents.xsec,
        "simulated": contents.simulated,
        "weights": weights,
        "filters": [list(f) for f in contents.filters],
        **({"rows_passing": contents.passing.rows} if contents.filters else {}),
        "asked": sorted(datasets),
        "signals": sorted(contents.signals),
        "collection": next(iter(contents.collections)),
        "flavours": sorted(contents.flavours),
        "selection": contents.selection,
    }
    rows = cast("Float32s", x)
    everything = Skim(rows, weight, dataset_of, split, spectators, specs, provenance, event_weight)
    return everything if finite.all() else everything.select(finite)


def _specs(
    feature: str | FeatureConfig | Sequence[str | FeatureConfig], options: Mapping[str, Any] | None
) -> tuple[FeatureSpec, ...]:
    """Return the features that are asked for.

    Raises
    ------
    SkimError
        There is none, or one of several has rows that are not flat, or options that stand apart.
    """
    if isinstance(feature, str):
        return (feature_spec(feature, dict(options or {})),)
    several = [feature] if isinstance(feature, FeatureConfig) else list(feature)
    asked = [FeatureConfig.model_validate(f) for f in several]
    if not asked or options:
        raise SkimError("several features are given with their options in themselves, and at least one")
    specs = tuple(feature_spec(f.name, f.options) for f in asked)
    shaped = [s.key for s in specs if len(s.row_shape) != 1]
    if shaped and len(specs) > 1:
        raise SkimError(f"rows of {shaped[0]} are not flat, and cannot stand beside others")
    return specs


def _rows(contents: _Contents, order: Ints, keep: Keep, disk: Path | None) -> tuple[Any, Bools]:
    """Read the features of all rows, side by side if they are several, and say which rows are finite in all."""
    parts = []
    for i, spec in enumerate(contents.specs):
        stored = [(path, prefixes[i]) for path, prefixes in contents.stored]
        place = disk if disk is None or len(contents.specs) == 1 else disk / spec.name
        parts.append(
            read_rows(stored, spec, contents.filters, order, keep if len(contents.specs) == 1 else "dense", place)
        )
    if len(parts) == 1:
        return parts[0]
    x = np.concatenate([np.asarray(values[:]) for values, _ in parts], axis=1)
    return x, np.logical_and.reduce([finite for _, finite in parts])


@dataclass
class _Contents:
    """What the files of a skim hold together, filled file by file; a file that contradicts those before it is refused."""

    specs: tuple[FeatureSpec, ...]
    filters: list[Condition]
    weighted: bool
    """Whether simulation needs a cross-section."""
    stored: list[tuple[Path, tuple[str, ...]]] = field(default_factory=list)
    """Local files, and what stands in each before the names of each feature's columns."""
    tables: list[pa.Table] = field(default_factory=list)
    """The columns beside the features, of each file."""
    dataset_of_rows: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    sumw: dict[str, float] = field(default_factory=dict)
    xsec: dict[str, float] = field(default_factory=dict)
    simulated: dict[str, bool] = field(default_factory=dict)
    generator_weight: dict[str, str] = field(default_factory=dict)
    """By dataset: whether genWeight is as it was stored, or its sign."""
    signals: set[str] = field(default_factory=set)
    flavours: set[str] = field(default_factory=set)
    collections: set[str] = field(default_factory=set)
    selection: dict[str, Any] = field(default_factory=dict)
    passing: Passing = field(init=False)

    def __post_init__(self) -> None:
        """Begin to count what filters leave."""
        self.passing = Passing(self.filters)

    def add(self, dataset: str, path: str) -> None:
        """Read a file but for its features."""
        local = files.local_copy(path)
        schema, metadata = metadata_of(path, local)
        self.stored.append((local, tuple(check_feature(path, schema, metadata, spec) for spec in self.specs)))
        self._add_metadata(dataset, path, metadata)
        with local.open("rb") as file:
            self.hashes[f"{dataset}/{local.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
        table = self._spectators(dataset, path, local, schema, metadata["features"])
        refuse_other_columns(path, table, self.tables[0] if self.tables else table)
        self.tables.append(table)
        self.dataset_of_rows += [dataset] * len(table)
        self.counts[dataset] = self.counts.get(dataset, 0) + len(table)

    def _add_metadata(self, dataset: str, path: str, metadata: Mapping[str, Any]) -> None:
        """Take what a file says of itself."""
        self.flavours.add(metadata["flavour"])
        if self.selection and metadata["selection"] != self.selection:
            raise SkimError(f"{path}: this file was skimmed with another selection than those before it")
        self.selection = metadata["selection"]
        self.collections.add(metadata.get("collection", self.selection.get("collection", "FatJet")))
        self.simulated[dataset] = metadata["is_mc"]
        sort = metadata.get("generator_weight", "stored")
        if self.generator_weight.setdefault(dataset, sort) != sort:
            raise SkimError(
                f"{path}: its genWeight is {sort}, and {self.generator_weight[dataset]} in the files before it; skim again"
            )
        self.signals |= {dataset} if is_signal(metadata) else set()
        if metadata["is_mc"] and (self.weighted or has_cross_section(metadata)):
            self.xsec[dataset] = cross_section(dataset, metadata)

    def _spectators(self, dataset: str, path: str, local: Path, schema: pa.Schema, keys: Iterable[str]) -> pa.Table:
        """Return the columns of a file that belong to no feature, of the rows that pass the filters."""
        prefixes = tuple(f"{key}." for key in keys)
        names = [c for c in schema.names if not c.startswith(prefixes)]
        asked = [column_of(f) for f in self.filters]
        cannot = f"{path}: the filter {', '.join(filters_in_words(self.filters))} cannot be applied"
        for column in asked:
            if column not in schema.names:
                known = [c.name for c in schema if not pa.types.is_list(c.type)]
                raise SkimError(f"{cannot}: " + unknown_text("column", column, known))
        try:
            table = pq.read_table(local, columns=list(dict.fromkeys([*names, *asked])))
            return self.passing.passed(dataset, table).select(names)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError, TypeError) as error:
            raise SkimError(f"{cannot} ({error})") from None

    def refuse_mixtures(self, folder: str | Path) -> None:
        """Refuse a skim without files, or with rows that cannot be read together."""
        if not self.tables:
            raise SkimError(f"{folder}: there are no files in this skim")
        if len(self.collections) > 1:
            raise SkimError(
                f"{folder}: its rows are of several collections: {', '.join(sorted(self.collections))}; choose datasets"
            )
        if len(set(self.simulated.values())) > 1 and self.weighted:
            raise SkimError(f"{folder}: data and simulation have no common weights; choose datasets, or weights=none")


def _sorted_by_event(contents: _Contents, folder: str | Path) -> tuple[pa.Table, Ints]:
    """Return all spectators and the dataset of every row, by event, and where the rows stood in the files.

    File names carry the inputs' random ids: sorted by event, the same events give the same training.
    """
    names = contents.tables[0].column_names
    table = pa.concat_tables([t.replace_schema_metadata(None).select(names) for t in contents.tables])
    table = table.append_column("dataset", pa.array(contents.dataset_of_rows, pa.string()))
    keys = [(k, "ascending") for k in _KEYS if k in table.column_names]
    order = pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)
    table = table.take(order)
    ends = [pc.min_max(table[k]).as_py() for k in EVENT_ID]
    if len(table) >= _TOO_MANY and all(end["min"] == end["max"] for end in ends):
        raise SkimError(
            f"{folder}: all {len(table)} rows have the same run, luminosityBlock and event, by which training and validation "
            "rows are told apart; give the events numbers of their own"
        )
    return table, order


def _event_weights(
    generated: npt.NDArray[Any], dataset: npt.NDArray[np.str_], contents: _Contents
) -> tuple[Float64s, str]:
    """Return genWeight · xsec / sumw, or 1 in data, with what it is in words; 1 where datasets have no common scale."""
    simulated, xsec, sumw = contents.simulated, contents.xsec, contents.sumw
    for name in (d for d, mc in simulated.items() if mc):
        largest = np.abs(generated[dataset == name]).sum(dtype=np.float64)
        if abs(sumw[name]) <= 1e-9 * largest or sumw[name] == 0:
            raise SkimError(
                f"dataset {name}: its generator weights sum to {sumw[name]:g}, so it cannot be normalised; leave it out"
            )
    lacking = sorted(d for d, mc in simulated.items() if mc and d not in xsec)
    if not any(simulated.values()):
        return np.ones(len(dataset)), "1 (data)"
    if not all(simulated.values()):
        return np.ones(len(dataset)), "1 for every row, since data and simulation have no common weights"
    if lacking and len(simulated) > 1:
        return np.ones(len(dataset)), f"1 for every row, since there is no cross-section of {', '.join(lacking)}"
    scale = {d: xsec.get(d, 1.0) / sumw[d] for d in simulated}
    names, place = np.unique(dataset, return_inverse=True)
    factor = np.array([scale[str(d)] for d in names], np.float64)[place]
    of_signs = sorted(d for d, sort in contents.generator_weight.items() if sort == "sign")
    word = "genWeight" if not of_signs else "sign(genWeight)"
    if of_signs and set(simulated) - set(of_signs):
        word = f"genWeight (its sign in {', '.join(of_signs)})"
    return generated.astype(np.float64) * factor, f"{word} / sumw" if lacking else f"{word} · xsec / sumw"


def _drawn_by(
    weights: WeightMode, event_weight: Float64s, spectators: Mapping[str, npt.NDArray[Any]], folder: str | Path
) -> Float64s:
    """Return what a training draws rows by."""
    if weights == "none":
        return np.ones(len(event_weight))
    if weights == "xsec":
        return event_weight
    if "pt" not in spectators:
        raise SkimError(f"{folder}: weights=flat_pt needs the pT of jets, which a skim of events has not")
    return _flatten_pt(spectators["pt"], event_weight)


def _with_mean_one(
    weight: Float64s, event_weight: Float64s, finite: Bools, dataset: npt.NDArray[np.str_], folder: str | Path
) -> Float64s:
    """Scale weights so that the mean of |w| over rows with finite inputs is 1."""
    unweighted = finite & ~(np.isfinite(event_weight) & np.isfinite(weight))
    if unweighted.any():
        listed = ", ".join(np.unique(dataset[unweighted]).tolist())
        raise SkimError(
            f"{folder}: the weight of {unweighted.sum()} of {len(weight)} rows is no finite number, of {listed}"
        )
    scale = np.abs(weight[finite]).mean()
    if not scale > 0:
        raise SkimError(f"{folder}: all rows weigh 0")
    return np.asarray(weight / scale)


def _flatten_pt(pt: npt.NDArray[Any], weight: Float64s) -> Float64s:
    """Reweight so that log pT is flat between its 1 % and 99 % quantiles."""
    low, high = np.quantile(pt, [0.01, 0.99])
    if not 0 < low < high:
        return weight  # nothing to flatten
    edges = np.geomspace(float(low), float(high), 31)
    bin_of = np.clip(np.digitize(pt, edges) - 1, 0, len(edges) - 2)
    content = np.bincount(bin_of, np.abs(weight), len(edges) - 1)
    return np.asarray(weight / np.maximum(content[bin_of], 1e-300))
