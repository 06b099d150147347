"""OnnxScorer: verified model bytes in, scores out. The ONNX member of coffea's `ml_tools` family."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from coffea_ad import files
from coffea_ad.errors import BadFile, BadModel, CardMismatch
from coffea_ad.scoring.agreement import allowed
from coffea_ad.scoring.batches import batches
from coffea_ad.scoring.card import ModelCard, read_card
from coffea_ad.scoring.modelfile import check_graph, output_names, part_for, runtime_reason, verify
from coffea_ad.scoring.neighbours import LARGEST, depends, rescored
from coffea_ad.scoring.sessions import check_providers, load_session
from coffea_ad.typing import Float32s

__all__ = ["OnnxScorer"]

_GOLDEN_TOLERANCE = 1e-4
_ALONE = 16  # golden rows that are scored by themselves as well
_CACHE_SIZE = 16
_Key = tuple[str, tuple[str, ...], int, bool]
_sessions: OrderedDict[_Key, tuple[ort.InferenceSession, ...]] = OrderedDict()
_making: dict[_Key, threading.Lock] = {}
_lock = threading.Lock()

Batch = Mapping[str, npt.NDArray[Any]]


class OnnxScorer:
    """Scores from a model file, for plain arrays.

    It holds bytes and a card, never a session, and so it pickles; coffea unpickles a processor for every chunk, and the
    sessions live in one cache per process. The digest is verified and the golden rows are re-evaluated whenever a
    session is made, on every worker. The hooks have the names of coffea's `numpy_call_wrapper`.

    Parameters
    ----------
    model : path or bytes
        An ONNX file with a card.
    name : str, optional
        What messages call it; the path by default.
    batch : int
        Rows per call of the runtime: about a thousand fits the cache.
    threads : int
        Threads of the runtime; onnxruntime ignores OMP_NUM_THREADS, and dask runs one worker per core.
    providers : tuple of str
        onnxruntime execution providers, the preferred one first; a session that would do without it is refused.

    Raises
    ------
    BadModel
        Damaged, edited, without card, with foreign operators, with weights in another file, or its golden rows do not
        come out, or not one by one, backwards and in a full batch.
    ConfigError
        This onnxruntime has not these providers, found when the session is made.

    Examples
    --------
    >>> scorer = OnnxScorer(model_file)
    >>> scorer(np.full((2, 8), 0.1, np.float32)).shape
    (2,)
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        batch: int = 1024,
        threads: int = 1,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        name: str | None = None,
    ) -> None:
        if isinstance(model, bytes):
            self.name, self.data = name or "model", model
        else:
            if not isinstance(model, str | Path):
                raise BadModel(f"a model is the path of an ONNX file, or its bytes, not a {type(model).__name__}")
            self.name = name or str(model)
            try:
                self.data = files.read(model) if files.is_url(model) else Path(model).read_bytes()
            except BadFile as error:
                raise BadModel(str(error)) from None
            except OSError as error:
                raise BadModel(f"{model}: cannot be read ({error.strerror})") from None
        self.batch, self.threads, self.providers = batch, threads, tuple(providers)
        self.digest = verify(self.data, self.name)
        self.card: ModelCard = read_card(self.data, self.name)
        check_graph(self.data, self.name)

    def __repr__(self) -> str:
        """Name the model and its file."""
        return f"OnnxScorer({self.card.name!r}, model={self.name!r}, digest={self.digest[:12]!r})"

    @property
    def session(self) -> ort.InferenceSession:
        """The process-wide session of this model, made when first needed; of the first member, if there are several."""
        return self.sessions[0]

    @property
    def sessions(self) -> tuple[ort.InferenceSession, ...]:
        """One session, or one for each member."""
        return self._cached(contributions=False)

    def _cached(self, *, contributions: bool) -> tuple[ort.InferenceSession, ...]:
        """Return the sessions of scores or of contributions, made when first needed."""
        key = (self.digest, self.providers, self.threads, contributions)
        with _lock:
            if key in _sessions:
                _sessions.move_to_end(key)
                return _sessions[key]
            making = _making.setdefault(key, threading.Lock())
        with making:  # one thread makes them, and those of other models do not wait
            with _lock:
                if key in _sessions:
                    return _sessions[key]
            sessions = self._contribution_sessions() if contributions else self._make_sessions()
            with _lock:
                _sessions[key] = sessions
                while len(_sessions) > _CACHE_SIZE:
                    _sessions.popitem(last=False)
            return sessions

    def _make_sessions(self) -> tuple[ort.InferenceSession, ...]:
        verify(self.data, self.name)
        check_providers(self.providers)
        promised = (*self.card.outputs, *self.card.contribution_outputs)
        if promised == (self.card.output,):
            sessions: tuple[ort.InferenceSession, ...] = (self._load(self.data),)
        else:
            outputs = output_names(self.data, self.name)
            if lost := sorted(set(self.card.contribution_outputs) - set(outputs)):
                raise CardMismatch(
                    f"{self.name}: its card promises contributions, but the graph has no output {', '.join(lost)}; export the model again"
                )
            if len(self.card.outputs) > 1 and sorted(outputs) != sorted(promised):
                raise CardMismatch(
                    f"{self.name}: the card has {self._members_in_words()}, but the graph the outputs {', '.join(outputs)}"
                )
            sessions = tuple(self._load(part_for(self.data, output, self.name)) for output in self.card.outputs)
        for session, output in zip(sessions, self.card.outputs, strict=True):
            self._check_signature(session, output)
        self._check_golden(sessions)
        return sessions

    def _contribution_sessions(self) -> tuple[ort.InferenceSession, ...]:
        """Make a session for the contributions to each member's score, by its part of the graph."""
        self.sessions  # noqa: B018  which verifies the file, its golden rows among others
        sessions = tuple(
            self._load(part_for(self.data, output, self.name)) for output in self.card.contribution_outputs
        )
        for session, output in zip(sessions, self.card.contribution_outputs, strict=True):
            self._check_signature(session, output)
        return sessions

    def _members_in_words(self) -> str:
        """Say what the members are."""
        windows = [] if self.card.windows is None else [f"{len(self.card.windows.bounds)} windows"]
        folds = [] if self.card.folds is None else [f"{self.card.folds.k} folds"]
        return " with ".join(windows + folds)

    def _load(self, data: bytes) -> ort.InferenceSession:
        return load_session(data, self.name, threads=self.threads, providers=self.providers)

    def _check_signature(self, session: ort.InferenceSession, output: str) -> None:
        wanted = {spec.name: spec.shape for spec in self.card.inputs}
        signature = {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}
        # A dimension that the graph leaves open has a name, or none.
        closed = {name: tuple(d if isinstance(d, int) else w for d, w in zip(dims, wanted.get(name, ()), strict=False))
                  for name, dims in signature.items()}  # fmt: skip
        if wanted != closed or any(len(signature[name]) != len(wanted[name]) for name in wanted):
            raise CardMismatch(f"{self.name}: the card's inputs {wanted} are not the graph's {signature}")
        outputs = [o for o in session.get_outputs() if o.name == output]
        if not outputs:
            raise CardMismatch(f"{self.name}: the graph has no output {output!r}")
        for value in (*session.get_inputs(), *outputs):
            if value.type != "tensor(float)":
                raise CardMismatch(f"{self.name}: {value.name} is {value.type}, but inputs and scores must be float32")
            if value.shape and isinstance(value.shape[0], int):
                raise CardMismatch(f"{self.name}: {value.name} has room for {value.shape[0]} rows, not for any number")

    def _check_golden(self, sessions: tuple[ort.InferenceSession, ...]) -> None:
        golden = self.card.golden
        if golden is None:
            return
        rows = {}
        for spec in self.card.inputs:
            try:
                rows[spec.name] = golden.rows(spec)
            except (KeyError, ValueError, FloatingPointError):
                raise BadModel(f"{self.name}: its golden rows are not rows of input {spec.name}") from None
        scores = np.concatenate([self._run(*member, rows) for member in zip(sessions, self.card.outputs, strict=True)])
        excess = self._excess(scores, np.asarray(golden.scores))
        if not np.max(excess) <= 1:
            worst = _GOLDEN_TOLERANCE * np.max(excess)
            raise BadModel(f"{self.name}: its golden rows do not give their scores (off by {worst:.2g})")
        for session, output, expected in zip(sessions, self.card.outputs, np.split(scores, len(sessions)), strict=True):
            self._check_neighbours(session, output, rows, expected)

    def _excess(self, scores: npt.NDArray[Any], expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return differences over those that are allowed."""
        bounds = allowed(expected, _GOLDEN_TOLERANCE * (1 + np.abs(expected)), self.card.density)
        return np.asarray(np.abs(scores - expected) / bounds)

    def _check_neighbours(self, session: ort.InferenceSession, output: str, rows: Batch, expected: Float32s) -> None:
        """Check that the first golden rows keep their scores in other batches."""
        some, expected = {name: array[:_ALONE] for name, array in rows.items()}, expected[:_ALONE]
        for scores, how in rescored(functools.partial(self._run, session, output), some, min(self.batch, LARGEST)):
            excess = self._excess(scores, expected)
            if not np.max(excess) <= 1:
                at = int(np.argmax(excess))  # the first NaN, if there is one
                raise BadModel(depends(self.name, expected[at], len(expected), scores[at], how))

    def __call__(
        self, rows: Batch | npt.NDArray[Any] | ak.Array, members: npt.ArrayLike | None = None
    ) -> Float32s | ak.Array:
        """Score rows.

        Parameters
        ----------
        rows : {input: (n, columns) float32}, or (n, columns) float32, or ak.Array of records
            Records are matched with the card's columns by name.
        members : (n,) integers, optional
            Which member scores each row, for a model whose card has folds or windows: `members.member_of(card, column)`,
            which for folds alone is the fold of the row's event (`weights.fold_of`). −1 for a row outside of the windows,
            or of the domain; without members, the rows given to a model with a domain are taken to lie in it.

        Returns
        -------
        (n,) float32
            NaN for a row with a NaN or infinite value, and for one that no member scores. An awkward array for awkward
            input.

        Raises
        ------
        CardMismatch
            Names, number of columns or dtype are not the card's; members are missing, or the card has only one.
        """
        if isinstance(rows, ak.Array):
            return self.postprocess_awkward(self.numpy_call(self.prepare_awkward(rows), members), rows)
        batch: Batch = rows if isinstance(rows, Mapping) else {self.card.inputs[0].name: rows}
        self.validate_numpy_input(batch)
        return self.numpy_call(batch, members)

    def prepare_awkward(self, rows: ak.Array) -> dict[str, Float32s]:
        """Collect the card's columns from flat records by name; None becomes NaN."""
        batch = {}
        for spec in self.card.inputs:
            if len(spec.shape) != 1:
                raise CardMismatch(f"{self.name}: input {spec.name} has rows of shape {spec.shape}; pass a numpy array")
        known = {c for spec in self.card.inputs for c in spec.columns}
        missing, extra = sorted(known - set(ak.fields(rows))), sorted(set(ak.fields(rows)) - known)
        if missing or extra:
            raise CardMismatch(
                f"{self.name}: columns missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}"
            )
        for spec in self.card.inputs:
            for name in spec.columns:
                kind = str(ak.type(rows[name]).content)
                if kind not in ("float32", "?float32"):
                    raise CardMismatch(f"{self.name}: column {name} is {kind}, but must be one float32 a row")
            columns = [np.asarray(ak.to_numpy(ak.fill_none(rows[c], np.float32(np.nan)))) for c in spec.columns]
            batch[spec.name] = np.stack(columns, axis=1)
        return batch

    def validate_numpy_input(self, batch: Batch) -> None:
        """Check names, shapes and dtype against the card."""
        names = [spec.name for spec in self.card.inputs]
        if list(batch) != names:
            raise CardMismatch(f"{self.name}: the inputs are {names}, not {list(batch)}")
        for spec in self.card.inputs:
            array = batch[spec.name]
            if array.ndim == 0 or array.shape[1:] != spec.shape:
                listed = ", ".join(spec.columns[:20]) + (", …" if len(spec.columns) > 20 else "")
                needs = ", ".join(str(d) for d in spec.shape)
                raise CardMismatch(
                    f"{self.name}: input {spec.name} has shape {array.shape}, but needs (n, {needs}): {listed}"
                )
            if array.dtype != np.float32:
                raise CardMismatch(f"{self.name}: input {spec.name} is {array.dtype}, but must be float32")
        lengths = {len(array) for array in batch.values()}
        if len(lengths) > 1:
            raise CardMismatch(f"{self.name}: the inputs have {' and '.join(map(str, sorted(lengths)))} rows")

    @property
    def step(self) -> int:
        """Rows that are worked on at a time: so many that every member has about a batch of them."""
        return self.batch * len(self.card.outputs)

    def numpy_call(self, batch: Batch, members: npt.ArrayLike | None = None) -> Float32s:
        """Score validated rows; undefined rows, rows of no member and empty input never reach the runtime."""
        return self._of_members(batch, members)

    def contributions(self, rows: Batch | npt.NDArray[Any], members: npt.ArrayLike | None = None) -> Float32s:
        """Return what each part of a row adds to its score, or to exp(score), as the card says.

        Parameters
        ----------
        rows, members
            As for scores.

        Returns
        -------
        (n, parts) float32
            Their sum over parts is that of `card.contributions.of`, up to rounding; the names are `card.parts`. NaN where there is
            no score.

        Raises
        ------
        CardMismatch
            The model has no contributions, or what it gives are not as many as the card names; and as for scores.
        """
        if self.card.contributions is None:
            raise CardMismatch(
                f"{self.name}: its card promises no contributions; coffea-ad explain takes gradients of its training"
            )
        batch: Batch = rows if isinstance(rows, Mapping) else {self.card.inputs[0].name: rows}
        self.validate_numpy_input(batch)
        return self._of_members(batch, members, contributions=True)

    def _of_members(self, batch: Batch, members: npt.ArrayLike | None, *, contributions: bool = False) -> Float32s:
        """Return scores or contributions by the member of every row."""
        outputs = self.card.contribution_outputs if contributions else self.card.outputs
        shape = (len(self.card.parts),) if contributions else ()
        n = len(next(iter(batch.values())))
        of = self._members(members, n)
        values = np.full((n, *shape), np.nan, np.float32)
        for start in range(0, n, self.step):
            part = {name: array[start : start + self.step] for name, array in batch.items()}
            block = values[start : start + self.step]
            defined = np.ones(len(block), bool)
            for array in part.values():
                defined &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            for member, output in enumerate(outputs):
                scored = defined if of is None else defined & (of[start : start + self.step] == member)
                if scored.any():
                    rows = part if scored.all() else {name: array[scored] for name, array in part.items()}
                    got = self._run(self._cached(contributions=contributions)[member], output, rows, shape)
                    block[scored] = np.where(np.isfinite(got), got, np.float32(np.nan))
        return values

    def _members(self, members: npt.ArrayLike | None, n: int) -> npt.NDArray[Any] | None:
        """Check which member scores each row."""
        k, somewhere = self.card.members, bool(self.card.validity)
        if members is None:
            if k == 1:
                return None
            how = "member of every row (members.member_of)" if somewhere else "fold of every row (weights.fold_of)"
            raise CardMismatch(f"{self.name}: the model has {k} members; give the {how}")
        if k == 1 and not somewhere:
            raise CardMismatch(f"{self.name}: the card has no folds, and one network scores all rows")
        of = np.asarray(members)
        least = -1 if somewhere else 0
        if of.shape != (n,) or of.dtype.kind not in "iu" or np.any((of < least) | (of >= k)):
            what = "members" if somewhere else "folds"
            raise CardMismatch(f"{self.name}: {what} must be {n} integers from {least} to {k - 1}, one for every row")
        return of

    def _run(self, session: ort.InferenceSession, output: str, batch: Batch, shape: tuple[int, ...] = ()) -> Float32s:
        n = len(next(iter(batch.values())))
        values = np.empty((n, *shape), np.float32)
        for places, rows in batches(batch, self.batch, slots_vary=self.card.slots_vary):
            length = len(next(iter(rows.values())))
            try:
                part = np.asarray(session.run([output], rows)[0], np.float32)
            except Exception as error:  # noqa: BLE001  as above
                many = f"{length} rows"
                raise BadModel(f"{self.name}: onnxruntime cannot run it on {many}: {runtime_reason(error)}") from None
            if shape and part.shape != (length, *shape):
                raise CardMismatch(
                    f"{self.name}: output {output} has the shape {part.shape}, but the card names {shape[0]} parts of a row"
                )
            if not shape and part.size != length:
                raise CardMismatch(
                    f"{self.name}: output {output} has the shape {part.shape}, not one score a row; if it is a reconstruction, "
                    "attach its card with `score: mse`, mae, ln_mse or ln_mae; if a latent vector, coffea-ad run latent fits one to it"
                )
            values[places] = part.reshape(-1, *shape)
        return values

    def postprocess_awkward(self, scores: Float32s, rows: ak.Array) -> ak.Array:
        """Return the scores as an awkward array with the rows' behavior."""
        return ak.Array(scores, behavior=rows.behavior)
