"""Finished chunks on disk, under a key of all that they depend on: a changed model or cut can never return old histograms."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import cloudpickle
import lz4.frame
from coffea.processor.checkpointer import CheckpointerABC

from coffea_ad import files
from coffea_ad.errors import BadFile, ConfigError, NotWritten
from coffea_ad.features import registered
from coffea_ad.recipes import own_files
from coffea_ad.running.sources import local_modules

__all__ = ["Checkpoints", "code_digests", "digest_of", "file_digests", "home_of", "run_key"]

_SHA = 32  # bytes
_PACKAGE = Path(__file__).parent.parent


class Checkpoints(CheckpointerABC):
    """Results of chunks in a folder or at an fsspec URL, one file a chunk, written under another name and renamed.

    They are pickles: whoever can write into the folder can run code in a run that reads it.

    Parameters
    ----------
    url : str
        A folder that workers and client both reach, such as a shared path or "s3://bucket/folder".
    key : str
        Digest of what the results depend on; those of another key are never looked at.
    """

    def __init__(self, url: str, key: str) -> None:
        if files.is_url(url):
            files.require_filesystem(url)
        self.url, self.root = url, files.join(files.absolute(url), key[:32])

    def path(self, metadata: Mapping[str, Any]) -> str:
        """Return the file of a chunk; the metadata of the dataset count, since a processor may use them."""
        name = f"{metadata['entrystart']}-{metadata['entrystop']}-{digest_of(dict(metadata))[:12]}"
        return files.join(self.root, metadata["dataset"], metadata["fileuuid"], f"{name}.lz4")

    def load(self, metadata: Mapping[str, Any], processor_instance: Any) -> Any:
        """Return the result of a chunk, or None if there is none, if it is damaged, or if what it wrote is gone."""
        try:
            data = files.read(self.path(metadata))
            if hashlib.sha256(data[_SHA:]).digest() != data[:_SHA]:
                return None
            result = pickle.loads(lz4.frame.decompress(data[_SHA:]))  # noqa: S301  trusted folders only, as documented
        except Exception:  # noqa: BLE001  whatever is wrong with it, the chunk is computed
            return None
        if getattr(processor_instance, "fills_histograms", True):
            return result
        outputs = [out for out in result.get("out", {}).values() if isinstance(out, Mapping)]
        written = [f for out in outputs if isinstance(out.get("files"), set) for f in out["files"]]
        try:
            return result if all(files.exists(f) for f in written) else None
        except (BadFile, ConfigError):
            return None

    def save(self, output: Any, metadata: Mapping[str, Any], processor_instance: Any) -> str:  # noqa: ARG002
        """Keep the result of a chunk; return why that was not possible, or an empty string."""
        try:
            data = lz4.frame.compress(pickle.dumps(output, protocol=pickle.HIGHEST_PROTOCOL))
            files.write(self.path(metadata), hashlib.sha256(data).digest() + data)
        except NotWritten as error:  # a full disk must not cost the result itself
            return f"{self.url}: {files.why(error.__cause__ or error)}"
        except Exception as error:  # noqa: BLE001  nor a result that cannot be pickled
            return f"{type(error).__name__}: {str(error)[:100]}"
        return ""

    def probe(self) -> str:
        """Write a small file and return its path, so that workers can say whether they see it.

        Raises
        ------
        ConfigError
        """
        try:
            return files.probe(self.root)
        except NotWritten as error:
            reason = files.why(error.__cause__ or error)
            raise ConfigError(f"{self.url}: checkpoints cannot be written there ({reason})") from None


def digest_of(content: Any) -> str:
    """Return the SHA-256 of something that JSON can hold.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_digests(module: ModuleType) -> dict[str, str]:
    """Return digests of a module's file and of all files of one's own that it imports, libraries left out."""
    return {str(path): _file_digest(path) for path in sorted({*own_files(module), *local_modules(module).values()})}


def file_digests(config: Any) -> dict[str, str]:
    """Return digests of all files that a configuration names: a correction may change while its name stays."""
    digests: dict[str, str] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Mapping):
            for item in value.values():
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif isinstance(value, (str, Path)) and 0 < len(str(value)) < 1000 and Path(value).is_file():
            digests[str(value)] = _file_digest(Path(value))

    walk(config)
    return digests


def _state_digest(instance: Any) -> str:
    """Return a digest of an object's content, or of a function's code; the file of its class counts by itself."""
    inner = getattr(instance, "func", instance)  # of a functools.partial
    content: dict[str, Any] = {
        "state": dict(getattr(instance, "__dict__", {})),
        "arguments": (getattr(instance, "args", ()), getattr(instance, "keywords", {})),
    }
    for owner in (inner, type(inner)):
        for name, value in [("", owner), *getattr(owner, "__dict__", {}).items()]:
            if isinstance(getattr(value, "__code__", None), CodeType):
                content[f"{type(owner).__name__}.{name}"] = _code(value.__code__)
    try:
        return hashlib.sha256(cloudpickle.dumps(content)).hexdigest()
    except Exception:  # noqa: BLE001  what cannot be pickled cannot be compared: nothing is taken for its result
        return uuid.uuid4().hex


def _code(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without where it lies."""
    constants = tuple(_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts)
    return code.co_code, constants, code.co_names


def _package_digest() -> str:
    """Return the digest of this package's sources: a version number does not notice an edit."""
    out = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if "_recipes" not in path.parts and path.name != "_version.py":
            out.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    return out.hexdigest()


def home_of(instance: Any, module: ModuleType | None) -> ModuleType | None:
    """Return the module that a processor is of: its recipe, or where its class or function was defined."""
    inner = getattr(instance, "func", instance)  # of a functools.partial
    return module or sys.modules.get(getattr(inner, "__module__", None) or type(inner).__module__)


def run_key(
    instance: Any,
    module: ModuleType | None,
    *,
    models: Iterable[str],
    config: Any,
    versions: Mapping[str, str],
    output: str | None = None,
) -> dict[str, Any]:
    """Return all that the result of a chunk depends on, beside the chunk itself.

    Parameters
    ----------
    instance, module
        The processor, and the recipe it came from, if it did. Without a recipe, the pickled object counts too.
    models : iterable of str
        Their digests.
    config : dict
        Resolved.
    versions : {package: version}
    output : str, optional
        Where a processor writes, if it writes files.

    Returns
    -------
    dict
        Of which `digest_of` makes the key.
    """
    home = home_of(instance, module)
    key = {
        "models": list(models),
        "config": config,
        "inputs": file_digests(config),
        "versions": dict(versions),
        "code": code_digests(home) if home is not None else {},
        "package": _package_digest(),
        "output": output,
    }
    features = {
        n: _file_digest(Path(f)) if Path(f).is_file() else _state_digest(x) for n, (x, f) in registered().items()
    }
    if features:
        key["features"] = features
    if module is None:
        key["processor"] = _state_digest(instance)
    return key
