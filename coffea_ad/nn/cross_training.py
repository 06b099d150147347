"""CrossTrained: members of a cross-training as one model, in which no event is scored by a model that has seen it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coffea_ad import files
from coffea_ad.errors import ConfigError
from coffea_ad.modelfiles.joining import joined_scores
from coffea_ad.nn.graph import epoch_graphs
from coffea_ad.nn.scorable import Scorable, contributions_in, explaining
from coffea_ad.nn.training.history import History
from coffea_ad.progress import progress
from coffea_ad.scoring.specs import Contributions, Density, Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints

__all__ = ["CrossTrained", "fit_folds"]

FOLDS_FILE = "folds.json"
"""What a folder of a cross-training says of its folds."""


class CrossTrained:
    """k members; member f was trained without fold f, and scores fold f.

    Parameters
    ----------
    members : sequence of Scorable
        In the order of the folds.
    salt : str
        Divides the events: `weights.fold_of(salt, k, run, luminosityBlock, event)`.

    Raises
    ------
    ConfigError
        There are fewer than two members, or they differ in method or columns.

    Examples
    --------
    >>> from coffea_ad.nn.reconstruction.autoencoder import AE
    >>> model = CrossTrained([AE(8, transform=torch.nn.Identity()) for _ in range(3)], salt="folds")
    >>> model.scores(np.zeros((4, 8), np.float32), np.array([0, 1, 2, 0])).shape
    (4,)
    """

    def __init__(self, members: Sequence[Scorable], salt: str) -> None:
        if len(members) < 2 or len({(m.method, m.shape, m.density) for m in members}) != 1:
            raise ConfigError("the members of a cross-training must be two or more, of one method and the same columns")
        self.members = list(members)
        self.folds = Folds(k=len(members), salt=salt)

    @property
    def method(self) -> str:
        """Name on the card: that of the members."""
        return self.members[0].method

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row of x."""
        return self.members[0].shape

    @property
    def density(self) -> Density | None:
        """Whether the score is −log p(x) or −log p(z)."""
        return self.members[0].density

    def fold_of(self, ids: Mapping[str, npt.NDArray[Any]]) -> Ints:
        """Return the fold of events from their `run`, `luminosityBlock` and `event`, such as the spectators of a skim."""
        return self.folds.of(ids)

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:
        """Score rows by the members that never saw their events, (n, *shape) and (n,) → (n,).

        Raises
        ------
        ConfigError
            There are no folds.
        """
        if folds is None:
            raise ConfigError("the score of a folded model depends on the folds of the rows")
        out = np.empty(len(x), np.float32)
        for f, member in enumerate(self.members):
            rows = np.flatnonzero(folds == f)
            out[rows] = member.scores(x[rows])
        return out

    @property
    def contributes(self) -> Contributions | None:
        """What the contributions of every member add up to, if all have the same parts."""
        kinds = [contributions_in(member) for member in self.members]
        return kinds[0] if all(kind == kinds[0] for kind in kinds) else None

    def contributions_of(self, x: Float32s, folds: Ints | None = None) -> Float32s:
        """Return what each part adds to the scores of rows, (n, *shape) and (n,) → (n, parts).

        Raises
        ------
        ConfigError
            There are no folds, or no contributions.
        """
        if folds is None:
            raise ConfigError("the score of a folded model depends on the folds of the rows")
        each = [explaining(member).contributions_of(x[folds == f]) for f, member in enumerate(self.members)]
        out = np.empty((len(x), each[0].shape[1]), np.float32)
        for f, values in enumerate(each):
            out[folds == f] = values
        return out

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return one ONNX graph with an output for every member; with twice as many, contributions stand behind them."""
        of_a_member = ("score", "contributions")[: len(outputs) // len(self.members)]
        return joined_scores(epoch_graphs(self.members, of_a_member), self.shape, outputs)


Fit = Callable[[Any, Skim, Path], tuple[Scorable, History]]
"""Trains one model: (configuration, rows with their splits, folder) → the model, and how it went."""


def fit_folds(
    fit: Fit, config: Any, data: Skim, folder: str | Path, *, k: int, salt: str = "folds", workers: int | None = None
) -> tuple[Scorable, list[History]]:
    """Train k models, each without the events of its fold, on all cores: the same seed gives the same models on any number.

    Parameters
    ----------
    fit : callable
        Trains one model, (config, rows, folder) → (model, history): what a recipe calls `fit`. It gets the rows with the
        splits of a fold: fold f is "test", f + 1 "validation", and the others "train".
    config : pydantic model
        Handed to `fit`.
    data : Skim
    folder : path
        Fold f has its checkpoint and metrics in `fold_f`.
    k : int
        At least 3, so that there are rows to train on; or 0 for one model, on the splits that the rows have.
    salt : str
        Of the hash that divides the events.
    workers : int, optional
        Processes with one thread each; as many as there are cores by default. With one, all is done in this process.

    Returns
    -------
    Scorable, list of History
        `CrossTrained`, or the one model.

    Raises
    ------
    SkimError
        k is 1 or 2.

    References
    ----------
    J. Collins, K. Howe, B. Nachman, "Anomaly detection for resonant new physics with machine learning", arXiv:1805.02664,
    for nested cross-training in a search.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if k:
        data.for_fold(0, k, salt)  # refuses a wrong number before anything is trained
    if not getattr(config, "resume", False):
        _clear(place)
    if not k:
        model, history = fit(config, data, place)
        return model, [history]
    parts = [(f, place / f"fold_{f}") for f in range(k)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(k, cores if workers is None else workers)
    if processes <= 1 or torch.cuda.is_available():
        trained = [fit(_begun(config, part), data.for_fold(f, k, salt), part) for f, part in parts]
    else:
        trained = _in_processes(fit, config, data, parts, k, salt, processes)
    files.write(place / FOLDS_FILE, json.dumps({"k": k, "salt": salt}).encode())
    return CrossTrained([model for model, _ in trained], salt), [history for _, history in trained]


def _clear(folder: Path) -> None:
    """Remove what an earlier training of this name has left, with folds or without."""
    for part in folder.glob("fold_*"):
        shutil.rmtree(part)
    for name in (FOLDS_FILE, "checkpoint.pt", "metrics.jsonl"):
        (folder / name).unlink(missing_ok=True)


def _begun(config: Any, folder: Path) -> Any:
    """Return the configuration of a fold: one that was not begun cannot be resumed."""
    resumed = getattr(config, "resume", False) and not (folder / "checkpoint.pt").exists()
    return config.model_copy(update={"resume": False}) if resumed else config


def _in_processes(
    fit: Fit, config: Any, data: Skim, parts: Sequence[tuple[int, Path]], k: int, salt: str, processes: int
) -> list[tuple[Scorable, History]]:
    """Train in processes of their own; the rows are written once, and read by each."""
    import cloudpickle
    from loky import ProcessPoolExecutor

    with tempfile.TemporaryDirectory() as shared:
        rows = Path(shared) / "rows.pkl"
        rows.write_bytes(cloudpickle.dumps(data, protocol=5))
        environment = {"OMP_NUM_THREADS": "1"}
        with (
            ProcessPoolExecutor(max_workers=processes, env=environment) as pool,
            progress(f"train {k} folds", k) as advance,
        ):
            running = [
                pool.submit(_one, cloudpickle.dumps((fit, _begun(config, part))), rows, f, k, salt, part)
                for f, part in parts
            ]
            results = []
            for f, future in enumerate(running):
                try:
                    results.append(cloudpickle.loads(future.result()))
                except BrokenExecutor as error:  # what a fold itself refuses is raised as it is
                    raise ConfigError(
                        f"the process that trained fold {f} ended ({str(error).split('.')[0]}); it may have run out of memory: "
                        "fewer processes need less, as with taskset -c 0"
                    ) from None
                advance()
    return results


def _one(work: bytes, rows: Path, f: int, k: int, salt: str, folder: Path) -> bytes:
    """Train one fold in a process of its own."""
    import cloudpickle

    torch.set_num_threads(1)
    fit, config = cloudpickle.loads(work)
    data = cloudpickle.loads(rows.read_bytes())
    return bytes(cloudpickle.dumps(fit(config, data.for_fold(f, k, salt), folder)))
