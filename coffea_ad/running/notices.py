"""What a run says of itself: in its first lines, and in the notes of its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from coffea_ad.corrections import differing_jets, placeholders
from coffea_ad.running.job import Job
from coffea_ad.running.normalising import simulated
from coffea_ad.running.opening import Fileset
from coffea_ad.selection import not_applied

__all__ = ["announce", "notices", "placeholders_of", "say"]


def say(sentence: str) -> None:
    """Write a line to standard error, as it is."""
    console = Console(stderr=True, markup=False, emoji=False)
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def placeholders_of(job: Job) -> list[str]:
    """Return the variations that stand for an uncertainty which nobody has measured."""
    return list(dict.fromkeys(name for config in job.configs for name in placeholders(config)))


def announce(job: Job, fileset: Fileset, notes: list[str], *, progress: bool) -> None:
    """Say in the first lines which configuration this is, and what of a search it does not apply.

    Parameters
    ----------
    job : Job
    fileset : Fileset
    notes : list of str
        Takes the sentences.
    progress : bool
        Write them to standard error too.
    """
    data = not all(simulated(entry["metadata"]) for entry in fileset.values())
    lacking = list(dict.fromkeys(what for config in job.configs for what in not_applied(config, data=data)))
    if lacking:
        notes.append(f"not applied, since the configuration asks for none: {', '.join(lacking)}")
    for config in job.configs:
        notes += [n for n in differing_jets(config, {t.name: t.card for t in job.taggers}) if n not in notes]
    if placeholders_of(job) and any(simulated(entry["metadata"]) for entry in fileset.values()):
        notes.append(
            f"{' and '.join(placeholders_of(job))} are placeholders, a shift of {job.config.jet_scale:.2g} that nobody has "
            "measured: give corrections.jec for systematic uncertainties, or jet_scale=0"
        )
    if progress and job.module is not None:
        say(f"{job.name}: configuration {'the defaults in its code' if job.source is None else job.source}")
        if lacking:
            say(f"not applied: {', '.join(lacking)}")


def notices(done: Mapping[str, Any], datasets: Mapping[str, Any]) -> list[str]:
    """Return sentences about what happened while chunks were processed.

    Parameters
    ----------
    done : dict
        The run's accumulator.
    datasets : {dataset: dict}
        Of the report.
    """
    notes = []
    if done.get("again"):
        names = ", ".join(sorted(done["undeclared"])[:8]) or min(done["first_error"])
        notes.append(
            f"{done['again']} chunks were processed a second time, with all branches of their files, since neither reads() "
            f"nor the first events had named what they read: {names}"
        )
    if done.get("resumed"):
        notes.append(f"{done['resumed']} of {len(done['processed'])} chunks were there from an earlier run")
    if done.get("unsaved"):
        notes.append(f"chunks could not be kept as checkpoints ({min(done['unsaved'])})")
    decided: dict[str, list[str]] = {}
    for name, said in sorted(done.get("conventions", {}).items()):
        for sentence in sorted(said):
            decided.setdefault(sentence, []).append(name)
    notes += [f"{sentence}: {', '.join(names)}" for sentence, names in decided.items()]
    hidden = [name for name, entry in datasets.items() if entry.get("blinded")]
    if hidden:
        notes.append(
            f"{', '.join(hidden)}: blinded, so events in the tightest region are in no histogram and no count, the cutflow has "
            "its first and last line only, and what the models read is not compared with their training"
        )
    for name, entry in datasets.items():
        notes += _undefined(name, entry) + _layouts(name, entry)
    return notes


def _undefined(name: str, entry: Mapping[str, Any]) -> list[str]:
    if not entry.get("undefined"):
        return []
    where = ", ".join(f"{branch} {n}" for branch, n in sorted(entry.get("undefined_in", {}).items()))
    return [
        f"{name}: {entry['undefined']} events or values with NaN or infinite numbers are in no histogram or row"
        + (f" ({where})" if where else "")
    ]


def _layouts(name: str, entry: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for path, file in entry["files"].items():
        if file["layout"] is not None:
            kinds.setdefault(file["layout"], []).append(path)
    if len(kinds) < 2:
        return []
    examples = "; ".join(f"{len(paths)} like {paths[0]}" for paths in kinds.values())
    return [f"{name}: its files have {len(kinds)} different sets of branches: {examples}"]
