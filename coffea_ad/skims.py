"""Skims → rows for training and calibration, with weights and a split that follows the events."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from coffea_ad import features, files
from coffea_ad.card import FeatureSpec, ModelCard, feature_spec
from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.rows import Keep, Rows, read_rows, stored_columns
from coffea_ad.typing import Bools, Float32s, Float64s, Ints
from coffea_ad.weights import cross_section, has_cross_section, is_signal, n_effective, split_of

__all__ = [
    "SKIM_KEY",
    "Skim",
    "WeightMode",
    "background",
    "background_datasets",
    "load_skim",
    "model_rows",
    "rows_in_words",
    "skim_files",
]

SKIM_KEY = b"coffea_ad"
_KEYS = ("dataset", "run", "luminosityBlock", "event", "objectIdx")  # the last in skims of jets only
WeightMode = Literal["xsec", "flat_pt", "none"]


@dataclass(frozen=True)
class Skim:
    """Rows of a skim.

    Attributes
    ----------
    x : (n, *shape) float32
        Model inputs; all finite. Features that the skim stores sparse are dense here, 4 bytes a number, unless `load_skim`
        was asked otherwise: then this is `rows.Rows`, which gives float32 arrays for a slice, places or a mask.
    weight : (n,) float64
        What a training draws by, after `weights`; the mean of |w| is 1. Rows with a negative weight are not drawn.
    dataset : (n,) str
    split : (n,) str
        "train", "validation" or "test", by event.
    bystanders : {name: (n,)}
        The other columns of the skim, keys included.
    feature : FeatureSpec
    provenance : dict
        Files with hashes, counts, weights.
    event_weight : (n,) float64
        genWeight · xsec / sumw with its sign, pb, or 1 in data, whatever `weights` is: what calibration, regions, quantiles
        and evaluation count with. Rows that come from no skim may do without; then it is `weight`.
    """

    x: Float32s
    weight: Float64s
    dataset: npt.NDArray[np.str_]
    split: npt.NDArray[np.str_]
    bystanders: dict[str, npt.NDArray[Any]]
    feature: FeatureSpec
    provenance: dict[str, Any]
    event_weight: Float64s = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Take `weight` where no event weights are given."""
        if vars(self)["event_weight"] is None:
            object.__setattr__(self, "event_weight", self.weight)

    def select(self, mask: Bools | Ints) -> Skim:
        """Return some rows, by a mask or by their places; of `Rows` none is read."""
        x: Any = self.x
        x = x.select(mask) if isinstance(x, Rows) else x[mask]
        return replace(
            self, x=x, weight=self.weight[mask], dataset=self.dataset[mask], split=self.split[mask],
            bystanders={k: v[mask] for k, v in self.bystanders.items()}, event_weight=self.event_weight[mask],
        )  # fmt: skip

    def part(self, *names: str) -> Skim:
        """Return the rows of some splits."""
        return self.select(np.isin(self.split, names))


_EVENT_IDS = ("event", "luminosityBlock", "run")
_TOO_MANY = 20  # rows of one event


class _Listed(BaseModel):
    """What a manifest says of a dataset."""

    files: list[StrictStr]
    sumw: float = Field(strict=True, allow_inf_nan=False)


class _Stored(BaseModel):
    """What a file says of a feature."""

    columns: list[StrictStr]
    options: dict[str, Any]
    version: StrictInt


class _Facts(BaseModel):
    """What a file says of itself."""

    features: dict[str, _Stored]
    selection: dict[str, Any]
    flavour: StrictStr
    is_mc: StrictBool
    collection: StrictStr = "FatJet"


def _checked(kind: Any, content: Any, place: str) -> Any:
    """Return the content as it is, if it has the form of what a skim writes."""
    try:
        TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SkimError(f"{place}: this is not what a skim writes ({where}: {first['msg']})") from None
    return content


def _manifest(folder: str | Path) -> dict[str, Any]:
    nothing = SkimError(f"{folder}: there is no skim here, or it did not finish (no manifest.json)")
    path = files.join(folder, "manifest.json")
    if not files.exists(path):
        raise nothing
    try:
        listed = json.loads(files.read(path))["datasets"]
    except (ValueError, KeyError, TypeError):
        raise nothing from None
    return dict(_checked(dict[str, _Listed], listed, path))


def _conditions(filters: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return filters with their numbers; in YAML, 1e9 without a dot is a text."""
    if not isinstance(filters, (list, tuple)) or any(not isinstance(f, (list, tuple)) or len(f) != 3 for f in filters):
        raise SkimError(f"filters are lists of a column, an operator and a value, but not {filters!r}")
    return [(column, operator, _number(value)) for column, operator, value in filters]


def _number(value: Any) -> Any:
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def skim_files(folder: str | Path, datasets: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the parquet files of each dataset in a skim folder, as its manifest lists them.

    Other files that may lie there, from inputs that were replaced since, are not part of the skim.

    Raises
    ------
    SkimError
        There is no finished skim, it has not these datasets, or a file is missing.
    """
    manifest = _manifest(folder)
    for name in datasets:
        if name not in manifest:
            raise SkimError(f"{folder}: " + unknown_text("dataset", name, manifest))
    listed = {name: [files.join(folder, f) for f in manifest[name]["files"]] for name in (datasets or sorted(manifest))}
    for path in (p for paths in listed.values() for p in paths):
        if not files.is_url(path) and not files.exists(path):  # a remote one says so when it is read
            raise SkimError(f"{path}: the manifest lists this file, but it is not there")
    return listed


def _metadata(path: str, local: Path) -> tuple[pa.Schema, dict[str, Any]]:
    try:
        schema = pq.read_schema(local)
    except (pa.ArrowInvalid, OSError) as error:
        raise SkimError(f"{path}: not a readable parquet file ({error})") from None
    if not schema.metadata or SKIM_KEY not in schema.metadata:
        raise SkimError(f"{path}: this parquet file was not made by a skim of coffea-ad")
    try:
        facts = json.loads(schema.metadata[SKIM_KEY])
    except ValueError:
        raise SkimError(f"{path}: what it says of itself is damaged") from None
    _check_columns(path, schema)
    return schema, _checked(_Facts, facts, path)


def _check_columns(path: str, schema: pa.Schema) -> None:
    """Refuse a file without weights or ids of its events, or with something else than numbers."""
    needed = (*reversed(_EVENT_IDS), "genWeight")
    lacking = [name for name in needed if name not in schema.names]
    if lacking:
        raise SkimError(f"{path}: it has no column {', '.join(lacking)}; skim again")
    for column in schema:
        sort = column.type.value_type if pa.types.is_list(column.type) else column.type
        number = pa.types.is_integer(sort) or (column.name not in _EVENT_IDS and pa.types.is_floating(sort))
        if not number and not (column.name not in needed and pa.types.is_boolean(sort)):
            raise SkimError(f"{path}: its column {column.name} holds {column.type}; skim again")


def _refuse_other_columns(path: str, table: pa.Table, first: pa.Table) -> None:
    """Refuse a file whose columns beside the features are not those of the file before it."""
    here, before = ({c.name: str(c.type) for c in t.schema} for t in (table, first))
    for name in (n for n in {**before, **here} if here.get(n) != before.get(n)):
        raise SkimError(
            f"{path}: its column {name} is {here.get(name, 'not there')}, but {before.get(name, 'not there')} in the files "
            "before it; skim them alike"
        )


def _stored_key(path: str, metadata: Mapping[str, Any], spec: FeatureSpec) -> str:
    """Return under which name a file holds all columns of a feature, perhaps among others."""
    feature, stored = features.get(spec.name), metadata["features"]
    names = [c.name for c in spec.columns]
    kept = feature.stored_as(spec.options)
    for key in dict.fromkeys((spec.key, kept, *stored)):
        if key in stored and key.partition("[")[0] == spec.name and set(names) <= set(stored[key]["columns"]):
            others = {k: v for k, v in stored[key]["options"].items() if k != feature.selects}
            if key in (spec.key, kept) or feature.stored_as(others) == kept:
                return str(key)
    if kept in stored:
        lacking = [name for name in names if name not in stored[kept]["columns"]]
        raise SkimError(
            f"{path}: {kept} has no column {', '.join(lacking)}; skim again, with them among its {feature.selects}"
        )
    raise SkimError(f"{path}: " + unknown_text("feature", spec.key, stored))


def _check_feature(path: str, schema: pa.Schema, metadata: Mapping[str, Any], spec: FeatureSpec) -> str:
    """Refuse a file that does not hold a feature as it is computed today; return the name of what it holds."""
    key = _stored_key(path, metadata, spec)
    stored, selects = metadata["features"][key], features.get(spec.name).selects
    # Options that came later have defaults that mean what was done before.
    options = {**features.get(spec.name).resolve({}).model_dump(mode="json"), **stored["options"]}
    if stored["version"] != spec.version or {**options, selects: 0} != {**spec.options, selects: 0}:
        raise SkimError(
            f"{path}: {key} was made with version {stored['version']} and {stored['options']}, "
            f"but this coffea-ad has version {spec.version} and {spec.options}; skim again"
        )
    missing = [c for c in stored_columns(spec, key) if c not in schema.names]
    if missing:
        raise SkimError(f"{path}: columns are missing: {', '.join(missing)}")
    if not selects and stored["columns"] != [c.name for c in spec.columns]:
        raise SkimError(f"{path}: the columns of {key} are {stored['columns']}, in another order than they should")
    return key


def _flatten_pt(pt: npt.NDArray[Any], weight: Float64s) -> Float64s:
    """Reweight so that log pT is flat between its 1 % and 99 % quantiles."""
    low, high = np.quantile(pt, [0.01, 0.99])
    if not 0 < low < high:
        return weight  # nothing to flatten
    edges = np.geomspace(float(low), float(high), 31)
    bin_of = np.clip(np.digitize(pt, edges) - 1, 0, len(edges) - 2)
    content = np.bincount(bin_of, np.abs(weight), len(edges) - 1)
    return np.asarray(weight / np.maximum(content[bin_of], 1e-300))


def _event_weights(
    generated: npt.NDArray[Any],
    dataset: npt.NDArray[np.str_],
    simulated: Mapping[str, bool],
    xsec: Mapping[str, float],
    sumw: Mapping[str, float],
    signs: Iterable[str] = (),
) -> tuple[Float64s, str]:
    """Return genWeight · xsec / sumw, or 1 in data, with what it is in words; 1 where datasets have no common scale.

    `signs` are the datasets whose genWeight is that of the skim's metadata, its sign.
    """
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
    of_signs = sorted(signs)
    word = "genWeight" if not of_signs else "sign(genWeight)"
    if of_signs and set(simulated) - set(of_signs):
        word = f"genWeight (its sign in {', '.join(of_signs)})"
    return generated.astype(np.float64) * factor, f"{word} / sumw" if lacking else f"{word} · xsec / sumw"


def load_skim(
    folder: str | Path,
    feature: str,
    options: Mapping[str, Any] | None = None,
    *,
    datasets: Sequence[str] = (),
    weights: WeightMode = "xsec",
    filters: Sequence[Sequence[Any]] = (),
    keep: Keep = "dense",
    out_of_core: str | Path | None = None,
) -> Skim:
    """Read a skim, a block of rows at a time.

    Parameters
    ----------
    folder : path or fsspec URL
        What `coffea-ad run skim -o` wrote. Remote files are copied to the folder for temporary files, which `TMPDIR` names, once.
    feature, options : str, mapping
        The model's input.
    datasets : sequence of str
        All by default.
    weights : "xsec", "flat_pt" or "none"
        What a training draws by: genWeight · xsec / sumw; the same made flat in log pT; or 1. `Skim.event_weight` is the
        first of these in any case.
    filters : sequence of (column, operator, value)
        Rows to keep, such as `("met", ">", 100)`, in pyarrow's form.
    keep : "dense" or "auto"
        auto: where the skim stores a feature sparse, such as `rmm`, and dense rows would take more than 128 MB, they stay
        sparse in memory, and `x` is `rows.Rows`.
    out_of_core : path, optional
        A folder for the rows, which are then never in memory as a whole: `x` is `rows.Rows`. Weights, ids and bystanders
        stay in memory. What is in the folder from before is replaced; it can be deleted after the training.

    Returns
    -------
    Skim
        Rows with undefined inputs are left out and counted in `provenance`.

    Raises
    ------
    SkimError
        The skim does not hold what is asked for.
    """
    spec = feature_spec(feature, dict(options or {}))
    tables: list[pa.Table] = []
    stored: list[tuple[Path, str]] = []
    names: list[str] = []
    sumw: dict[str, float] = {}
    counts: dict[str, int] = {}
    hashes: dict[str, str] = {}
    xsec: dict[str, float] = {}
    flavours: set[str] = set()
    selection: dict[str, Any] = {}
    simulated: dict[str, bool] = {}
    generator: dict[str, str] = {}
    signals: set[str] = set()
    collections: set[str] = set()
    manifest, filters = _manifest(folder), _conditions(filters)
    for dataset, addresses in skim_files(folder, datasets).items():
        sumw[dataset] = manifest[dataset]["sumw"]
        for path in addresses:
            local = files.local_copy(path)
            schema, metadata = _metadata(path, local)
            stored.append((local, _check_feature(path, schema, metadata, spec)))
            flavours.add(metadata["flavour"])
            if selection and metadata["selection"] != selection:
                raise SkimError(f"{path}: this file was skimmed with another selection than those before it")
            selection = metadata["selection"]
            collections.add(metadata.get("collection", selection.get("collection", "FatJet")))
            simulated[dataset] = metadata["is_mc"]
            sort = metadata.get("generator_weight", "stored")
            if generator.setdefault(dataset, sort) != sort:
                raise SkimError(
                    f"{path}: its genWeight is {sort}, and {generator[dataset]} in the files before it; skim again"
                )
            signals |= {dataset} if is_signal(metadata) else set()
            if metadata["is_mc"] and (weights != "none" or has_cross_section(metadata)):
                xsec[dataset] = cross_section(dataset, metadata)
            with local.open("rb") as file:
                hashes[f"{dataset}/{local.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
            features_of = tuple(f"{key}." for key in metadata["features"])
            others = [c for c in schema.names if not c.startswith(features_of)]
            for column, *_ in filters:
                if column not in schema.names:
                    raise SkimError(
                        f"{path}: the filter {list(filters)} cannot be applied: "
                        + unknown_text("column", str(column), others)
                    )
            try:
                table = pq.read_table(local, columns=others, filters=filters or None)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, ValueError, TypeError) as error:
                raise SkimError(f"{path}: the filter {list(filters)} cannot be applied ({error})") from None
            _refuse_other_columns(path, table, tables[0] if tables else table)
            tables.append(table)
            names += [dataset] * len(table)
            counts[dataset] = counts.get(dataset, 0) + len(table)
    if not tables:
        raise SkimError(f"{folder}: there are no files in this skim")
    if len(collections) > 1:
        raise SkimError(
            f"{folder}: its rows are of several collections: {', '.join(sorted(collections))}; choose datasets"
        )
    if len(set(simulated.values())) > 1 and weights != "none":
        raise SkimError(f"{folder}: data and simulation have no common weights; choose datasets, or weights=none")
    joined = pa.concat_tables([t.replace_schema_metadata(None).select(tables[0].column_names) for t in tables])
    joined = joined.append_column("dataset", pa.array(names, pa.string()))
    # File names carry the inputs' random ids: sorted by event, the same events give the same training.
    keys = [(k, "ascending") for k in _KEYS if k in joined.column_names]
    order = pc.sort_indices(joined, sort_keys=keys).to_numpy().astype(np.int64)
    joined = joined.take(order)
    ends = [pc.min_max(joined[k]).as_py() for k in _EVENT_IDS]
    if len(joined) >= _TOO_MANY and all(end["min"] == end["max"] for end in ends):
        raise SkimError(
            f"{folder}: all {len(joined)} rows have the same run, luminosityBlock and event, by which training and validation "
            "rows are told apart; give the events numbers of their own"
        )
    disk = None if out_of_core is None else Path(out_of_core)
    x, finite = read_rows(stored, spec, filters, order, keep, disk)
    bystanders = {c: joined[c].to_numpy() for c in joined.column_names if c != "dataset"}
    dataset_of = np.array(joined["dataset"].to_pylist(), dtype=np.str_)
    event_weight, meaning = _event_weights(
        bystanders["genWeight"],
        dataset_of,
        simulated,
        xsec,
        sumw,
        {d for d, sort in generator.items() if sort == "sign"},
    )
    weight = np.ones(len(x)) if weights == "none" else event_weight
    if weights == "flat_pt":
        if "pt" not in bystanders:
            raise SkimError(f"{folder}: weights=flat_pt needs the pT of jets, which a skim of events has not")
        weight = _flatten_pt(bystanders["pt"], weight)
    if not finite.any():
        raise SkimError(f"{folder}: no row has all inputs of {spec.key} defined")
    unweighted = finite & ~(np.isfinite(event_weight) & np.isfinite(weight))
    if unweighted.any():
        listed = ", ".join(np.unique(dataset_of[unweighted]).tolist())
        raise SkimError(f"{folder}: the weight of {unweighted.sum()} of {len(x)} rows is no finite number, of {listed}")
    scale = np.abs(weight[finite]).mean()
    if not scale > 0:
        raise SkimError(f"{folder}: all rows weigh 0")
    weight = weight / scale
    split = split_of(bystanders["run"], bystanders["luminosityBlock"], bystanders["event"])
    provenance = {
        "files": hashes,
        "rows": counts,
        "undefined_rows": int((~finite).sum()),
        "negative_weight_fraction": float(-weight[finite & (weight < 0)].sum() / np.abs(weight[finite]).sum()),
        "n_effective": n_effective(weight[finite]),
        "total_weight": float(event_weight[finite].sum()),
        "event_weight": meaning,
        "sumw": sumw,
        "xsec": xsec,
        "weights": weights,
        "filters": [list(f) for f in filters],
        "asked": sorted(datasets),
        "signals": sorted(signals),
        "collection": next(iter(collections)),
        "flavours": sorted(flavours),
        "selection": selection,
    }
    rows = cast("Float32s", x)
    everything = Skim(rows, weight, dataset_of, split, bystanders, spec, provenance, event_weight)
    return everything if finite.all() else everything.select(finite)


def background_datasets(card: ModelCard, asked: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return what counts as a model's background: what is asked for, or else what it was trained on.

    Raises
    ------
    ConfigError
        It is not clear.
    """
    if asked:
        return list(asked)
    trained = sorted(card.provenance.get("rows", {}))
    if trained and set(trained) <= set(available):
        return trained
    if len(available) == 1:
        return list(available)
    raise ConfigError(f"say which datasets are the background with --datasets; there are: {', '.join(available)}")


def background(
    card: ModelCard, folder: str | Path, datasets: Sequence[str] = (), splits: Sequence[str] = ("validation",)
) -> Skim:
    """Return the rows of a skim that are a model's background: what calibrates it, and gives its regions.

    Validation rows do, as in the training: the model has not learned from training rows that way, and test rows are for
    evaluation alone. Of a cross-trained model all rows do, since the member that scores a row has not seen it, and of a model
    from elsewhere too, since nothing is known of its training. Only rows inside the model's domain or windows count.

    Parameters
    ----------
    card : ModelCard
        Of one input; says features, filters, datasets and domain.
    folder : path
        A skim.
    datasets : sequence of str
        What the model was trained on by default.
    splits : sequence of str
        Other ones: "train", "validation", "test".

    Returns
    -------
    Skim
        `x` has the features of the model's input side by side; rows may be `rows.Rows`.

    Raises
    ------
    ConfigError, SkimError
        It is not clear what the background is, or the skim does not hold it.
    """
    names = background_datasets(card, datasets, sorted(skim_files(folder)))
    every = model_rows(card, folder, names)
    if card.folds is not None or "rows" not in card.provenance:
        return every
    some = every.part(*splits)
    if not len(some.x):
        raise SkimError(f"{folder}: {', '.join(names)} has no {' or '.join(splits)} rows")
    return some


def model_rows(card: ModelCard, folder: str | Path, datasets: Sequence[str]) -> Skim:
    """Return the inputs of a model, of one input, for all rows of datasets that it could have been trained on, where it is valid.

    Raises
    ------
    ConfigError, SkimError
        The skim does not hold them.
    """
    filters, weights = card.provenance.get("filters", ()), card.provenance.get("weights", "xsec")
    parts = [
        load_skim(
            folder, f.name, f.options, datasets=datasets, filters=filters, keep="auto",
            weights="none" if weights == "none" else "xsec",
        )
        for f in card.inputs[0].features
    ]  # fmt: skip
    if len({len(p.x) for p in parts}) != 1:
        raise ConfigError(f"{folder}: the features of {card.name} are not defined on the same rows")
    first = parts[0]
    rows = first if len(parts) == 1 else replace(first, x=np.concatenate([np.asarray(p.x) for p in parts], axis=1))
    return _valid_rows(card, rows, folder)


def spectator(card: ModelCard, skim: Skim, name: str, folder: str | Path) -> npt.NDArray[Any]:
    """Return a column of a skim that a model's domain, windows, thresholds or folds need.

    Raises
    ------
    SkimError
        There is no such column.
    """
    if name not in skim.bystanders:
        raise SkimError(
            f"{folder}: {card.name} needs the spectator {name!r}, but " + unknown_text("column", name, skim.bystanders)
        )
    return skim.bystanders[name]


def _valid_rows(card: ModelCard, skim: Skim, folder: str | Path) -> Skim:
    """Return the rows inside a model's domain or windows."""
    window = card.window_of(lambda name: spectator(card, skim, name, folder))
    if window is None:
        return skim
    if not (window >= 0).any():
        raise SkimError(f"{folder}: no row lies where {card.name} is valid: {card.validity}")
    inside = skim.select(window >= 0)
    if "total_weight" not in skim.provenance:
        return inside
    part = float(inside.event_weight.sum() / skim.event_weight.sum())
    return replace(inside, provenance={**skim.provenance, "total_weight": part * skim.provenance["total_weight"]})


def rows_in_words(card: ModelCard, skim: Skim, splits: Sequence[str] = ("validation",)) -> str:
    """Say which rows `background` returned and how they are weighted, for the card."""
    which = "out-of-fold" if card.folds is not None else " and ".join(splits) if "rows" in card.provenance else "all"
    weighted = skim.provenance.get("event_weight", "their own weights")
    where = f" with {card.validity}" if card.validity else ""
    return f"{which} rows of {', '.join(sorted(set(skim.dataset.tolist())))}{where}, each weighing {weighted}"
