"""Pseudo-experiments: drawn from the fits, nested regions together, fitted and scanned like the data; in blocks, anywhere."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coffea_ad import files
from coffea_ad.errors import FitFailed
from coffea_ad.progress import progress
from coffea_ad.running.dispatch import Failure, dispatch
from coffea_ad.search.bump_hunt import Hunt, hunt_many
from coffea_ad.typing import Float64s

__all__ = ["BLOCK", "Block", "Null", "Region", "Thrown", "nested", "throw", "throw_all"]

BLOCK = 50
"""Pseudo-experiments that are drawn together, from one seed: numbers do not depend on who draws them, and in which order."""


class Region(NamedTuple):
    """A region's background in pseudo-experiments, and what is done with it.

    Attributes
    ----------
    name : str
    first : int
        Bin of the observable at which its range begins.
    expected : (n,) float64
        By its fit, in its range.
    hunt : Hunt
    inside : tuple of int
        Places of the largest regions that lie inside, which are exclusive.
    """

    name: str
    first: int
    expected: Float64s
    hunt: Hunt
    inside: tuple[int, ...] = ()


class Null(NamedTuple):
    """The spectra of an observable without signal.

    Attributes
    ----------
    observable : str
    bins : int
    regions : tuple of Region
    """

    observable: str
    bins: int
    regions: tuple[Region, ...]

    def draw(self, rng: np.random.Generator, toys: int) -> list[Float64s]:
        """Return counts (toys, n) of each region in its range: an event of a region is one of those around it as well."""
        counts: dict[int, Float64s] = {}

        def drawn(i: int) -> Float64s:
            if i not in counts:
                region = self.regions[i]
                rest = self.remainder(i)
                inner = [drawn(j) for j in region.inside]
                total = rng.poisson(rest, (toys, self.bins)).astype(np.float64)
                counts[i] = total + np.sum(inner, axis=0) if inner else total
            return counts[i]

        out = []
        for i, region in enumerate(self.regions):
            out.append(drawn(i)[:, region.first : region.first + len(region.expected)])
        return out

    def remainder(self, i: int) -> Float64s:
        """Return the expected events (bins,) of a region that are in none of those inside it."""
        return np.asarray(
            np.maximum(self._full(i) - np.sum([self._full(j) for j in self.regions[i].inside], axis=0), 0.0)
        )

    def clipped(self, i: int) -> float:
        """Return by which part fits inside a region exceed its own, in bins where they do."""
        region = self.regions[i]
        inside = self._within(i, np.sum([self._full(j) for j in region.inside], axis=0) + np.zeros(self.bins))
        return float(np.maximum(inside - region.expected, 0).sum() / max(region.expected.sum(), 1e-300))

    def _full(self, i: int) -> Float64s:
        region = self.regions[i]
        out = np.zeros(self.bins)
        out[region.first : region.first + len(region.expected)] = region.expected
        return out

    def _within(self, i: int, values: Float64s) -> Float64s:
        region = self.regions[i]
        return np.asarray(values[region.first : region.first + len(region.expected)])


def nested(regions: Sequence[tuple[str, frozenset[str]]]) -> list[tuple[int, ...]]:
    """Return for each region the largest ones inside it; two that overlap and are not nested cannot both be.

    >>> nested([("all", frozenset("abc")), ("loose", frozenset("bc")), ("tight", frozenset("c"))])
    [(1,), (2,), ()]
    """
    out = []
    for i, (_, cells) in enumerate(regions):
        smaller = [j for j, (_, of) in enumerate(regions) if j != i and (of < cells or (of == cells and j > i))]
        direct: list[int] = []
        for j in sorted(smaller, key=lambda j: -len(regions[j][1])):
            if not any(regions[j][1] & regions[k][1] for k in direct):
                direct.append(j)
        out.append(tuple(direct))
    return out


class Block(NamedTuple):
    """Pseudo-experiments of one observable.

    Attributes
    ----------
    window, q0 : (regions, toys) float64
        Largest significance of each scan.
    value : (regions, toys) float64
        −ln L without signal.
    valid : (regions, toys) bool
    """

    window: Float64s
    q0: Float64s
    value: Float64s
    valid: Float64s


def throw(item: tuple[int, int, int], null: Null) -> Block:
    """Draw one block, fit and scan it.

    Parameters
    ----------
    item : (seed, block, toys)
    null : Null
    """
    seed, block, toys = item
    name = int.from_bytes(hashlib.sha256(null.observable.encode()).digest()[:8], "little")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(name, block)))
    rows = [hunt_many(counts, region.hunt) for region, counts in zip(null.regions, null.draw(rng, toys), strict=True)]
    return Block(
        np.stack([r.window.max(axis=1) for r in rows]), np.stack([r.q0.max(axis=1) for r in rows]),
        np.stack([r.value for r in rows]), np.stack([r.valid for r in rows]),
    )  # fmt: skip


class Thrown(NamedTuple):
    """All pseudo-experiments of a search.

    Attributes
    ----------
    blocks : {observable: Block}
        All of them in a row.
    resumed : int
        Blocks that were stored already.
    """

    blocks: Mapping[str, Block]
    resumed: int


def throw_all(nulls: Sequence[Null], toys: int, seed: int, folder: Path | None = None, cluster: Any = None) -> Thrown:
    """Draw all pseudo-experiments, and store each block, so that an interrupted search goes on.

    Parameters
    ----------
    nulls : sequence of Null
    toys, seed : int
    folder : path, optional
        Where blocks are stored and looked for.
    cluster : ClusterConfig, distributed.Client or None
        None: one after the other, in this process.

    Returns
    -------
    Thrown
        The same whatever the cluster.

    Raises
    ------
    FitFailed
        A block came to nothing, for a reason that is not its own.
    """
    sizes = [min(BLOCK, toys - start) for start in range(0, toys, BLOCK)]
    done: dict[tuple[str, int], Block] = {}
    waiting: list[tuple[tuple[int, int, int], str]] = []
    keys = {null.observable: _digest(null, seed) for null in nulls}
    for null in nulls:
        for block, size in enumerate(sizes):
            stored = _load(folder, null.observable, block, size, keys[null.observable])
            if stored is None:
                waiting.append(((seed, block, size), null.observable))
            else:
                done[null.observable, block] = stored
    resumed = len(done)
    tagged = [((*item, observable), observable) for item, observable in waiting]
    with progress("pseudo-experiments", toys * len(nulls)) as advance:
        advance(sum(len(b.value[0]) for b in done.values()))
        for (_, block, size, observable), result in dispatch(_throw, tagged, {n.observable: n for n in nulls}, cluster):
            if isinstance(result, Failure):
                raise FitFailed(f"pseudo-experiments of {observable}: {result}")
            done[observable, block] = result
            _store(folder, observable, block, keys[observable], result)
            advance(size)
    if toys == 0:
        return Thrown({n.observable: Block(*(np.zeros((len(n.regions), 0)) for _ in Block._fields)) for n in nulls}, 0)
    joined = {
        n.observable: Block(*(np.concatenate(parts, axis=1) for parts in zip(*(done[n.observable, b] for b in range(len(sizes))), strict=True)))
        for n in nulls
    }  # fmt: skip
    return Thrown(joined, resumed)


def _throw(item: tuple[int, int, int, str], null: Null) -> Block:
    return throw(item[:3], null)


def _digest(null: Null, seed: int) -> str:
    """Return SHA-256 of all that a block depends on."""
    out = hashlib.sha256(f"{null.observable} {null.bins} {seed} 3".encode())
    for region in null.regions:
        arrays = (
            region.expected,
            *(array for function in region.hunt.orders.functions for array in function),
            *region.hunt.orders.starts,
            *region.hunt.windows,
            *region.hunt.signals,
            region.hunt.masks,
        )
        settings = region.hunt.orders.alpha, region.hunt.orders.exclude
        out.update(f"{region.name} {region.first} {region.inside} {settings}".encode())
        for array in arrays:
            out.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return out.hexdigest()


def _place(folder: Path, observable: str, block: int) -> Path:
    return folder / f"{files.as_name(observable)}_{block:04d}.npz"


def _load(folder: Path | None, observable: str, block: int, size: int, key: str) -> Block | None:
    if folder is None or not (path := _place(folder, observable, block)).is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            out = Block(*(stored[name] for name in Block._fields))
            return out if str(stored["key"]) == key and out.value.shape[1] == size else None
    except (ValueError, KeyError, OSError, EOFError):  # a block of another search, or half of one: it is drawn again
        return None


def _store(folder: Path | None, observable: str, block: int, key: str, content: Block) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    memory = io.BytesIO()
    np.savez(memory, key=np.array(key), **content._asdict())
    files.write(_place(folder, observable, block), memory.getvalue())
