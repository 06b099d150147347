"""The table of methods: name → class."""

from __future__ import annotations

from coffea_ad.resonant.anode import ANODE
from coffea_ad.resonant.cathode import CATHODE
from coffea_ad.resonant.cwola import CWoLa
from coffea_ad.resonant.lacathode import LaCATHODE
from coffea_ad.resonant.method import Method
from coffea_ad.resonant.r_anode import RANODE
from coffea_ad.resonant.references import IAD, Supervised
from coffea_ad.resonant.salad import SALAD
from coffea_ad.resonant.transport import Transport

__all__ = ["METHODS"]

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (CWoLa, ANODE, CATHODE, LaCATHODE, RANODE, SALAD, Transport, IAD, Supervised)
}
