"""Many small trainings on dask, on all cores, or one after the other; those that are done are stored, and not done again."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from distributed import Client, Future, as_completed

from coffea_ad import files
from coffea_ad.errors import CoffeaADError
from coffea_ad.progress import progress
from coffea_ad.resonant.members import Member, Role, Task, train_member
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect
from coffea_ad.skims.skim import Skim

__all__ = ["Trained", "digest_of", "train_all"]

_TRIES = 3
_AHEAD = 2  # trainings per worker that are handed out


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
        results = _one_by_one(waiting, skims) if cluster is None else _on_cluster(waiting, skims, cluster)
        for task, result in results:
            if isinstance(result, Member):
                members[task.name] = result
                files.write(folder / f"{task.name}.npz", result.to_bytes(keys[task.name]))
            else:
                failed[task.name] = result
            advance(1, note=f"{len(failed)} failed" if failed else "")
    return Trained(members, failed, resumed)


def _attempt(task: Task, skims: Mapping[Role, Skim]) -> Member | str:
    """Train, or say why not."""
    try:
        return train_member(task, skims)
    except CoffeaADError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  one training must not end the others, whatever a library raises
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _one_by_one(tasks: Sequence[Task], skims: Mapping[str, Mapping[Role, Skim]]) -> Iterator[tuple[Task, Member | str]]:
    for task in tasks:
        yield task, _attempt(task, skims[task.window.name])


@contextmanager
def _client(cluster: ClusterConfig | Any) -> Iterator[Client]:
    if isinstance(cluster, ClusterConfig):
        with connect(cluster) as client:
            yield client
    else:
        yield cluster if hasattr(cluster, "submit") else cluster.get_client()


def _on_cluster(
    tasks: Sequence[Task], skims: Mapping[str, Mapping[Role, Skim]], cluster: ClusterConfig | Any
) -> Iterator[tuple[Task, Member | str]]:
    """Hand tasks out a few per worker; the rows of a window go to the cluster once, and again if they are lost there."""
    if not tasks:
        return
    with _client(cluster) as client:
        rows: dict[str, Future] = {}
        under_way: dict[str, tuple[Future, Task, int]] = {}
        queue = [(task, 1) for task in tasks]
        pending = as_completed()

        def submit() -> None:
            room = max(_AHEAD * sum(client.nthreads().values()), 2) - len(under_way)
            for task, attempt in queue[: max(room, 0)]:
                future = client.submit(_attempt, task, _sent(client, rows, task.window.name, skims), pure=False)
                under_way[future.key] = (future, task, attempt)
                pending.add(future)
            del queue[: max(room, 0)]
            needed = {t.window.name for t, _ in queue} | {t.window.name for _, t, _ in under_way.values()}
            for name in [n for n in rows if n not in needed]:
                rows.pop(name).release()

        submit()
        for future in pending:
            _, task, attempt = under_way.pop(future.key)
            if future.status == "finished":
                yield task, future.result()
            elif attempt < _TRIES:  # its rows were on a worker that is gone, or the worker died on the way
                rows.pop(task.window.name, None)
                queue.append((task, attempt + 1))
            else:
                yield (
                    task,
                    f"it ends the workers that work on it, tried {attempt} times (too little memory, or a crash)",
                )
            submit()


def _sent(client: Client, rows: dict[str, Future], name: str, skims: Mapping[str, Mapping[Role, Skim]]) -> Future:
    """Return the rows of a window on the cluster."""
    if name not in rows or rows[name].status in ("lost", "cancelled", "error"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")
            warnings.filterwarnings("ignore", "Large object of size")
            rows[name] = client.submit(_same, dict(skims[name]), pure=False)
    return rows[name]


def _same(value: Any) -> Any:
    return value
