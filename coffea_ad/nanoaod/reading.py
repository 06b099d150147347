"""Files that workers keep open, the branches that are wanted of them, and what is wrong with a file.

coffea opens a file anew for every chunk and builds all of its branches: a second of CPU for a full NanoAOD file. With the
file open and only wanted branches built, it is some hundredths.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import hashlib
import json
import math
import re
import threading
import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from coffea.nanoevents import NanoEventsFactory

from coffea_ad import files
from coffea_ad.errors import BadFile
from coffea_ad.nanoaod.candidates import BESIDE, usual_name
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.counters import compare_counters, uncounted
from coffea_ad.nanoaod.records import branch_names

__all__ = [
    "OPEN_FILES",
    "SILENT",
    "BranchFilter",
    "Open",
    "Unreadable",
    "attempts",
    "build_events",
    "layout",
    "reason",
    "runs_total",
    "simulation_record",
    "uncounted_in",
    "unreadable_column",
]

# Without them, coffea cannot make objects of a collection.
_VECTOR = ("pt", "eta", "phi", "mass", "charge", "x", "y", "z")
_KEEP_OPEN = 4  # files per worker
_NOT_AGAIN = (
    10.0  # times the time that a server has to answer: so long nothing more is asked of a file that it did not give
)
_NO_ANSWER = re.compile(
    r"expired|time[d -]*out|refused|unreachable|no route|could not connect|connection|auth failed", re.IGNORECASE
)
_PAUSE = 1.0  # s, before a remote file is tried again; then twice as long


@dataclass(frozen=True)
class BranchFilter:
    """The branches that a processor reads.

    Attributes
    ----------
    branches : frozenset of str
        With them, the event ids, genWeight, and counters and four-vectors of their collections are opened.
    layouts : frozenset of str, or None
        Files for which this is known, by `layout`; others are opened in full. None: the processor has declared it.
    """

    branches: frozenset[str]
    layouts: frozenset[str] | None = None

    def of(self, names: list[str]) -> frozenset[str] | None:
        """Return what to open of a file with these branches, or None for all."""
        if self.layouts is not None:
            if layout(names) not in self.layouts:
                return None
            # traced, not declared: the processor may look what else its collections have
            collections = {_collection(b) for b in self.branches}
            wanted = {n for n in names if n in self.branches or _collection(n) in collections}
            one_each = {_collection(n): n for n in names}
            wanted.update(one_each.values())  # of every other collection one, so that it is there if it is asked for
        else:
            wanted = {n for n in names if n in self.branches or usual_name(n) in self.branches}
        more = {"genWeight", *EVENT_ID}
        for collection in {_collection(b) for b in wanted}:
            more |= {"n" + collection, *(f"{collection}_{c}" for c in (*_VECTOR, *BESIDE))}
        return frozenset(n for n in names if n in wanted or n in more)


def _collection(branch: str) -> str:
    """Return the collection of a branch, such as FatJet of FatJet_pt and of nFatJet."""
    collection, underscore, _ = branch.partition("_")
    return collection if underscore else collection.removeprefix("n")


def layout(names: list[str]) -> str:
    """Return a short digest of the branches of a file."""
    return hashlib.blake2b("\n".join(sorted(names)).encode(), digest_size=8).hexdigest()


@dataclass
class Open:
    """A file that stays open, as it was then, and the branches of its trees."""

    file: Any
    stamp: tuple[int, int] | None
    names: dict[str, dict[str, str]]
    """Of each tree, {name in the file: NanoAOD's name}."""

    def branch(self, tree: str, stored: str) -> str:
        """Return NanoAOD's name of what a tree stores."""
        return self.names[tree].get(stored, stored)

    def tree(self, name: str) -> tuple[Any, list[str]]:
        """Return a tree and its branches."""
        with _no_collection():
            tree = self.file[name]
            if name not in self.names:
                types = tree.typenames()
                names = list(tree.keys())
                records = isinstance(tree, uproot.behaviors.RNTuple.HasFields) and "" in types.values()
                self.names[name] = branch_names(types) if records else dict(zip(names, names, strict=True))
                tree.typenames = lambda: dict(
                    types
                )  # coffea asks for it again for every chunk: 20 ms for 2656 branches
        return tree, list(self.names[name].values())

    def stored(self, tree: str, branches: frozenset[str]) -> Callable[[str], bool]:
        """Return a function that says of a name in the file whether some branches need it, records of fields included."""
        self.tree(tree)
        stored = {name for name, branch in self.names[tree].items() if branch in branches}
        return (stored | {name.partition(".")[0] for name in stored if self.names[tree][name] != name}).__contains__

    def uncounted(self, name: str, branches: Iterable[str]) -> str:
        """Say which of some branches are lists of a tree that nothing counts, or return an empty string."""
        tree, _ = self.tree(name)
        lacking = uncounted(tree.typenames())
        wanted = {_collection(branch) for branch in branches} & set(lacking) if lacking else set()
        return "; ".join(f"there is no branch n{c}, which counts what {lacking[c]} holds" for c in sorted(wanted))


class OpenFiles(threading.local):
    """The last files of a thread, with their trees parsed; closed at the end of the process."""

    def __init__(self) -> None:
        self.files: OrderedDict[str, Open] = OrderedDict()

    def get(self, path: str, **options: Any) -> Open:
        """Return a file that is open and has not changed since."""
        stamp = _stamp(path)
        opened = self.files.get(path)
        if opened is not None and opened.stamp == stamp and not opened.file.closed:
            self.files.move_to_end(path)
            return opened
        self.drop(path)
        options.pop("timeout", None)  # S3 and others refuse to be told
        if stamp is None:
            files.prepare(path)
            if path.startswith(("root://", "xroot://", "http")):
                options["timeout"] = math.ceil(files.patience())
        # without a cache of arrays: a chunk's columns live as long as its events
        self.files[path] = Open(uproot.open({path: None}, array_cache=None, **options), stamp, {})
        while len(self.files) > _KEEP_OPEN:
            self.drop(next(iter(self.files)))
        return self.files[path]

    def drop(self, path: str, *, forget: bool = False) -> None:
        """Close a file, if it is open; `forget` it in the library that reads it, too: XRootD's keeps it for a while."""
        if path in self.files:
            if forget:
                source = self.files[path].file.file.source
                with contextlib.suppress(Exception):
                    source._fs.invalidate_cache(source._file_path)  # noqa: SLF001
            with contextlib.suppress(Exception):  # it may have been closed by its server
                self.files.pop(path).file.close()

    def close(self) -> None:
        """Close all."""
        for path in list(self.files):
            self.drop(path)


OPEN_FILES = OpenFiles()
atexit.register(OPEN_FILES.close)


def _stamp(path: str) -> tuple[int, int] | None:
    if "://" in path:
        return None
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector off: it would walk the thousands of objects of a tree again and again while they are made."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


class Unreadable(Exception):
    """Reading failed: the name of the error, and one sentence."""


def reason(path: str, error: BaseException) -> str:
    """Say in one sentence why a file cannot be read."""
    if isinstance(error, FileNotFoundError) or "no such file" in str(error).lower():
        return f"{path}: there is no such file"
    if isinstance(error, uproot.exceptions.KeyInFileError):
        return f"{path}: there is no tree {error.key!r}"
    text = " ".join(str(error).split())
    if "not a ROOT file" in text:
        return f"{path}: this is not a ROOT file"
    return f"{path}: cannot be read ({type(error).__name__}: {text[:160]})"


def runs_total(file: Any, branch: str, tree: str = "Events") -> float | None:
    """Return the total of a branch of `Runs`, which is looked for beside the tree of events first, then at the top.

    NanoAOD v6 and before wrote the branch with a trailing underscore.
    """
    folder = tree.partition(";")[0].rpartition("/")[0]
    for place in dict.fromkeys((f"{folder}/Runs".lstrip("/"), "Runs")):
        if place not in file:
            continue
        runs = file[place]
        for name in (branch, branch + "_"):
            if name in runs.keys():  # noqa: SIM118  a TTree is no mapping
                return float(np.sum(runs[name].array(library="np")))
        return None
    return None


def simulation_record(file: Any) -> dict[str, Any]:
    """Return what a file of `coffea-ad simulate` says of how it was made, and nothing for a file of others."""
    try:
        record = json.loads(str(file["simulation"]))
    except (KeyError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def build_events(
    opened: Open, metadata: Mapping[str, Any], schema: Any, wanted: frozenset[str] | None = None, **options: Any
) -> tuple[Any, list[Any]]:
    """Build the events of a chunk, whose columns are read when they are used.

    Parameters
    ----------
    opened : Open
    metadata : mapping
        With treename, filename, entrystart and entrystop.
    schema : coffea schema
    wanted : frozenset of str, optional
        Only these branches.
    options
        Of NanoEventsFactory.from_root.

    Returns
    -------
    events : NanoEvents
    log : list
        Fills with what is read.

    Raises
    ------
    Unreadable
    """
    log: list[Any] = []
    if metadata["entrystop"] <= metadata["entrystart"]:
        schema = _without_ids(schema)
    try:
        with _no_collection(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Missing event_ids", RuntimeWarning)  # only there are no events
            factory = NanoEventsFactory.from_root(
                opened.file,
                treepath=metadata["treename"],
                schemaclass=schema,
                metadata=dict(metadata),
                access_log=log,
                mode="virtual",
                entry_start=metadata["entrystart"],
                entry_stop=metadata["entrystop"],
                iteritems_options={}
                if wanted is None
                else {"filter_name": opened.stored(metadata["treename"], wanted)},
                **options,
            )
            tree, _ = opened.tree(metadata["treename"])
            stored = opened.names[metadata["treename"]]
            compare_counters(factory._mapping, tree, stored, metadata["filename"])  # noqa: SLF001
            events = factory.events()
    except Exception as error:
        raise Unreadable(type(error).__name__, reason(metadata["filename"], error)) from error
    return events, log


@functools.cache
def _without_ids(schema: Any) -> Any:
    """Return a schema for chunks without events: a file that was skimmed to nothing may lack every branch."""
    if not isinstance(schema, type) or not getattr(schema, "error_missing_event_ids", False):
        return schema
    return type(schema.__name__, (schema,), {"error_missing_event_ids": False, "__module__": schema.__module__})


def unreadable_column(error: BaseException, path: str, start: int, stop: int) -> Unreadable | None:
    """Return what is wrong with the file, if an error came up while coffea was reading a column; None: it is another."""
    failure = None
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        if isinstance(current, BadFile):  # it was found when the column was read
            return Unreadable("BadFile", str(current).partition("\n")[0])
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("coffea.nanoevents.mapping"):
                branch = getattr(frame.f_locals.get("columnhandle"), "name", "")
                failure = current, branch or (failure[1] if failure else "")
        current = current.__cause__ or current.__context__
    if failure is None:
        return None
    cause, branch = failure
    kind = type(cause).__name__
    text = " ".join(str(cause).split())[:160]
    return Unreadable(kind, f"{path}: events {start} to {stop}: branch {branch} cannot be read ({kind}: {text})")


def uncounted_in(error: BaseException, opened: Open, tree: str, path: str) -> Unreadable | None:
    """Return what is wrong with the file, if an error speaks of a collection that nothing counts; None: it is another."""
    words = set(re.findall(r"[A-Za-z]\w*?(?=Array\b|Record\b|\b)", str(error)))
    lacking = opened.uncounted(tree, words)
    return Unreadable("BadFile", f"{path}: {lacking}") if lacking else None


class _Silent:
    """Remote files whose server did not answer in this process: path → when, and what was said of it."""

    def __init__(self) -> None:
        self.paths: dict[str, tuple[float, str]] = {}

    def cause(self, path: str, timeout: float) -> str:
        """Return why a file need not be asked for again now, or an empty string."""
        when, cause = self.paths.get(path, (-math.inf, ""))
        return cause if time.monotonic() < when + _NOT_AGAIN * timeout else ""

    def note(self, path: str, cause: str) -> None:
        """Remember a failure that was none of the file itself."""
        if files.is_url(path) and _NO_ANSWER.search(cause.removeprefix(path)):
            self.paths[path] = time.monotonic(), cause

    def same_server(self, path: str) -> bool:
        """Say whether another file of the same server was not given."""
        server = path.split("/")[:3]
        return any(other.split("/")[:3] == server for other in self.paths if other != path)


SILENT = _Silent()


def attempts(path: str, retries: int) -> Iterator[int]:
    """Yield how many tries are left; what is not remote does not come back by waiting, nor a server that was silent before."""
    left = retries if files.is_url(path) and not SILENT.same_server(path) else 0
    for n in range(left, -1, -1):
        yield n
        if n:
            time.sleep(_PAUSE * 2 ** (left - n))
