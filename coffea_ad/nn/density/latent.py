"""The latent space of a trained flow as the inputs of another model, in the same graph."""

from __future__ import annotations

from torch import Tensor, nn

from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.transforms.per_column import Unchanged
from coffea_ad.nn.transforms.representation import Representation

__all__ = ["FlowLatent"]


class _Latent(nn.Module):
    """x → u of a flow."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """Return u, (n, features) → (n, values)."""
        return self.flow.latent(x)


class FlowLatent(Representation):
    """z = u(x | m), the latent coordinates of a conditional flow that is trained already.

    If the flow describes a background, u is distributed like the base density, whatever m is: what a model makes of it
    depends on m for nothing but a signal, and a cut on its score leaves the shape of the background in m. The flow is frozen; rows are those
    of the flow, conditions included, and z has one column for each column that is no condition. A row outside the flow's box is
    at the nearest point of the box.

    Parameters
    ----------
    flow : Flow
        Its weights get no gradients from now on.

    References
    ----------
    A. Hallin, G. Kasieczka, T. Quadfasel, D. Shih, M. Sommerhalder, "Resonant anomaly detection without background
    sculpting", arXiv:2210.14924.

    Examples
    --------
    >>> import torch
    >>> flow = Flow(5, context=[4], transform=nn.Identity())
    >>> FlowLatent(flow).row_shape, FlowLatent(flow)(torch.zeros(3, 5)).shape
    ((5,), torch.Size([3, 4]))
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__(_Latent(flow), Unchanged(len(flow.values)), row_shape=flow.shape)
