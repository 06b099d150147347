"""Flow: the density of rows, or of some columns given others, by a normalising flow."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.density.masked import blocked
from coffea_ad.nn.density.splines import spline_map
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.scoring.specs import Density
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Base", "Flow", "Kind", "Outside"]

Kind = Literal["maf", "nsf"]
Base = Literal["gaussian", "uniform"]
Outside = Literal["clamp", "undefined"]

_BLOCK = 16_384  # rows that are sampled at a time
_TRIES = 10  # of rows whose inverse is no number: a root of a small negative one, once in a million rows
_FAR = 1e15  # the largest |u|: its square is still a number in float32


class Flow(Model):
    """A normalising flow: the score is −ln p(x), or −ln p(x | m) of some columns given others.

    A flow is an invertible map u = f(z; m) to a base density p₀ of independent coordinates. With z = transform(x), column
    by column,

        −ln p(x | m) = −ln p₀(u) − ln |det ∂f/∂z| − Σᵢ ln |dzᵢ/dxᵢ|,

    where the sum goes over the columns that are no conditions. So the score is a density of the raw columns in their units: another
    unit shifts it by a constant, another preprocessing only changes how well it is learned. f is autoregressive: each
    column is mapped by a function whose parameters a masked network makes from the columns before it and from m, and the
    order is reversed from one map to the next. Trained by the mean of −ln p, which is also what chooses the epoch.

    Parameters
    ----------
    features : int
        Number of all columns, conditions included.
    kind : "maf" or "nsf"
        The function of a column: affine, or a monotonic rational-quadratic spline on ±bound with the identity beyond. Splines
        describe sharp and multimodal shapes with few maps; affine maps are several times as fast.
    coupling : bool
        Half of the columns are mapped given the other half, instead of each given all before: sampling takes 2 passes
        through each network, not one a column.
    context : sequence of int
        Places of the conditions m, such as a mass.
    transforms : int
        Number of maps.
    hidden : sequence of int
        Widths of their networks.
    bins : int
        Of a spline.
    base : "gaussian" or "uniform"
        p₀: standard normal; or uniform on the unit box, to which the box of the preprocessing is brought. There p is 0 outside.
    outside : "clamp" or "undefined"
        A row outside the box of the training rows, which "logit" and "minmax" have, gets the score of the nearest point of
        the box, or none (NaN). The box is that of all columns, conditions included.
    bound : float
        Splines reach from −bound to bound in units of z; with the uniform base it only sets the scale.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph. Behind a `Representation`, which has no
        Jacobian, the score is −ln p(z), and `density` says so.

    Raises
    ------
    ConfigError
        A condition is no column or all columns are, a coupling has one column, or the preprocessing has no box, where the
        base or `outside` needs one.

    References
    ----------
    G. Papamakarios, T. Pavlakou, I. Murray, "Masked autoregressive flow for density estimation", arXiv:1705.07057;
    C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Neural spline flows", arXiv:1906.04032;
    B. Nachman, D. Shih, "Anomaly detection with density estimation", arXiv:2001.04990;
    S. Caron, L. Hendriks, R. Verheyen, "Rare and different", arXiv:2106.10164.

    Examples
    --------
    >>> model = Flow(3, kind="maf", context=[2], transform=nn.Identity())
    >>> model.method, model.log_prob(np.zeros((4, 3), np.float32)).shape, model.latent(torch.zeros(4, 3)).shape
    ('MAF', (4,), torch.Size([4, 2]))
    """

    epochs_by: ClassVar[str] = "logmeanexp"

    def __init__(
        self,
        features: int,
        *,
        kind: Kind = "nsf",
        coupling: bool = False,
        context: Sequence[int] = (),
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        base: Base = "gaussian",
        outside: Outside = "clamp",
        bound: float = 5.0,
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        self.kind, self.coupling, self.context = kind, coupling, tuple(context)
        self.base, self.outside, self.bound, self.bins = base, outside, bound, bins
        values = [i for i in range(features) if i not in self.context]
        self._check(features, values)
        self.density: Density | None = "x" if getattr(transform, "has_jacobian", True) else "z"
        for name, columns in (("values", values), ("conditions", list(self.context))):
            self.register_buffer(name, torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.values: Tensor
        self.conditions: Tensor
        self.maps = _maps(kind, len(values), len(self.context), transforms, hidden, bins, bound, coupling=coupling)

    def _check(self, features: int, values: Sequence[int]) -> None:
        for name, value, known in (
            ("kind", self.kind, Kind),
            ("base", self.base, Base),
            ("outside", self.outside, Outside),
        ):
            if value not in get_args(known):
                raise ConfigError(f"flow: {name} is {value!r}, but must be {' or '.join(get_args(known))}")
        if len(values) != features - len(self.context) or not values:
            raise ConfigError(
                f"flow: the context {list(self.context)} must be different places among {features} columns, and leave one"
            )
        if self.coupling and len(values) < 2:
            raise ConfigError("flow: a coupling needs two columns beside the context, or more")
        if self.base == "uniform" and self.kind != "nsf":
            raise ConfigError("flow: affine maps leave the box; base=uniform needs kind=nsf")
        box = self.transform.box if isinstance(self.transform, Transform) else torch.full((2, features), torch.inf)
        boxed = box.isfinite().all(dim=0)
        if self.base == "uniform" and not (len(boxed) == features and bool(boxed[list(values)].all())):
            raise ConfigError(
                "flow: base=uniform needs a preprocessing with a box, logit or minmax, of all columns of the density"
            )
        if self.outside == "undefined" and not bool(boxed.any()):
            raise ConfigError("flow: outside=undefined needs a preprocessing with a box, such as logit")

    @property
    def method(self) -> str:  # type: ignore[override]
        """Name on the card."""
        parts = [self.kind.upper(), *["coupling"] * self.coupling, *["uniform base"] * (self.base == "uniform")]
        return ", ".join(parts)

    # The density

    def _edges(self) -> tuple[Tensor, Tensor]:
        """Return the edges of the box in z, of the columns of the density."""
        low, high = self.transform(self.transform.box)[:, self.values]
        return low, high

    def _mapped(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return u of transformed rows and ln |det ∂u/∂z|, (n, columns) → (n, values), (n,)."""
        context = z.index_select(1, self.conditions) if self.context else None
        values = z.index_select(1, self.values) if self.context else z
        if self.base == "gaussian":
            return self._through(values, context)
        low, high = self._edges()
        place = (2 * (values - low) / (high - low) - 1).clamp(-1.0, 1.0)
        u, log_det = self._through(self.bound * place, context)
        return 0.5 * u / self.bound + 0.5, log_det - (high - low).log().sum()

    def _through(self, values: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Send columns through all maps, (n, values) → (n, values), and ln of the Jacobian, (n,)."""
        if self.kind == "maf" or len(self.values) == 1:
            u, log_det = self.maps(context).call_and_ladj(values)
            return u, log_det
        log_dets, by_column = [], values.t()
        for each in self.maps.transforms:
            inputs = by_column.t() if context is None else torch.cat([by_column.t(), context], dim=1)
            by_column, log_det = spline_map(each.hyper, inputs, by_column, self.bins, self.bound)
            log_dets.append(log_det)
        return by_column.t(), torch.stack(log_dets).sum(dim=0)

    def energy(self, z: Tensor) -> Tensor:
        """−ln p of transformed rows in z, given the conditions, (n, columns) → (n,)."""
        u, log_det = self._mapped(z)
        if self.base == "uniform":
            return -log_det
        square = (u.clamp(-_FAR, _FAR) ** 2).sum(dim=1)
        return 0.5 * square + 0.5 * math.log(2 * math.pi) * len(self.values) - log_det

    def inside(self, x: Tensor) -> Tensor:
        """Say which raw rows lie in the box of the training rows, (n, *shape) → (n,) bool; all defined ones without a box."""
        defined = (x - x == 0).flatten(1).all(dim=1)
        return defined & self.transform.inside(x) if isinstance(self.transform, Transform) and x.ndim == 2 else defined

    def score(self, x: Tensor) -> Tensor:
        """−ln p of raw rows, (n, *shape) → (n,); NaN for an undefined value, and outside the box if `outside` says so."""
        numbers = x - x == 0
        defined = self.inside(x) if self.outside == "undefined" else numbers.flatten(1).all(dim=1)
        x = torch.where(numbers, x, torch.zeros_like(x))  # by equal shapes, which is the fastest way in a graph
        energy = self.energy(self.transform(x))
        if self.density == "x" and isinstance(self.transform, Transform):
            slopes = self.transform.log_slopes(x)
            energy = energy - (slopes.index_select(1, self.values) if self.context else slopes).sum(dim=1)
        return torch.where(defined, energy, torch.full_like(energy, torch.nan))

    def log_prob(self, x: Float32s) -> Float64s:
        """Return ln p of raw rows, (n, features) → (n,), given their conditions; NaN where the score is."""
        return -self.scores(np.asarray(x, np.float32)).astype(np.float64)

    def latent(self, x: Tensor) -> Tensor:
        """Return u of raw rows, (n, *shape) → (n, values): of the base density, if x is of the flow's, for any conditions.

        A row outside the box is at the nearest point of the box, whatever `outside` is: this is an input of other models, whose
        training cannot do with NaN.
        """
        return self._mapped(self.transform(x))[0]

    def for_graph(self) -> None:
        """Leave out what networks multiply by zeros; a training cannot, since weights have one shape in all its files."""
        for each in self.maps.transforms if len(self.values) > 1 else ():
            each.hyper = blocked(each.hyper)

    # Training

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "loss", the mean of −ln p in z, for a batch of transformed rows."""
        return {"loss": self.energy(batch.z).mean()}

    # Sampling

    def sample(self, context: Float32s | int, seed: int = 0) -> Float32s:
        """Draw raw rows.

        Parameters
        ----------
        context : int or (n, conditions) float32
            How many rows, or their conditions in raw units, in the order of `context`.
        seed : int
            Of numpy's generator: torch's own is neither asked nor touched.

        Returns
        -------
        (n, features) float32
            All columns in their order; the conditions are those that were asked for.

        Raises
        ------
        ConfigError
            Conditions of another shape, a preprocessing without an inverse, or rows that are no numbers.

        Examples
        --------
        >>> Flow(2, transform=nn.Identity()).sample(3, seed=1).shape
        (3, 2)
        """
        if not isinstance(self.transform, Transform) and not isinstance(self.transform, nn.Identity):
            raise ConfigError(
                f"flow: {type(self.transform).__name__} has no inverse; nothing can be sampled through it"
            )
        conditions = self._conditions_of(context)
        rng = np.random.default_rng(seed)
        starts = range(0, len(conditions), _BLOCK)
        parts = [self._sampled(conditions[start : start + _BLOCK], rng) for start in starts]
        return np.concatenate([np.zeros((0, *self.shape), np.float32), *parts])

    def _conditions_of(self, context: Float32s | int) -> Float32s:
        if isinstance(context, int | np.integer):
            if self.context:
                raise ConfigError(
                    f"flow: rows are sampled given {len(self.context)} columns; say their values, (n, {len(self.context)})"
                )
            return np.zeros((int(context), 0), np.float32)
        conditions = np.asarray(context, np.float32)
        if conditions.ndim != 2 or conditions.shape[1] != len(self.context) or not np.isfinite(conditions).all():
            raise ConfigError(
                f"flow: conditions are finite numbers of the shape (n, {len(self.context)}), not of {conditions.shape}"
            )
        return conditions

    def _sampled(self, conditions: Float32s, rng: np.random.Generator) -> Float32s:
        """Draw a block of rows; those whose inverse is no number are drawn again."""
        out = np.full((len(conditions), *self.shape), np.nan, np.float32)
        for _ in range(_TRIES):
            open_rows = np.flatnonzero(~np.isfinite(out).all(axis=1))
            if not len(open_rows):
                return out
            size = (len(open_rows), len(self.values))
            u = rng.standard_normal(size, np.float32) if self.base == "gaussian" else rng.random(size, np.float32)
            out[open_rows] = self.inverse(u, conditions[open_rows])
        raise ConfigError("flow: samples are no finite numbers; the training has failed")

    def inverse(self, u: Float32s, context: Float32s) -> Float32s:
        """Return the raw rows of latent ones, (n, values) and (n, conditions) in raw units → (n, features).

        What `latent` gives at one condition comes back at another: a row of one mass, moved to another mass.
        """
        device = self.values.device
        x = torch.zeros((len(u), *self.shape), device=device)
        x[:, self.conditions] = torch.from_numpy(context).to(device)
        with torch.no_grad():
            z = self.transform(x)
            conditions = z[:, self.conditions] if self.context else None
            values = torch.from_numpy(u).to(device)
            if self.base == "uniform":
                low, high = self._edges()
                place = self.maps(conditions).inv(self.bound * (2 * values - 1)) / self.bound
                z[:, self.values] = low + 0.5 * (place.clamp(-1.0, 1.0) + 1) * (high - low)
            else:
                z[:, self.values] = self.maps(conditions).inv(values)
            rows = self.transform.inverse(z) if isinstance(self.transform, Transform) else z
            rows[:, self.conditions] = x[:, self.conditions]
        return np.asarray(rows.cpu().numpy(), np.float32)


def _maps(
    kind: Kind,
    values: int,
    conditions: int,
    transforms: int,
    hidden: Sequence[int],
    bins: int,
    bound: float,
    *,
    coupling: bool,
) -> Any:
    """Return the maps of a flow, one after another, from z to u."""
    import zuko

    spline = functools.partial(zuko.transforms.MonotonicRQSTransform, bound=bound)
    options: dict[str, Any] = {"univariate": spline, "shapes": [(bins,), (bins,), (bins - 1,)]} if kind == "nsf" else {}
    if coupling:
        options["passes"] = 2
    flow = zuko.flows.MAF(values, conditions, transforms=transforms, hidden_features=tuple(hidden), **options)
    return flow.transform
