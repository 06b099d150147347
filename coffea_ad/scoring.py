"""OnnxScorer: verified model bytes in, scores out. The ONNX member of coffea's `ml_tools` family."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from coffea_ad.card import ModelCard, read_card
from coffea_ad.errors import BadModel, CardMismatch
from coffea_ad.modelfile import opset_domains, verify

__all__ = ["OnnxScorer"]

_ALLOWED_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_GOLDEN_TOLERANCE = 1e-4
_CACHE_SIZE = 16
_sessions: OrderedDict[tuple[str, tuple[str, ...], int], ort.InferenceSession] = OrderedDict()
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
    batch : int
        Rows per call of the runtime: about a thousand fits the cache.
    threads : int
        Threads of the runtime; onnxruntime ignores OMP_NUM_THREADS, and dask runs one worker per core.
    providers : tuple of str
        onnxruntime execution providers.

    Raises
    ------
    BadModel
        Damaged, edited, without card, with foreign operators, or its golden rows do not come out.

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
    ) -> None:
        if isinstance(model, bytes):
            self.name, self.data = "model", model
        else:
            self.name = str(model)
            try:
                self.data = Path(model).read_bytes()
            except OSError as error:
                raise BadModel(f"{model}: cannot be read ({error.strerror})") from None
        self.batch, self.threads, self.providers = batch, threads, tuple(providers)
        self.digest = verify(self.data, self.name)
        self.card: ModelCard = read_card(self.data, self.name)
        foreign = set(opset_domains(self.data, self.name)) - _ALLOWED_DOMAINS
        if foreign:
            raise BadModel(f"{self.name}: it uses operators of a foreign domain: {', '.join(sorted(foreign))}")

    @property
    def session(self) -> ort.InferenceSession:
        """The process-wide session of this model, made when first needed."""
        key = (self.digest, self.providers, self.threads)
        with _lock:
            if key not in _sessions:
                _sessions[key] = self._make_session()
                while len(_sessions) > _CACHE_SIZE:
                    _sessions.popitem(last=False)
            _sessions.move_to_end(key)
            return _sessions[key]

    def _make_session(self) -> ort.InferenceSession:
        verify(self.data, self.name)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = self.threads
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(self.data, options, providers=list(self.providers))
        except Exception as error:  # noqa: BLE001  onnxruntime has a dozen exception types without a common base
            raise BadModel(f"{self.name}: onnxruntime cannot load it: {str(error).splitlines()[0]}") from None
        self._check_signature(session)
        golden = self.card.golden
        if golden is not None:
            shapes = {spec.name: spec.shape for spec in self.card.inputs}
            rows = {name: np.array(v, np.float32).reshape(-1, *shapes[name]) for name, v in golden.inputs.items()}
            scores = self._run(session, rows)
            worst = np.max(np.abs(scores - golden.scores) / (1 + np.abs(golden.scores)))
            if not worst <= _GOLDEN_TOLERANCE:
                raise BadModel(f"{self.name}: its golden rows do not give their scores (off by {worst:.2g})")
        return session

    def _check_signature(self, session: ort.InferenceSession) -> None:
        wanted = {spec.name: spec.shape for spec in self.card.inputs}
        found = {i.name: tuple(i.shape[1:]) for i in session.get_inputs()}
        # A dimension that the graph leaves open has a name, or none.
        closed = {name: tuple(d if isinstance(d, int) else w for d, w in zip(dims, wanted.get(name, ()), strict=False))
                  for name, dims in found.items()}  # fmt: skip
        if wanted != closed or any(len(found[name]) != len(wanted[name]) for name in wanted):
            raise CardMismatch(f"{self.name}: the card's inputs {wanted} are not the graph's {found}")
        if any(i.type != "tensor(float)" for i in session.get_inputs()):
            raise CardMismatch(f"{self.name}: all inputs must be float32")
        if self.card.output not in {o.name for o in session.get_outputs()}:
            raise CardMismatch(f"{self.name}: the graph has no output {self.card.output!r}")

    def __call__(self, rows: Batch | npt.NDArray[Any] | ak.Array) -> npt.NDArray[np.float32] | ak.Array:
        """Score rows.

        Parameters
        ----------
        rows : {input: (n, columns) float32}, or (n, columns) float32, or ak.Array of records
            Records are matched with the card's columns by name.

        Returns
        -------
        (n,) float32
            NaN for a row with a NaN or infinite value. An awkward array for awkward input.

        Raises
        ------
        CardMismatch
            Names, number of columns or dtype are not the card's.
        """
        if isinstance(rows, ak.Array):
            return self.postprocess_awkward(self.numpy_call(self.prepare_awkward(rows)), rows)
        batch: Batch = rows if isinstance(rows, Mapping) else {self.card.inputs[0].name: rows}
        self.validate_numpy_input(batch)
        return self.numpy_call(batch)

    def prepare_awkward(self, rows: ak.Array) -> dict[str, npt.NDArray[np.float32]]:
        """Collect the card's columns from flat records by name."""
        batch = {}
        for spec in self.card.inputs:
            if len(spec.shape) != 1:
                raise CardMismatch(f"{self.name}: input {spec.name} has rows of shape {spec.shape}; pass a numpy array")
            missing = [c for c in spec.columns if c not in ak.fields(rows)]
            extra = [c for c in ak.fields(rows) if c not in spec.columns]
            if missing or extra:
                raise CardMismatch(
                    f"{self.name}: columns missing: {', '.join(missing) or 'none'}; unknown: {', '.join(extra) or 'none'}"
                )
            columns = [np.asarray(ak.to_numpy(rows[c])).astype(np.float32) for c in spec.columns]
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

    def numpy_call(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Score validated rows; undefined rows and empty input never reach the runtime."""
        n = len(next(iter(batch.values())))
        scores = np.full(n, np.nan, np.float32)
        finite = np.ones(n, bool)
        for array in batch.values():
            finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if finite.any():
            got = self._run(self.session, {name: array[finite] for name, array in batch.items()})
            scores[finite] = np.where(np.isfinite(got), got, np.nan)
        return scores

    def _run(self, session: ort.InferenceSession, batch: Batch) -> npt.NDArray[np.float32]:
        n = len(next(iter(batch.values())))
        parts = [
            session.run([self.card.output], {k: v[start : start + self.batch] for k, v in batch.items()})[0]
            for start in range(0, n, self.batch)
        ]
        return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])

    def postprocess_awkward(self, scores: npt.NDArray[np.float32], rows: ak.Array) -> ak.Array:
        """Return the scores as an awkward array with the rows' behavior."""
        return ak.Array(scores, behavior=rows.behavior)
