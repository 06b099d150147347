"""Members: one training of a search, of one window and one fold, and what comes of it."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from coffea_ad.errors import BadModel
from coffea_ad.nn.export import check_scores
from coffea_ad.resonant.diagnostics import closure
from coffea_ad.resonant.merged import Merged
from coffea_ad.resonant.method import Method
from coffea_ad.resonant.methods import METHODS
from coffea_ad.resonant.settings import Settings
from coffea_ad.resonant.windows import Window, mass_of
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["Member", "Role", "Task", "train_member"]

Role = Literal["data", "simulation", "background", "signal"]
_COMPARED = 2000  # rows on which the model and its graph are compared
_BLOCK = 1024


@dataclass(frozen=True)
class Task:
    """One training of a search.

    Attributes
    ----------
    method : str
        A key of `METHODS`, or several with + between them, whose templates are merged.
    settings : Settings
    window : Window
    fold, k : int
        Fold f is scored, f + 1 validates, the others train.
    salt : str
        Divides events into folds.
    seed : int
    template_rows : int
        Half of them calibrate the score, and half are counted.
    """

    method: str
    settings: Settings
    window: Window
    fold: int
    k: int
    salt: str
    seed: int
    template_rows: int

    @property
    def name(self) -> str:
        """What the training is called in messages and files."""
        return f"{self.window.name}_fold_{self.fold}"

    def key(self, rows: str) -> str:
        """Return what the result depends on: settings, and the digest of the rows."""
        text = json.dumps(
            [self.method, self.settings.model_dump(mode="json"), self.window.model_dump(), self.fold, self.k, self.salt,
             self.seed, self.template_rows, rows],
            sort_keys=True,
        )  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Member:
    """What a training leaves: a graph, its scores of template and test rows, and what was found out.

    It is `Scorable`, so that members of all folds become one model without torch.

    Attributes
    ----------
    data : bytes
        ONNX graph, "features" → "score".
    template, template_weight, template_score : (n, columns), (n,), (n,)
        Rows that the background of the signal region would have; the first half calibrates, the second is counted.
    event, dataset, score : (k, 3), (k,), (k,)
        run, luminosityBlock and event of the test rows, where they come from, and their scores.
    sideband_score, sideband_template_score, sideband_template_weight : (s,), (t,), (t,)
        Scores of test rows in the sidebands, and of a template that is made for them; none if the method makes none.
    metrics : dict
    """

    method: str
    shape: tuple[int, ...]
    density: Density | None
    data: bytes
    template: Float32s
    template_weight: Float64s
    template_score: Float32s
    event: Ints
    dataset: npt.NDArray[np.str_]
    score: Float32s
    sideband_score: Float32s
    sideband_template_score: Float32s
    sideband_template_weight: Float64s
    metrics: dict[str, Any] = field(default_factory=dict)
    folds: Folds | None = None

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Score rows by the graph, (n, columns) → (n,)."""
        return run_graph(self.data, x)

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return the graph; its output is "score"."""
        if list(outputs) != ["score"]:
            raise BadModel(f"the graph of a member has the output score, not {', '.join(outputs)}")
        return self.data

    def to_bytes(self, key: str) -> bytes:
        """Write everything, with the key of the training."""
        info = {
            "key": key,
            "method": self.method,
            "shape": self.shape,
            "density": self.density,
            "metrics": self.metrics,
        }
        out = io.BytesIO()
        np.savez_compressed(
            out, info=np.frombuffer(json.dumps(info).encode(), np.uint8), data=np.frombuffer(self.data, np.uint8),
            template=self.template, template_weight=self.template_weight, template_score=self.template_score,
            event=self.event, dataset=self.dataset, score=self.score, sideband_score=self.sideband_score,
            sideband_template_score=self.sideband_template_score, sideband_template_weight=self.sideband_template_weight,
        )  # fmt: skip
        return out.getvalue()

    @classmethod
    def from_bytes(cls, stored: bytes, key: str | None = None) -> Member | None:
        """Read what `to_bytes` wrote; None if it is of another training, or cut off."""
        try:
            with np.load(io.BytesIO(stored), allow_pickle=False) as file:
                info = json.loads(file["info"].tobytes())
                if key is not None and info["key"] != key:
                    return None
                return cls(
                    info["method"], tuple(info["shape"]), info["density"], file["data"].tobytes(), file["template"],
                    file["template_weight"], file["template_score"], file["event"], file["dataset"], file["score"],
                    file["sideband_score"], file["sideband_template_score"], file["sideband_template_weight"], info["metrics"],
                )  # fmt: skip
        except (ValueError, KeyError, OSError, EOFError, BadZipFile):
            return None


def run_graph(data: bytes, x: Float32s) -> Float32s:
    """Return the scores of rows by a graph "features" → "score", in batches of about a thousand."""
    session = _session(data)
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(x), _BLOCK):
        rows = np.ascontiguousarray(x[start : start + _BLOCK], np.float32)
        parts.append(session.run(["score"], {"features": rows})[0].reshape(-1))
    return np.concatenate(parts)


@lru_cache(maxsize=16)
def _session(data: bytes) -> onnxruntime.InferenceSession:
    """Make a session, which takes longer than many scores; those of all folds are kept."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def method_of(task: Task, folder: Path) -> Method:
    """Return the method of a task, not fitted."""
    names = task.method.split("+")
    several = [METHODS[n](task.settings, task.window, folder / n, task.seed) for n in names]
    if len(several) == 1:
        return several[0]
    return Merged(several, task.settings, task.window, folder, task.seed)


def train_member(task: Task, skims: Mapping[Role, Skim]) -> Member:
    """Train one member of a search, and score with it what it has not seen.

    Parameters
    ----------
    task : Task
    skims : {"data", "simulation", "background" or "signal": Skim}
        Rows of the window and its sidebands.

    Raises
    ------
    SkimError, TemplateRefused
        Of the method.
    BadModel
        The graph does not give the model's scores.
    """
    torch.set_num_threads(1)
    divided = {role: skim.for_fold(task.fold, task.k, task.salt) for role, skim in skims.items()}
    mass = mass_of(divided["data"], task.window.mass)
    signal_region = divided["data"].select(task.window.in_signal_region(mass))
    sidebands = divided["data"].select(task.window.in_sidebands(mass))
    with tempfile.TemporaryDirectory() as folder:
        method = method_of(task, Path(folder))
        others = {role: divided.get(role) for role in ("simulation", "background", "signal")}
        model = method.fit(sidebands, signal_region, **others)
        template = method.template(task.template_rows, 10_000 + task.seed)
        beside = method.sideband_template(20_000 + task.seed)
        if "closure_auc" not in method.metrics:
            value, error = closure(
                signal_region.splits("train", "validation"), template, method.inputs(template), seed=task.seed
            )
            method.metrics |= {"closure_auc": value, "closure_error": error}
    data = model.graph(["score"])
    x = np.asarray(template.x[:], np.float32)
    some = x[:_COMPARED]
    check_scores(model, model.scores(some), run_graph(data, some), task.name)
    order = np.random.default_rng(task.seed).permutation(len(x))  # so that both halves are alike
    x, weight = x[order], template.weight[order]
    test = signal_region.splits("test")
    event = np.stack(
        [np.asarray(test.spectators[c]).astype(np.int64) for c in ("run", "luminosityBlock", "event")], axis=1
    )
    empty = np.zeros(0, np.float32)
    sideband = (empty, empty, empty.astype(np.float64))
    if beside is not None:
        sideband = (run_graph(data, sidebands.splits("test").x), run_graph(data, beside.x), beside.weight)
    return Member(
        model.method, model.shape, model.density, data, x, weight, run_graph(data, x), event, test.dataset, run_graph(data, test.x),
        *sideband,
        {**method.metrics, "signal_region_rows": len(signal_region.weight), "sideband_rows": len(sidebands.weight)},
    )  # fmt: skip
