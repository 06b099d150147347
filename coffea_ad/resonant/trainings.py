"""Many small trainings on dask, on all cores, or one after the other; those that are done are stored, and not done again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coffea_ad import files
from coffea_ad.progress import progress
from coffea_ad.resonant.members import Member, Role, Task, train_member
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.dispatch import dispatch
from coffea_ad.skims.skim import Skim

__all__ = ["Trained", "digest_of", "train_all"]


class Trained(NamedTuple):
    """What came of trainings.

    Attributes
    ----------
    members : {name of the task: Member}
    failed : {name of the task: sentence}
    resumed : int
        How many were there already.
    """

    members: dict[str, Member]
    failed: dict[str, str]
    resumed: int


def digest_of(skims: Mapping[Role, Skim]) -> str:
    """Return SHA-256 of the rows, weights and ids that trainings depend on."""
    out = hashlib.sha256()
    for role in sorted(skims):
        skim = skims[role]
        ids = [np.asarray(skim.spectators[c]) for c in ("run", "luminosityBlock", "event")]
        for array in (skim.x[:], skim.weight, *ids):
            out.update(np.ascontiguousarray(array).tobytes())
        out.update(role.encode())
    return out.hexdigest()


def train_all(
    tasks: Sequence[Task], skims: Mapping[str, Mapping[Role, Skim]], folder: Path, *, cluster: ClusterConfig | Any | None
) -> Trained:  # fmt: skip
    """Carry trainings out; the result does not depend on where, in which order, or by how many workers.

    Parameters
    ----------
    tasks : sequence of Task
    skims : {name of a window: {role: Skim}}
        The rows of its signal region and sidebands.
    folder : path
        Where finished trainings are stored, a file each, and looked for.
    cluster : ClusterConfig, distributed.Client or None
        None: one after the other, in this process.

    Returns
    -------
    Trained
        A training that fails does not stop the others; what is repeated with the same folder does only what is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {name: digest_of(rows) for name, rows in skims.items()}
    keys = {task.name: task.key(digests[task.window.name]) for task in tasks}
    members: dict[str, Member] = {}
    for task in tasks:
        path = folder / f"{task.name}.npz"
        stored = Member.from_bytes(path.read_bytes(), keys[task.name]) if path.is_file() else None
        if stored is not None:
            members[task.name] = stored
    resumed, failed = len(members), dict[str, str]()
    waiting = [task for task in tasks if task.name not in members]
    with progress("train", len(tasks)) as advance:
        advance(resumed)
        for task, result in dispatch(train_member, [(t, t.window.name) for t in waiting], skims, cluster):
            if isinstance(result, Member):
                members[task.name] = result
                files.write(folder / f"{task.name}.npz", result.to_bytes(keys[task.name]))
            else:
                failed[task.name] = str(result)
            advance(1, note=f"{len(failed)} failed" if failed else "")
    return Trained(members, failed, resumed)
