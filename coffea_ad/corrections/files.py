"""Correction files, read once on the client: what is needed of them is packed, and travels with a processor.

Workers have none of the files. A processor is unpickled for every chunk, so what is built from the packed content is
kept by the process.
"""

from __future__ import annotations

import base64
import difflib
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import correctionlib
import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from coffea_ad.config import Frozen
from coffea_ad.errors import BadFile, ConfigError, unknown_text
from coffea_ad.nanoaod.conventions import say
from coffea_ad.typing import Bools, Float64s

__all__ = ["OUTSIDE", "Correction", "CorrectionFiles", "LumiMask", "Outside", "Part", "Reads"]

_NOT_DEFINED = (RuntimeError, IndexError, ValueError)  # what correctionlib raises
Reads = dict[str, tuple[tuple[str, ...], ...]]
"""{what: alternatives}, the branches for the check before a run; an empty alternative means that they may be absent."""

Outside = Literal["fail", "clamp", "unit"]
OUTSIDE = (
    "values outside a correction's bins: fail (the chunk fails), clamp (the nearest bin is taken), or unit (nothing is "
    "corrected, nothing varied)"
)


class Part(Frozen):
    """A part of a configuration that may be left out; a wrong key is refused with the nearest right one."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                raise ValueError(unknown_text("key", str(key), cls.model_fields))
        return values


@dataclass(frozen=True)
class Correction:
    """One correction of a correctionlib file, simple or compound, that needs the file no more.

    Attributes
    ----------
    file, name : str
        Where it came from, for messages.
    inputs : {name: "real", "int" or "string"}
        In the order of the correction.
    words : {name: words}
        What the file knows of its string inputs; none where any word is taken.
    packed : bytes
        The correction and what it stands on, compressed.
    outside : "fail", "clamp" or "unit"
        What becomes of values that it is not defined for.
    """

    file: str
    name: str
    inputs: Mapping[str, str]
    words: Mapping[str, frozenset[str]]
    packed: bytes
    outside: Outside = "fail"

    def __call__(self, values: Mapping[str, Any], size: int, *, neutral: float = 1.0, place: str = "") -> Float64s:
        """Evaluate.

        Parameters
        ----------
        values : {input: (size,) array or one value}
            More than the inputs does no harm.
        size : int
        neutral : float
            What corrects nothing, where `outside` is unit.
        place : str
            The file of the values, for messages.

        Returns
        -------
        (size,) float64
            NaN where an input is not finite.

        Raises
        ------
        BadFile
            The correction is not defined for one of the values, and `outside` is "fail".
        ConfigError
            It does not take its own words.
        """
        types = {"real": np.float64, "int": np.int64}
        whole = {k: np.broadcast_to(values[k], (size,)) for k, t in self.inputs.items() if t != "string"}
        defined = np.all([np.isfinite(v) for v in whole.values()], axis=0) if whole else np.ones(size, bool)
        every = bool(defined.all())
        numbers = {k: (v if every else v[defined]).astype(types[self.inputs[k]]) for k, v in whole.items()}
        words = {k: str(values[k]) for k, t in self.inputs.items() if t == "string"}
        try:
            evaluated = self._evaluated(numbers, words)
        except _NOT_DEFINED as error:
            if not whole:
                raise ConfigError(f"{self}: {' '.join(str(error).split())[:200]}") from None
            evaluated = self._patiently(numbers, words, neutral, place)
        if every:
            return np.broadcast_to(np.asarray(evaluated, np.float64), (size,))
        out = np.full(size, np.nan)
        out[defined] = evaluated
        return out

    def _evaluated(self, numbers: Mapping[str, Any], words: Mapping[str, str], *, clamped: bool = False) -> Any:
        arguments = [words[k] if t == "string" else numbers[k] for k, t in self.inputs.items()]
        return _evaluator(self.packed, self.name, clamped=clamped).evaluate(*arguments)

    def _patiently(self, numbers: dict[str, Any], words: Mapping[str, str], neutral: float, place: str) -> Float64s:
        """Evaluate what can be, and do with the rest what `outside` says."""
        out = np.full(len(next(iter(numbers.values()))), neutral)
        parts, lacking, why = [np.arange(len(out))], [], ""
        while parts:  # halves, until those that fail are alone
            rows = parts.pop()
            try:
                out[rows] = self._evaluated({k: v[rows] for k, v in numbers.items()}, words)
            except _NOT_DEFINED as error:
                why = " ".join(str(error).split())[:200]
                half = len(rows) // 2
                if half:
                    parts += [rows[half:], rows[:half]]  # the first half comes first
                    continue
                lacking.append(rows[0])
                if self.outside == "fail":
                    break
        rows = np.array(lacking, np.int64)
        if self.outside == "clamp":
            try:
                out[rows] = self._evaluated({k: v[rows] for k, v in numbers.items()}, words, clamped=True)
            except _NOT_DEFINED as error:
                raise BadFile(f"{place}{self}: {' '.join(str(error).split())[:200]}") from None
        elif self.outside == "fail":
            value = ", ".join(f"{k} = {v[rows[0]]:g}" for k, v in numbers.items())
            raise BadFile(
                f"{place}{self} is not defined for {', '.join((value, *(f'{k} = {v}' for k, v in words.items())))} ({why}); say outside: "
                "clamp or unit where this correction is asked for, if such values may be"
            )
        say(
            f"{self}: values outside its bins are {'taken at the nearest' if self.outside == 'clamp' else 'not corrected'}"
        )
        return out

    def __str__(self) -> str:
        return f"{self.file}: correction {self.name}"

    def check_input(self, name: str) -> None:
        """Raise `ConfigError` unless the correction has the input."""
        if name not in self.inputs:
            raise ConfigError(f"{self}: {unknown_text('input', name, self.inputs)}")

    def check_word(self, name: str, word: str) -> None:
        """Raise `ConfigError` if the string input is known not to take the word."""
        if self.words.get(name) and word not in self.words[name]:
            raise ConfigError(f"{self}: {unknown_text(name, word, self.words[name])}")


class CorrectionFiles:
    """Reads every file once, however many of its corrections are asked for."""

    def __init__(self) -> None:
        self._contents: dict[str, Any] = {}

    def correction(self, file: str, name: str, outside: Outside = "fail") -> Correction:
        """Take one correction out of a file.

        Raises
        ------
        BadFile
            It is missing, not JSON, or not of correctionlib's schema 2.
        ConfigError
            It has no correction of that name; the message says the nearest.
        """
        if file not in self._contents:
            self._contents[file] = _read_json(file)
        content = self._contents[file]
        if not isinstance(content, dict) or content.get("schema_version") != 2 or "corrections" not in content:
            raise BadFile(f"{file}: this is not a correctionlib file of schema version 2")
        if not _has_form(content):
            raise BadFile(f"{file}: it is damaged: not all of its corrections have a name and inputs with their types")
        simple = {c["name"]: c for c in content["corrections"]}
        compound = {c["name"]: c for c in content.get("compound_corrections") or ()}
        wanted = compound.get(name) or simple.get(name)
        if wanted is None:
            raise ConfigError(f"{file}: {_unknown(name, [*simple, *compound])}")
        parts = [simple[n] for n in wanted["stack"]] if name in compound else [wanted]
        needed = {"schema_version": 2, "corrections": parts, "compound_corrections": [wanted] * (name in compound)}
        packed = zlib.compress(json.dumps(needed).encode())
        inputs = {i["name"]: i["type"] for i in wanted["inputs"]}
        words = {n: _words(parts, n) for n, t in inputs.items() if t == "string"}
        try:
            _evaluator(packed, name)
        except RuntimeError as error:
            raise BadFile(f"{file}: correction {name} is damaged ({' '.join(str(error).split())[:200]})") from None
        return Correction(file, name, inputs, words, packed, outside)


class LumiMask:
    """Which luminosity sections are certified, by a golden JSON that is needed no more; coffea looks them up.

    Parameters
    ----------
    file : str
        {run: [[first, last], …]}, rising, both ends included.

    Raises
    ------
    BadFile
    """

    def __init__(self, file: str) -> None:
        content = _read_json(file)
        if not isinstance(content, dict) or not content:
            raise BadFile(f"{file}: a golden JSON maps runs to ranges of luminosity sections")
        for run, ranges in content.items():
            _check_ranges(file, run, ranges)
        self.packed = zlib.compress(json.dumps(content).encode())

    def __call__(self, run: npt.ArrayLike, luminosity_block: npt.ArrayLike) -> Bools:
        """Return which of (n,) runs and luminosity sections are certified, (n,) bool."""
        certified = _lumi_mask(self.packed)(np.asarray(run, np.uint32), np.asarray(luminosity_block, np.uint32))
        return np.asarray(certified, bool)


def _check_ranges(file: str, run: str, ranges: Any) -> None:
    if not run.isdecimal() or not isinstance(ranges, list):
        raise BadFile(f"{file}: {run!r} is not a run with its ranges of luminosity sections")
    before = 0
    for pair in ranges:
        numbers = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
        if not numbers or not before < pair[0] <= pair[1]:  # coffea's search takes rising ranges for granted
            raise BadFile(f"{file}: run {run}: {pair} is not a range [first, last] above those before it")
        before = pair[1]


def _read_json(file: str) -> Any:
    try:
        data = Path(file).expanduser().read_bytes()
        return json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except OSError as error:
        raise BadFile(f"{file}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zlib.error) as error:
        raise BadFile(f"{file}: this is not JSON ({' '.join(str(error).split())[:100]})") from None


@lru_cache(maxsize=256)
def _evaluator(packed: bytes, name: str, *, clamped: bool = False) -> Any:
    text = zlib.decompress(packed).decode()
    if clamped:
        content = json.loads(text)
        for node in _nodes([part["data"] for part in content["corrections"]]):
            if node.get("flow") == "error":
                node["flow"] = "clamp"
        text = json.dumps(content)
    corrections = correctionlib.CorrectionSet.from_string(text)
    return corrections.compound[name] if name in set(corrections.compound) else corrections[name]


@lru_cache(maxsize=8)
def _lumi_mask(packed: bytes) -> Any:
    from coffea.lumi_tools import LumiMask as CoffeaLumiMask  # noqa: PLC0415  compiles for seconds

    return CoffeaLumiMask("data:application/json;base64," + base64.b64encode(zlib.decompress(packed)).decode())


def _has_form(content: Mapping[str, Any]) -> bool:
    """Say whether corrections have names, inputs and content; the library looks at the content."""
    simple, compound = content["corrections"], content.get("compound_corrections") or []
    if not isinstance(simple, list) or not isinstance(compound, list):
        return False
    names = {c["name"] for c in simple if isinstance(c, dict) and isinstance(c.get("name"), str)}

    def right(correction: Any, key: str) -> bool:
        if not isinstance(correction, dict) or not isinstance(correction.get("name"), str) or key not in correction:
            return False
        inputs = correction.get("inputs")
        return isinstance(inputs, list) and all(
            isinstance(i, dict) and isinstance(i.get("name"), str) and i.get("type") in ("string", "int", "real")
            for i in inputs
        )  # fmt: skip

    stacks = (c["stack"] for c in compound if right(c, "stack"))
    return (
        all(right(c, "data") for c in simple)
        and all(right(c, "stack") for c in compound)
        and all(isinstance(stack, list) and all(isinstance(n, str) and n in names for n in stack) for stack in stacks)
    )


def _unknown(name: str, known: list[str]) -> str:
    """As `unknown_text`, but a file of jet energy corrections has hundreds of names."""
    if len(known) <= 20:
        return unknown_text("correction", name, known)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.0)
    return f"{unknown_text('correction', name, near)}, … ({len(known)} in all)"


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for part in node:
            if isinstance(part, (dict, list)):
                yield from _nodes(part)
    elif isinstance(node, dict):
        yield node
        for key in ("data", "content", "value"):
            yield from _nodes(node.get(key))


def _words(parts: list[Any], name: str) -> frozenset[str]:
    """Return all words that categories of a string input know, or none if one of them has a default."""
    categories = [n for n in _nodes(parts) if n.get("nodetype") == "category" and n.get("input") == name]
    if any(node.get("default") is not None for node in categories):
        return frozenset()
    return frozenset(str(item["key"]) for node in categories for item in node["content"])
