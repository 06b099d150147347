"""What is checked before a run: files, metadata, first events, workers. Seconds here instead of retries on a cluster."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.running.checkpoints import Checkpoints
from coffea_ad.running.first_files import first_files, first_good
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.versions import versions
from coffea_ad.weights import is_simulation

__all__ = ["VERSIONED", "check_files", "check_kind", "check_workers", "package_versions"]

VERSIONED = ("coffea-ad", "coffea", "awkward", "uproot", "onnxruntime", "hist", "numpy", "numba", "cloudpickle")
_MUST_AGREE = (
    "python",
    "coffea-ad",
    "coffea",
    "awkward",
    "cloudpickle",
)  # what pickles between client and workers need
_TRIES = 5


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return versions(*VERSIONED)


_KINDS = ("is_mc", "kind", "campaign", "year", "era", "sqrt_s")
"""What decides, beside the branches, how a dataset is processed."""


def check_files(
    fileset: Mapping[str, Mapping[str, Any]],
    needs: Mapping[str, Any],
    notes: list[str],
    *,
    tolerant: bool,
    retries: int = 0,
) -> tuple[dict[str, str], dict[str, str]]:
    """Open one file of every dataset with events, check branches and metadata.

    Parameters
    ----------
    fileset : {dataset: {"files": {path: tree}, "metadata": {…}}}
        `is_mc` is filled in where it is not said, and what a file of our own simulation tells of itself.
    needs : {what: alternatives}
        Branches, as `missing_branches` takes them; the event ids are needed in any case.
    notes : list of str
        Takes what was found out.
    tolerant : bool
        Look for a good file behind bad ones.
    retries : int
        How often a remote file is tried again.

    Returns
    -------
    {dataset: path}
        A file with events of every kind of dataset: those with other branches, other data or another year are of other kinds.
    {dataset: dataset}
        Which of these each dataset is like.

    Raises
    ------
    BadFile, MissingBranch
    """
    paths: dict[str, str] = {}
    like: dict[str, str] = {}
    kinds: dict[tuple[Any, ...], str] = {}
    for dataset, first in first_files(fileset, needs, tolerant=tolerant, retries=retries).items():
        metadata = fileset[dataset]["metadata"]
        check_kind(dataset, metadata, first.path, weighted="genWeight" in first.names, told=first.told, notes=notes)
        kind = (first.names, *(repr(metadata.get(key)) for key in _KINDS))
        if kind not in kinds:
            # one with events, and those files that are parsed are kept open
            whole = first_good(fileset[dataset]["files"], needs, tolerant=tolerant, retries=retries)
            if whole is None:
                continue
            kinds[kind], paths[dataset] = dataset, whole.path
        like[dataset] = kinds[kind]
    return paths, like


def check_kind(
    dataset: str, metadata: dict[str, Any], path: str, *, weighted: bool, told: Mapping[str, Any], notes: list[str]
) -> None:
    """Fill in the metadata of a dataset what its file tells, and compare them.

    Raises
    ------
    MissingBranch
        It is simulation, by its metadata, without genWeight.
    """
    for key in ("campaign", "sqrt_s"):
        if key in told:
            metadata.setdefault(key, told[key])
    if "is_mc" not in metadata:
        metadata["is_mc"] = weighted
        kind, state = ("simulation", "there") if weighted else ("data", "not there")
        notes.append(f"{dataset}: taken as {kind}, since the metadata has no is_mc and genWeight is {state}")
    if is_simulation(metadata) and not weighted:
        raise MissingBranch(f"dataset {dataset}: is_mc is true, but {path} has no genWeight")


def _facts(models: Sequence[bytes], probes: Sequence[str]) -> dict[str, Any]:
    """On a worker: versions, the models' digests with their golden rows re-evaluated, and which folders it does not see."""
    digests = []
    for data in models:
        scorer = OnnxScorer(data)
        scorer.session  # noqa: B018  made, and so checked
        digests.append(scorer.digest)
    return {
        "versions": {"python": platform.python_version(), **package_versions()},
        "models": digests,
        "unseen": [probe for probe in probes if not files.sees(probe)],
    }


def check_workers(
    client: Any,
    models: Sequence[bytes],
    checkpoints: Checkpoints | None,
    notes: list[str],
    *,
    output: str | None = None,
) -> None:
    """Compare the workers of a dask cluster with the client, and send them this package if they lack it.

    Parameters
    ----------
    client : distributed.Client
    models : sequence of bytes
    checkpoints : Checkpoints or None
        Which workers must see.
    notes : list of str
        Takes what differs and does no harm.
    output : str, optional
        Folder that workers write files into, and must share with this process.

    Raises
    ------
    ConfigError
        A worker cannot run what the client sends; the message names it and what differs.
    """
    client.submit(int, pure=False).result()  # there may be none yet: jobs queue, or wait for work
    for package in ("coffea", "numba", "onnxruntime", "pydantic", "coffea_ad"):
        specs = client.run(
            importlib.util.find_spec, package, on_error="ignore"
        )  # the worker may not have a function of ours
        # a folder without __init__.py is found as well, and is no package
        without = sorted(address for address, spec in specs.items() if spec is None or spec.origin is None)
        if without and package != "coffea_ad":
            raise ConfigError(
                f"worker {without[0]} lacks {package}; install there what the client has, or use its image"
            )
        if without:
            _ship(client)
            notes.append(f"coffea_ad was sent to the workers; {len(without)} of {len(specs)} lacked it")
    shared = {} if checkpoints is None else {checkpoints.probe(): f"the checkpoints at {checkpoints.url}"}
    if output is not None:
        shared[files.probe(output)] = (
            f"the output folder {output}, and what it writes would be lost; a URL does without a shared disk"
        )
    try:
        facts = _asked(client, list(models), list(shared))
    finally:
        for probe in shared:
            files.remove(probe)
    here = {"python": platform.python_version(), **package_versions()}
    loose: dict[str, str] = {}
    for address, worker in sorted(facts.items()):
        if isinstance(worker, Exception):
            raise ConfigError(f"worker {address} cannot take part ({type(worker).__name__}: {worker})")
        for package, version in here.items():
            other = worker["versions"].get(package, "none")
            if _differs(package, version, other):
                if package in _MUST_AGREE:
                    raise ConfigError(
                        f"worker {address} has {package} {other}, the client {version}; they must be the same"
                    )
                loose[package] = f"{package} {other} on workers, {version} here"
        for probe in worker["unseen"]:
            raise ConfigError(f"worker {address} does not see {shared[probe]}")
    if loose:
        notes.append("versions differ: " + "; ".join(loose.values()))


def _asked(client: Any, models: list[bytes], probes: list[str]) -> dict[str, Any]:
    """Return the facts of all workers; one that leaves while it is asked is no reason to stop: jobs come and go."""
    from distributed.comm.core import CommClosedError

    for _ in range(_TRIES):
        answers = client.run(_facts, models, probes, on_error="return")
        facts = {address: f for address, f in answers.items() if not isinstance(f, CommClosedError)}
        if facts:
            return facts
        client.submit(int, pure=False).result()  # wait for the next one
    raise ConfigError(f"workers leave as soon as they come, {_TRIES} times; see their logs")


def _differs(package: str, one: str, two: str) -> bool:
    if package == "python":  # pickles of code hold for a minor version
        return one.split(".")[:2] != two.split(".")[:2]
    return one != two


def _ship(client: Any) -> None:
    """Send this package's sources to all workers, and to those that come later."""
    from distributed.diagnostics.plugin import UploadFile

    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coffea_ad.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for source in sorted(root.rglob("*.py")):
                archive.write(source, Path("coffea_ad") / source.relative_to(root))
        # to workers only: client.upload_file would put it into the scheduler as well, which may be this very process
        client.register_plugin(UploadFile(str(path)))
