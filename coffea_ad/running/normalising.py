"""What a run is normalised by: the sums of weights and the luminosity of every dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coffea_ad.corrections.files import LumiMask
from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.account import certify
from coffea_ad.luminosity.recorded import Luminosities
from coffea_ad.running.accounting import per_dataset
from coffea_ad.running.collected import check_storable, needs_normalisation
from coffea_ad.running.eras import divide_by_era
from coffea_ad.running.job import Job
from coffea_ad.running.opening import Facts, Fileset
from coffea_ad.running.weighing import sum_of_weights, weighed
from coffea_ad.selection import certified_by
from coffea_ad.weights import cross_section, has_cross_section, is_simulation

__all__ = ["at_luminosity", "drift_weights", "normalises", "simulated", "summed_up"]

_LEFT_OUT = " of the events trained the model and are left out: what is normalised is at"


def simulated(metadata: Mapping[str, Any]) -> bool:
    """Say whether a dataset is taken as simulation: its metadata do not say that it is data."""
    return is_simulation(metadata) is not False


def normalises(fileset: Fileset, outputs: Mapping[Any, Any]) -> bool:
    """Say whether something will be normalised, and refuse what could not be stored or normalised after the work.

    Parameters
    ----------
    fileset : Fileset
    outputs : {dataset: accumulator}
        Of the first events.

    Raises
    ------
    ConfigError
    """
    check_storable(outputs, fileset)
    normalised = needs_normalisation(outputs, fileset)
    for dataset in normalised:
        metadata = fileset[dataset]["metadata"]
        if simulated(metadata):
            cross_section(dataset, metadata)
            if "sumw" not in outputs.get(dataset, {}):
                raise ConfigError(
                    f"dataset {dataset}: the processor returns histograms over region and variation, which are brought to a "
                    "luminosity, and no sumw, the sum of genWeight before any cut, to do it with: return "
                    "**coffea_ad.weights.weight_sums(…) beside them"
                )
    return bool(normalised)


def summed_up(
    job: Job, fileset: Fileset, facts: Facts, chunks: Sequence[Any], done: Mapping[str, Any], notes: list[str]
) -> dict[str, dict[str, Any]]:
    """Return what was done of every dataset, with its sum of weights.

    Parameters
    ----------
    job : Job
    fileset, facts, chunks, done
        As `per_dataset` takes them.
    notes : list of str
        Takes what is wrong with weights.
    """
    datasets = per_dataset(fileset, facts, chunks, done)
    for name, entry in datasets.items():
        mc = simulated(entry["metadata"])
        entry["sumw"] = sum_of_weights(name, entry, mc=mc, fraction=job.fraction, notes=notes)
        if mc:
            notes += weighed(name, entry)
    return datasets


def at_luminosity(job: Job, datasets: dict[str, dict[str, Any]], lumi: Luminosities, notes: list[str]) -> float | None:
    """Say at which luminosity every dataset is, and return the one of all, if there is one.

    Parameters
    ----------
    job : Job
    datasets : {dataset: dict}
        Of a report; they get `lumi`.
    lumi : Luminosities
    notes : list of str
        Takes what is said of it.

    Returns
    -------
    float or None
        fb⁻¹.
    """
    for part in divide_by_era(datasets, eras=bool(job.eras)):
        golden = certified_by(job.config_of(next(iter(part.values()))["metadata"]))
        certify(part, LumiMask(golden) if golden else None)
    number, sentences = lumi.settle(datasets)
    notes += sentences
    seen = float(getattr(job.instance, "luminosity_fraction", 1.0))
    if seen < 1:
        notes[:] = [n for n in notes if _LEFT_OUT not in n]  # of a part of this run
        for value in sorted({entry["lumi"] for entry in datasets.values()} - {None}) if number is None else [number]:
            notes.append(f"{1 - seen:.3g}{_LEFT_OUT} {seen * value:g} of {value:g} fb⁻¹")
    for entry in datasets.values():
        entry["lumi"] = None if entry["lumi"] is None else seen * entry["lumi"]
    return number


def drift_weights(datasets: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Sort datasets into data and simulation; a simulated one weighs its cross-section over its number of events."""
    groups: dict[str, list[tuple[str, float]]] = {"data": [], "simulation": []}
    for name, entry in datasets.items():
        metadata = entry["metadata"]
        if simulated(metadata):
            xsec = cross_section(name, metadata) if has_cross_section(metadata) else 1.0
            groups["simulation"].append((name, xsec / max(entry["events"], 1)))
        else:
            groups["data"].append((name, 1.0))
    return groups
