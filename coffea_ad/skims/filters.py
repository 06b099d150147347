"""Which rows of a skim are read: conditions on its columns, of which all must hold."""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coffea_ad.errors import SkimError

__all__ = ["Passing", "column_of", "conditions", "expression", "filters_in_words"]

Condition = tuple[Any, ...]
_TEXT = re.compile(r"\s*(\S.*?)\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*")
_ABSOLUTE = re.compile(r"abs\((.+)\)")
_COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def conditions(filters: Sequence[Any]) -> list[Condition]:
    """Return filters as (column, operator, value), with their numbers; in YAML, 1e9 without a dot is a text.

    Parameters
    ----------
    filters : sequence
        Of texts such as "pt > 150", or of a column, an operator and a value, in pyarrow's form.

    Raises
    ------
    SkimError
        One is neither.

    Examples
    --------
    >>> conditions(["pt > 150", "abs(eta)<2", ("met", ">=", "1e2")])
    [('pt', '>', 150.0), ('abs(eta)', '<', 2.0), ('met', '>=', 100.0)]
    """
    if not isinstance(filters, (list, tuple)):
        raise _neither(filters)
    flat = [f for one in filters for f in (one if _are_texts(one) else [one])]
    return [_condition(f) for f in flat]


def _are_texts(one: Any) -> bool:
    """Say whether this is a list of conditions, where one was looked for: [[pt > 1, pt < 3]]."""
    return (
        isinstance(one, (list, tuple)) and len(one) > 0 and all(isinstance(f, str) and _TEXT.fullmatch(f) for f in one)
    )


def _condition(one: Any) -> Condition:
    text = _TEXT.fullmatch(one) if isinstance(one, str) else None
    parts = text.groups() if text else one
    if not isinstance(parts, (list, tuple)) or len(parts) != 3:
        raise _neither(one)
    column, comparison, value = parts
    return column, comparison, _number(value)


def _neither(what: Any) -> SkimError:
    return SkimError(f'filters are a column, an operator and a value, such as "pt > 150", but not {what!r}')


def _number(value: Any) -> Any:
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def column_of(condition: Condition) -> str:
    """Return the column that a condition asks for: eta of abs(eta)."""
    absolute = _ABSOLUTE.fullmatch(str(condition[0]))
    return absolute[1].strip() if absolute else str(condition[0])


def expression(filters: Sequence[Condition]) -> pc.Expression | None:
    """Return conditions as pyarrow applies them to a table; None without any.

    Raises
    ------
    ValueError, TypeError
        An operator is unknown, or does not go with its value.
    """
    parts = [_expression(condition) for condition in filters]
    return functools.reduce(operator.and_, parts) if parts else None


def _expression(condition: Condition) -> pc.Expression:
    column, comparison, value = condition
    name = column_of(condition)
    if name == column:
        return pq.filters_to_expression([(name, comparison, value)])
    if comparison not in _COMPARISONS:
        raise ValueError(f"{column} is compared by {', '.join(_COMPARISONS)}, not by {comparison}")
    return _COMPARISONS[comparison](pc.abs(pc.field(name)), value)


def filters_in_words(filters: Sequence[Condition]) -> list[str]:
    """Return every condition as one reads it.

    >>> filters_in_words([("pt", ">", 150.0), ("n", "in", [1, 2])])
    ['pt > 150', 'n in [1, 2]']
    """
    return [f"{c} {o} {v:g}" if isinstance(v, (int, float)) else f"{c} {o} {v}" for c, o, v in filters]


class Passing:
    """How many rows of every dataset pass conditions, one after another.

    Attributes
    ----------
    rows : {dataset: [all, those that pass the first, …]}

    Examples
    --------
    >>> passing = Passing(conditions(["pt > 1", "pt < 3"]))
    >>> len(passing.passed("qcd", pa.table({"pt": [1.0, 2.0, 3.0]}))), passing.rows
    (1, {'qcd': [3, 2, 1]})
    """

    def __init__(self, filters: Sequence[Condition]) -> None:
        self.filters = tuple(filters)
        self.rows: dict[str, list[int]] = {}
        self._ranges: dict[str, tuple[Any, Any]] = {}

    def passed(self, dataset: str, table: pa.Table) -> pa.Table:
        """Return the rows of a table that pass, and count those of every step."""
        for name in dict.fromkeys(map(column_of, self.filters)):
            ends = pc.min_max(table[name]).as_py()
            known = [v for v in (ends["min"], ends["max"], *self._ranges.get(name, ())) if v is not None]
            self._ranges.update({name: (min(known), max(known))} if known else {})
        counts = [len(table)]
        for condition in self.filters:
            table = table.filter(_expression(condition))
            counts.append(len(table))
        before = self.rows.get(dataset, [0] * len(counts))
        self.rows[dataset] = [a + b for a, b in zip(before, counts, strict=True)]
        return table

    def refuse_nothing(self, folder: Any) -> None:
        """Refuse filters that leave no row.

        Raises
        ------
        SkimError
            With what each column holds.
        """
        total = [sum(counts) for counts in zip(*self.rows.values(), strict=True)]
        if not self.filters or not total or total[-1]:
            return
        wanted = " and ".join(filters_in_words(self.filters))
        ranges = ", ".join(f"{name} lies between {a:g} and {b:g}" for name, (a, b) in self._ranges.items())
        of = ", ".join(sorted(self.rows))
        raise SkimError(
            f"{folder}: of {total[0]} rows of {of} none passes {wanted}" + (f": {ranges}" if ranges else "")
        )
