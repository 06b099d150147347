"""Tables of brilcalc: what each luminosity section has recorded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from coffea_ad.errors import BadFile
from coffea_ad.luminosity.sections import Golden, golden, listed

__all__ = ["SectionTable"]


_IN_FB = {"fb": 1.0, "pb": 1e-3, "nb": 1e-6, "ub": 1e-9, "mb": 1e-12, "b": 1e-15}
_UNIT = re.compile(r"recorded\(/(\w+)\)")


class SectionTable:
    """The recorded luminosity of sections, of a CSV file of brilcalc; coffea looks them up.

    Parameters
    ----------
    file : path
        What `brilcalc lumi --byls --output-style csv` writes; its unit is that of its header.

    Raises
    ------
    BadFile
        It is none.
    """

    def __init__(self, file: str | Path) -> None:
        from coffea.lumi_tools import LumiData  # noqa: PLC0415  compiles when it is imported, and few runs need it

        try:
            unit = _UNIT.search(Path(file).expanduser().read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
        if unit is None or unit[1] not in _IN_FB:
            raise BadFile(f"{file}: no table of brilcalc by luminosity section: its header names no recorded(/unit)")
        self.file, self.unit = str(file), _IN_FB[unit[1]]
        try:
            self.table = LumiData(str(Path(file).expanduser()))
        except (ValueError, IndexError) as error:
            raise BadFile(f"{file}: no table of brilcalc by luminosity section ({str(error)[:100]})") from None
        known = np.atleast_2d(self.table._lumidata)[:, :2]  # noqa: SLF001
        self.table._lumidata = np.atleast_2d(self.table._lumidata)  # noqa: SLF001  a table of one section
        self.known = golden(known)

    def recorded(self, sections: Golden) -> float:
        """Return the recorded luminosity of sections, fb⁻¹; what the table does not name has none."""
        return float(self.table.get_lumi(listed(sections))) * self.unit

    def lacking(self, sections: Golden) -> int:
        """Return how many of some sections the table does not name."""
        wanted, known = (set(map(tuple, listed(s).tolist())) for s in (sections, self.known))
        return len(wanted - known)
