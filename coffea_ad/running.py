"""Fileset → coffea's Runner → RunReport: checked before it starts, complete or failed by name at the end."""

from __future__ import annotations

import ast
import importlib.metadata
import logging
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import uproot
from coffea import processor as coffea_processor
from coffea.processor.executor import UprootMissTreeError

from coffea_ad import errors, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError, IncompleteRun, MissingBranch, ProcessorFailed
from coffea_ad.filesets import load_fileset, name_bad_file, preflight, sumw_of_skimmed
from coffea_ad.modelfile import network_digest
from coffea_ad.nanoaod import NanoAODSchema, missing_branches
from coffea_ad.results import Results, save_results
from coffea_ad.tagger import Tagger

__all__ = ["RunReport", "run"]

Executor = Literal["iterative", "futures", "dask"]
_BAD_FILE = (OSError, ValueError, uproot.exceptions.KeyInFileError, UprootMissTreeError)


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    Attributes
    ----------
    outputs : {dataset: accumulator}
        What the processor returned, merged.
    datasets : {dataset: dict}
        Per dataset: metadata, files and chunks expected, processed and missing, events, sumw, cutflow.
    config, versions : dict
        The resolved configuration and the versions of the packages.
    seconds, events_per_second : float
    """

    outputs: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    config: dict[str, Any]
    versions: dict[str, str]
    models: list[dict[str, Any]]
    processor: str
    executor: str
    lumi: float
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every file and chunk was processed."""
        return not any(d["missing"] for d in self.datasets.values())

    @property
    def events_per_second(self) -> float:
        """Events per second of wall time."""
        return float(sum(d["events"] for d in self.datasets.values()) / max(self.seconds, 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        names = ("datasets", "config", "versions", "models", "processor", "executor", "lumi", "seconds", "notes")
        own = {name: getattr(self, name) for name in names}
        return {**own, "complete": self.complete, "events_per_second": self.events_per_second}


def _own_cluster(workers: int) -> Any:
    """Start a cluster that listens on the loopback address only: whoever reaches a scheduler can run code on it."""
    from distributed import LocalCluster

    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            processes=True,
            silence_logs=logging.CRITICAL,  # what goes wrong is said once, by us
        )
    except RuntimeError as error:
        raise ConfigError(
            f"the dask cluster cannot start ({str(error).splitlines()[0]}); in a script, call ad.run under "
            'if __name__ == "__main__":, or choose executor="iterative"'
        ) from None


@contextmanager
def _executor(kind: Executor, workers: int, scheduler: str | None) -> Iterator[Any]:
    if kind == "iterative":
        yield coffea_processor.IterativeExecutor(retries=0)
    elif kind == "futures":
        yield coffea_processor.FuturesExecutor(workers=workers, retries=0)
    elif kind == "dask":
        from distributed import Client

        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=20)
            except (OSError, ValueError, TimeoutError) as error:
                raise ConfigError(f"no dask scheduler answers at {scheduler} ({error})") from None
            with client:
                yield coffea_processor.DaskExecutor(client=client)
            return
        with _own_cluster(workers) as cluster, Client(cluster) as client:
            yield coffea_processor.DaskExecutor(client=client)
    else:
        raise ConfigError(f"executor is {kind!r}, but must be iterative, futures or dask")


class _Guarded(coffea_processor.ProcessorABC):
    """A processor whose bugs come back as `ProcessorFailed` with the user's own lines, from any executor.

    loky and coffea drop the cause of an exception on its way to the client; its text survives.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def process(self, events: Any) -> Any:
        if len(events) > 0 and hasattr(self.processor, "reads"):
            branches = {f"{c}_{f}" for c in ak.fields(events) for f in ak.fields(events[c])} | set(ak.fields(events))
            lacking = missing_branches(self.processor.reads(), branches)
            if lacking:
                raise MissingBranch(f"{events.metadata['filename']}: {lacking}")
        try:
            return getattr(self.processor, "process", self.processor)(events)
        except CoffeaADError:
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1].filename
            if isinstance(error, OSError) and "site-packages" in last:
                raise  # reading failed, not the processor
            raise ProcessorFailed(_own_lines(error)) from error

    def postprocess(self, accumulator: Any) -> Any:
        own = getattr(self.processor, "postprocess", None)
        return own(accumulator) if own is not None else accumulator


def _own_lines(error: Exception) -> str:
    """Say what was raised, and where in code that is not a library's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    lines = "".join(traceback.format_list([f for f in frames if f.filename != __file__][-3:]))
    return f"the processor raised {type(error).__name__}: {error}\n{lines}".rstrip()


_SENT = re.compile(r"The error was: (\w+)\((.*)\)\.", re.DOTALL)
_ITEM = re.compile(r"filename='([^']*)'.*entrystart=(\d+), entrystop=(\d+)")


def _explain(error: Exception, stage: str) -> CoffeaADError:
    """Find the root cause of what a worker raised."""
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__ or current.__context__
    for link in links:
        if isinstance(link, CoffeaADError):
            return link
    sent = _SENT.search(str(error))
    if sent is not None and hasattr(errors, sent[1]):
        return getattr(errors, sent[1])(ast.literal_eval(sent[2]))  # type: ignore[no-any-return]
    reason = " ".join((sent[0].removeprefix("The error was: ") if sent else str(links[-1])).split())[:300]
    item = _ITEM.search(str(error))
    if item is not None:
        return BadFile(f"{item[1]}: events {item[2]} to {item[3]} cannot be read ({reason})")
    return BadFile(f"while {stage} the files: {reason}")


def _versions() -> dict[str, str]:
    packages = ("coffea-ad", "coffea", "awkward", "uproot", "onnxruntime", "hist", "numpy")
    return {p: importlib.metadata.version(p) for p in packages}


def _completeness(
    fileset: dict[str, dict[str, Any]], chunks: Sequence[Any], processed: set[Any], outputs: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Compare what was asked for with what was done, file by file and chunk by chunk."""
    out = {}
    for dataset, entry in fileset.items():
        mine = [c for c in chunks if c.dataset == dataset]
        done = [c for c in mine if c in processed]
        missing = [f"{path}: could not be opened" for path in entry["files"] if path not in {c.filename for c in mine}]
        missing += [f"{c.filename}: events {c.entrystart} to {c.entrystop}" for c in mine if c not in processed]
        output = outputs.get(dataset, {})
        out[dataset] = {
            "metadata": entry["metadata"],
            "files": list(entry["files"]),
            "chunks_expected": len(mine),
            "chunks_processed": len(done),
            "missing": missing,
            "events": int(output.get("events", sum(len(c) for c in done))),
            "sumw": float(output.get("sumw", 0.0)),
            **{key: output[key] for key in ("cutflow", "unscored", "undefined", "rows") if key in output},
        }
    return out


def run(
    fileset: str | Path | Mapping[str, Any],
    processor: Any,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    executor: Executor = "dask",
    workers: int = 2,
    scheduler: str | None = None,
    chunksize: int = 100_000,
    output: str | Path | None = None,
    lumi: float = 1.0,
    test: bool = False,
    allow_missing: bool = False,
) -> RunReport:
    """Run a processor over a fileset.

    Parameters
    ----------
    fileset : path or mapping
        As `load_fileset` takes it.
    processor : str, path or ProcessorABC
        A shipped processor by name, a file by path (with `Config` and `Processor`), or an instance.
    model : path or several, optional
        Model files, handed to the processor as taggers.
    config, overrides
        The processor's configuration: a YAML file and `key=value`.
    executor : "iterative", "futures" or "dask"
    workers : int
        Processes of the futures executor or of an own dask cluster, which listens on the loopback address only.
    scheduler : str, optional
        Address of an existing dask scheduler.
    chunksize : int
        Events per chunk.
    output : path, optional
        Results folder.
    lumi : float
        fb⁻¹, for the normalised histograms.
    test : bool
        One file and one chunk per dataset.
    allow_missing : bool
        Go on without files that cannot be read; the report names them, and the normalisation stays right, since the
        sum of weights is collected with the histograms.

    Returns
    -------
    RunReport

    Raises
    ------
    BadFile, MissingBranch, ConfigError, ProcessorFailed
    IncompleteRun
        Files or chunks are missing and `allow_missing` is off.
    """
    for name, value in (("chunksize", chunksize), ("workers", workers)):
        if value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1")
    if not 0 < lumi < float("inf"):
        raise ConfigError(f"lumi is {lumi}, but must be a positive number of fb⁻¹")
    entries = load_fileset(fileset)
    if test:
        entries = {d: {**e, "files": dict(list(e["files"].items())[:1])} for d, e in entries.items()}
    models = [model] if isinstance(model, (str, Path)) else list(model or ())
    taggers = [Tagger(m, name="ad" if i == 0 else f"ad{i + 1}") for i, m in enumerate(models)]
    module, instance, resolved = _instance(processor, config, overrides, taggers, output)
    notes: list[str] = []
    if output is not None:
        _writable(Path(output))
    normalise = output is not None and getattr(instance, "fills_histograms", True)
    skimmed = preflight(entries, instance, notes, tolerant=allow_missing, normalise=normalise)
    started = time.monotonic()
    with _executor(executor, workers, scheduler) as pool:
        runner = coffea_processor.Runner(
            pool,
            schema=NanoAODSchema,
            chunksize=chunksize,
            maxchunks=1 if test else None,
            skipbadfiles=_BAD_FILE if allow_missing else False,
            metadata_cache={},  # coffea's own outlives the run, and files change
        )
        stage = "opening"
        try:
            chunks = list(runner.preprocess(entries))
            stage = "processing"
            done = runner.run(chunks, _Guarded(instance))
        except Exception as error:
            if stage == "opening":
                name_bad_file(entries)
            raise _explain(error, stage) from error
    outputs = dict(done["out"])
    datasets = _completeness(entries, chunks, set(done["processed"]), outputs)
    for dataset in skimmed:
        if datasets[dataset]["missing"] or test:
            notes.append(f"{dataset}: only a part of skimmed files was processed; its normalisation is not known")
            datasets[dataset]["sumw"] = 0.0
        else:
            kept = getattr(instance, "fraction", 1.0)  # a processor may keep a part of the events by their hash
            datasets[dataset]["sumw"] = kept * sumw_of_skimmed(dataset, entries[dataset]["files"])
    report = RunReport(
        outputs=outputs,
        datasets=datasets,
        config=resolved,
        versions=_versions(),
        models=[_describe(m, t) for m, t in zip(models, taggers, strict=True)],
        processor=str(processor) if isinstance(processor, (str, Path)) else type(processor).__name__,
        executor=executor,
        lumi=lumi,
        seconds=time.monotonic() - started,
        notes=notes,
    )
    if not report.complete and not allow_missing:
        missing = [m for d in report.datasets.values() for m in d["missing"]]
        raise IncompleteRun(f"{len(missing)} files or chunks are missing: {'; '.join(missing[:5])}")
    if output is not None:
        _save(report, module, Path(output))
    return report


def _describe(file: str | Path, tagger: Tagger) -> dict[str, Any]:
    """Say which model this was: file, network and calibration, whose digests survive a change of the regions."""
    scorer = tagger.scorer
    return {
        "file": str(file),
        "name": tagger.card.name,
        "digest": scorer.digest,
        "network": network_digest(scorer.data),
        "calibration": scorer.card.calibration_digest,
    }


def _writable(output: Path) -> None:
    """Make the results folder before the run: finding out afterwards would lose the work."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{output}: results cannot be written there ({error.strerror})") from None


def _instance(
    processor: Any, config: str | Path | None, overrides: Sequence[str], taggers: list[Tagger], output: Any
) -> tuple[Any, Any, dict[str, Any]]:
    if not isinstance(processor, (str, Path)):
        if taggers or config is not None or overrides:
            raise ConfigError("a processor that is an object already takes no model or configuration; give it its own")
        return None, processor, {}
    module = recipes.load(processor)
    if recipes.kind_of(module) != "processor":
        raise ConfigError(f"{processor}: this is a training recipe; it takes no fileset")
    path = recipes.find_config(config) if config is not None else None
    resolved = load_config(module.Config, path, overrides)
    return module, module.Processor(resolved, taggers, output), resolved.model_dump(mode="json")


def _save(report: RunReport, module: Any, output: Path) -> Results:
    output.mkdir(parents=True, exist_ok=True)
    histograms = {d: out.get("histograms", {}) for d, out in sorted(report.outputs.items())}
    results = save_results({d: h for d, h in histograms.items() if h}, report.to_dict(), output)
    if hasattr(module, "finish"):
        module.finish(report, output)
    return results
