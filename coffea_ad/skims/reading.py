"""Skims → rows with their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coffea_ad import files
from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.features.spec import feature_spec
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.skims.files import check_feature, conditions, manifest_of, metadata_of, refuse_other_columns, skim_files
from coffea_ad.skims.rows import Keep, read_rows
from coffea_ad.skims.skim import Skim, WeightMode
from coffea_ad.splits import split_of
from coffea_ad.typing import Float32s, Float64s
from coffea_ad.weights import cross_section, has_cross_section, is_signal, n_effective

__all__ = ["load_skim"]


_KEYS = ("dataset", *EVENT_ID, "objectIdx")  # the last in skims of jets only
_TOO_MANY = 20  # rows of one event


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
        What `coffea-ad run skim_jets -o` wrote. Remote files are copied to the folder for temporary files, which `TMPDIR` names, once.
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
    manifest, filters = manifest_of(folder), conditions(filters)
    for dataset, addresses in skim_files(folder, datasets).items():
        sumw[dataset] = manifest[dataset]["sumw"]
        for path in addresses:
            local = files.local_copy(path)
            schema, metadata = metadata_of(path, local)
            stored.append((local, check_feature(path, schema, metadata, spec)))
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
            refuse_other_columns(path, table, tables[0] if tables else table)
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
    ends = [pc.min_max(joined[k]).as_py() for k in EVENT_ID]
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
