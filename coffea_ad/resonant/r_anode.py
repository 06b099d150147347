"""R-ANODE: the density of the signal, fitted beside a frozen background, with a guard against mismodelled background."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import TemplateRefused
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.ensemble import Ensemble
from coffea_ad.nn.model import Batch
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.training.batches import TrainingRows, fit_transform
from coffea_ad.nn.training.history import History
from coffea_ad.nn.training.loop import fit
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.nn.transforms.per_column import preprocessing
from coffea_ad.resonant.cathode import Sampled
from coffea_ad.resonant.diagnostics import closure
from coffea_ad.resonant.masses import TiltedExponential
from coffea_ad.resonant.method import Need
from coffea_ad.resonant.ratio import LogRatio, Spectrum
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["RANODE", "SignalFlow"]

_SIGMAS = 3.0
_FASTER = 2.0  # than other weights: faster, w would rise before p_S knows what it is of, and p_S would take the background over


class SignalFlow(Flow):
    """p_S(x, m), learnt from L = −⟨log(w p_S + (1 − w) p_B)⟩ over data, with p_B known for every row.

    Parameters
    ----------
    features : int
    fraction : float
        w at the start, or always.
    learnt : bool
        Whether w = σ(θ) is learnt.
    transform : Transform
    options
        Of `Flow`.

    References
    ----------
    R. Das, G. Kasieczka, D. Shih, "Residual ANODE", arXiv:2312.11629.
    """

    training_only: ClassVar[tuple[str, ...]] = ("scaled_logit",)

    def __init__(
        self, features: int, *, fraction: float = 0.005, learnt: bool = True, transform: Transform, **options: Any
    ) -> None:
        super().__init__(features, transform=transform, **options)
        start = torch.tensor(float(np.log(fraction / (1 - fraction))) / _FASTER)
        self.scaled_logit = torch.nn.Parameter(start, requires_grad=learnt)
        self._log_background = torch.zeros(0)

    def given_background(self, log_background: Float64s) -> None:
        """Take log p_B of every row of the skim in coordinates z of the signal's flow, (rows,)."""
        self._log_background = torch.from_numpy(np.asarray(log_background, np.float32))

    @property
    def fraction(self) -> float:
        """The fraction of signal, w."""
        return float(torch.sigmoid(_FASTER * self.scaled_logit.detach()))

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean of −log(w p_S + (1 − w) p_B), and w."""
        return {"loss": self._loss(batch), "fraction": torch.sigmoid(_FASTER * self.scaled_logit.detach())}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return the loss on held-out rows."""
        with torch.no_grad():
            return {"validation": self._loss(batch).item(), "w": self.fraction}

    def _loss(self, batch: Batch) -> Tensor:
        logit = _FASTER * self.scaled_logit
        signal = torch.nn.functional.logsigmoid(logit) - self.energy(batch.z)
        background = torch.nn.functional.logsigmoid(-logit) + self._log_background[batch.row.cpu()]
        return -torch.logaddexp(signal, background).mean()


class RANODE(Sampled):
    """s(x, m) = log p_S(x, m) − log p_B(x | m) − log p_B(m), where only p_S, and w if it is not fixed, learn from the data.

    p_S takes whatever p_B does not describe: signal, or errors of p_B. A classifier therefore tells data of the signal region from
    samples of p_B. A fraction w of anything cannot make its AUC larger than (1 + w)/2; if it is, by more than three of
    its errors, p_B is wrong by more than w explains, and the result is refused.

    References
    ----------
    R. Das, G. Kasieczka, D. Shih, "Residual ANODE", arXiv:2312.11629.
    """

    name: ClassVar[str] = "r_anode"
    needs: ClassVar[tuple[Need, ...]] = ("sidebands",)
    reference: ClassVar[str] = "arXiv:2312.11629"

    def learn(self) -> Scorable:
        """Learn p_B in the sidebands, with true background as well where that is given, and p_S in the signal region.

        Raises
        ------
        TemplateRefused
            p_B does not describe the signal region.
        """
        known = self.sidebands if self.background is None else self.sidebands.joined(self.background)
        self.learn_density(known)
        rows = self.signal_region.splits("train", "validation")
        place = rows.columns.index(self.window.mass)
        spectrum = TiltedExponential(self.masses, self.window)
        under = [self.flow, Spectrum(spectrum, len(rows.columns), place)]
        log_background = -np.sum([m.scores(rows.x).astype(np.float64) for m in under], axis=0)
        model, history = self._best(rows, log_background)
        self.metrics |= {"w": history.best["w"], "w_by_epoch": [row["w"] for row in history]}
        self._guard(rows)
        return LogRatio([Ensemble.of_epochs(model, history)], under, "R-ANODE")

    def _best(self, rows: Skim, log_background: Float64s) -> tuple[SignalFlow, History]:
        """Fit p_S with w learnt, or at each w that is to be tried; return the fit of the best validation loss."""
        config = self.settings.signal_flow.training(int((rows.split == "train").sum()), self.seed)
        scan: list[tuple[float, float]] = []
        best: tuple[SignalFlow, History] | None = None
        for w in self.settings.signal_fractions or (None,):
            model = self._signal(rows, w)
            model.given_background(log_background - self._log_det(model, rows))
            history = fit(model, rows, config, self.folder / ("signal" if w is None else f"signal_{w:g}"))
            if w is not None:
                scan.append((w, history.best["validation"]))
            if best is None or history.best["validation"] < best[1].best["validation"]:
                best = model, history
        if scan:
            self.metrics["w_scan"] = scan
        assert best is not None
        return best

    def _signal(self, rows: Skim, fixed: float | None) -> SignalFlow:
        s = self.settings.signal_flow
        torch.manual_seed(self.seed)
        return SignalFlow(
            len(rows.columns), fraction=fixed or 0.005, learnt=fixed is None, kind=s.kind, coupling=s.coupling,
            transforms=s.transforms, hidden=s.hidden, bins=s.bins,
            transform=preprocessing(s.preprocessing, rows.columns),
        )  # fmt: skip

    def _log_det(self, model: SignalFlow, rows: Skim) -> Float64s:
        """Return log |det ∂z/∂x| of rows, with the transform as `fit` will have it."""
        fit_transform(model, TrainingRows(rows, "train", torch.device("cpu")), self.seed)
        transform: Any = model.transform
        with torch.no_grad():
            return np.asarray(transform.log_det(torch.from_numpy(np.asarray(rows.x[:]))).numpy(), np.float64)

    def _guard(self, rows: Skim) -> None:
        """Refuse a background that is wrong by more than the learnt signal explains."""
        template = self.template(len(rows.weight), 2000 + self.seed)
        value, error = closure(rows, template, self.inputs(rows), seed=self.seed)
        most = (1 + self.metrics["w"]) / 2
        self.metrics |= {"closure_auc": value, "closure_error": error, "explained_auc": most}
        if value > most + _SIGMAS * error:
            raise TemplateRefused(
                f"r_anode, window {self.window.name}: a classifier tells data from the background density with an AUC of "
                f"{value:.4f} ± {error:.4f}, but a signal fraction of {self.metrics['w']:.4f} explains at most {most:.4f}: the "
                "density is wrong in the signal region, and what R-ANODE learnt may be its error"
            )
