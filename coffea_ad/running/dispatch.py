"""Pieces of work on a dask cluster, or one after the other: what one of them does to its worker costs that one only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, as_completed

from coffea_ad.errors import CoffeaADError
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect

__all__ = ["Failure", "dispatch"]

_ALONE = 3  # times that a piece is tried by itself, if what it shares is lost and no worker dies
_AHEAD = 2  # pieces per worker that are handed out

Item = TypeVar("Item")


class Failure(str):
    """Why a piece of work has no result, in a sentence."""

    __slots__ = ()


def dispatch(
    function: Callable[[Item, Any], Any], items: Sequence[tuple[Item, str]], shared: Mapping[str, Any],
    cluster: ClusterConfig | Any | None,
) -> Iterator[tuple[Item, Any]]:  # fmt: skip
    """Call a function on items, each with something large that several of them share; yield results as they come.

    Parameters
    ----------
    function : callable
        (item, shared) → result; the same wherever it runs.
    items : sequence of (item, key)
    shared : {key: anything}
        Goes to the cluster once, and again if the worker that holds it is lost.
    cluster : ClusterConfig, distributed.Client or None
        None: one after the other, in this process.

    Yields
    ------
    item, result or Failure
        A function that raises is a failure of its item. What was on a worker that died is tried again, at the end and
        each by itself: who ends a worker then is a failure.

    Examples
    --------
    >>> sorted(dispatch(lambda i, s: i + s, [(1, "a"), (2, "a")], {"a": 10}, None))
    [(1, 11), (2, 12)]
    """
    if cluster is None or not items:
        for item, key in items:
            yield item, _attempt(function, item, shared[key])
        return
    with _client(cluster) as client:
        yield from _on_cluster(client, function, items, shared)


def _attempt(function: Callable[[Any, Any], Any], item: Any, shared: Any) -> Any:
    """Return the result, or say why there is none."""
    try:
        return function(item, shared)
    except CoffeaADError as error:
        return Failure(f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001  one piece must not end the others, whatever a library raises
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


@contextmanager
def _client(cluster: ClusterConfig | Any) -> Iterator[Client]:
    if isinstance(cluster, ClusterConfig):
        with connect(cluster) as client:
            yield client
    else:
        yield cluster if hasattr(cluster, "submit") else cluster.get_client()


def _on_cluster(
    client: Client, function: Callable[[Any, Any], Any], items: Sequence[tuple[Any, str]], shared: Mapping[str, Any]
) -> Iterator[tuple[Any, Any]]:
    sent: dict[str, Future[Any]] = {}
    under_way: dict[Any, tuple[Future[Any], Any, str, int]] = {}
    queue, suspects = list(items), list[tuple[Any, str, int]]()
    pending = as_completed()

    def submit() -> None:
        if queue:
            room = max(_AHEAD * sum(client.nthreads().values()), 2) - len(under_way)
            batch = [(item, key, 0) for item, key in queue[: max(room, 0)]]
            del queue[: len(batch)]
        else:
            # what was there when a worker died: each by itself, so that the one that ends workers is known
            batch = suspects[:1] if not under_way else []
            del suspects[: len(batch)]
        for item, key, alone in batch:
            if key not in sent or sent[key].status in ("lost", "cancelled", "error"):
                sent[key] = _send(client, shared[key])
            future = client.submit(_attempt, function, item, sent[key], pure=False)
            under_way[future.key] = (future, item, key, alone)
            pending.add(future)
        needed = {key for _, key in queue} | {s[1] for s in suspects} | {key for _, _, key, _ in under_way.values()}
        for key in [k for k in sent if k not in needed]:
            sent.pop(key).release()

    submit()
    for future in pending:
        _, item, key, alone = under_way.pop(future.key)
        if future.status == "finished":
            yield item, future.result()
        elif alone and (alone == _ALONE or _killed(future)):
            what = "it ends the workers that work on it, though nothing else does (too little memory, or a crash)"
            yield item, Failure(what if _killed(future) else f"it came to nothing {alone} times: {future.status}")
        else:  # its worker died, by its fault or another's, or with what it shares
            sent.pop(key, None)
            suspects.append((item, key, alone + 1))
        submit()


def _killed(future: Future[Any]) -> bool:
    return future.status == "error" and isinstance(future.exception(), KilledWorker)


def _send(client: Client, value: Any) -> Future[Any]:
    """Put something on the cluster; the scheduler can do it again, which it cannot after `scatter`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        warnings.filterwarnings("ignore", "Large object of size")
        return client.submit(_same, value, pure=False)


def _same(value: Any) -> Any:
    return value
