"""ClusterConfig: a dask cluster by one word, or by the settings of a site."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from coffea_ad.config import Frozen, load_config
from coffea_ad.errors import ConfigError, unknown_text

__all__ = ["BATCH", "ClusterConfig", "TLSFiles", "load_cluster"]


Kind = Literal["local", "scheduler", "htcondor", "slurm", "lpc", "lxplus"]
PEM = {"ca_file": "dask-ca.pem", "cert": "dask-cert.pem", "key": "dask-key.pem"}
BATCH = ("htcondor", "slurm", "lpc", "lxplus")
_STARTED = ("local", *BATCH)
_CONDOR = ("htcondor", "lpc", "lxplus")
# Which settings mean something for which clusters; those that are not here mean something for all.
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "address": ("scheduler",), "timeout": ("scheduler",), "tls": ("scheduler", *BATCH),
    "minimum": _STARTED, "memory": _STARTED, "encrypt": _STARTED, "dashboard": _STARTED, "options": _STARTED,
    "cores": BATCH, "log_directory": BATCH, "shared_temp_directory": BATCH,
    "disk": _CONDOR, "queue": ("slurm",), "account": ("slurm",), "walltime": ("slurm",),
}  # fmt: skip


class TLSFiles(Frozen):
    """Certificates in PEM: of the authority, and one's own with its key."""

    ca_file: str = Field("", description="certificate of the authority that signed all others")
    cert: str = Field("", description="own certificate")
    key: str = Field("", description="its private key; may be left out if it stands in the file of the certificate")

    @model_validator(mode="after")
    def _require_files(self) -> TLSFiles:
        if (self.ca_file or self.cert or self.key) and not (self.ca_file and self.cert):
            raise ConfigError("tls needs both ca_file and cert")
        for name in PEM:
            path = getattr(self, name)
            if path and not Path(path).expanduser().is_file():
                raise ConfigError(f"tls.{name}: there is no file {path}")
        return self

    def paths(self) -> dict[str, str]:
        """Return the three paths; empty if nothing is set."""
        named = {"ca_file": self.ca_file, "cert": self.cert, "key": self.key or self.cert}
        return {name: str(Path(path).expanduser().resolve()) for name, path in named.items() if path}


class ClusterConfig(Frozen):
    """Which dask cluster, and how large."""

    kind: Kind = Field("local", description="this machine, an existing scheduler, or jobs of a batch system")
    workers: int = Field(2, ge=1, description="processes of one thread each; the most there may be, if minimum is set")
    minimum: int | None = Field(None, ge=0, description="scale between this and workers, as the work demands")
    cores: int = Field(1, ge=1, description="cores of a batch job; it runs as many workers")
    memory: str | None = Field(
        None, description="of a batch job (default 2GB or the site's), or of one local worker (default: an equal share)"
    )
    disk: str | None = Field(None, description="of an HTCondor job (default 2GB or the site's)")
    walltime: str | None = Field(None, description="of a Slurm job, such as '02:00:00'")
    queue: str | None = Field(None, description="Slurm partition")
    account: str | None = Field(None, description="Slurm account")
    log_directory: str | None = Field(None, description="where batch jobs write their output")
    shared_temp_directory: str | None = Field(
        None, description="where certificates lie during the run (default: home); for Slurm, jobs must see it"
    )
    address: str | None = Field(None, description="of an existing scheduler: tls://host:port or tcp://host:port")
    timeout: float = Field(
        30.0, ge=0, description="s to wait for an existing scheduler and its first worker; 0: it starts them on demand"
    )
    tls: TLSFiles = Field(TLSFiles(), description="certificates for a tls:// scheduler, or instead of temporary ones")
    encrypt: bool | None = Field(None, description="TLS with temporary certificates (default: for batch clusters)")
    dashboard: str = Field("127.0.0.1:0", description="where dask's web pages, which are not encrypted, listen")
    options: dict[str, Any] = Field({}, description="handed to the cluster's class as it is")

    @field_validator("memory", "disk", mode="before")
    @classmethod
    def _size(cls, value: Any) -> str | None:
        from dask.utils import parse_bytes

        if value is None or value == "auto":
            return None
        try:
            sensible = parse_bytes(value) >= 1e6
        except (ValueError, TypeError, AttributeError, OverflowError):
            sensible = False
        if not sensible:
            raise ConfigError(f"{value!r} is no size of memory or disk; write it like 2GB")
        return str(value)

    @field_validator("walltime", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, (int, float)):
            raise ConfigError(f"walltime is the number {value}; write it in quotes, like '02:00:00'")
        return value

    @model_validator(mode="after")
    def _sense(self) -> ClusterConfig:
        for name, kinds in _MEANT_FOR.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                other = "; say it in options.job_extra_directives" if self.kind in _CONDOR else ""
                raise ConfigError(f"{name} has no effect for a cluster of kind {self.kind}{other}")
        if self.kind == "scheduler" and not self.address:
            raise ConfigError("a cluster of kind scheduler needs its address, such as tls://host:8786")
        if self.tls.ca_file and self.kind == "scheduler" and not str(self.address).startswith("tls://"):
            raise ConfigError(f"{self.address}: certificates are for an address that begins with tls://")
        if self.tls.ca_file and self.encrypt is False:
            raise ConfigError("encrypt is off, but tls names certificates")
        if self.minimum is not None and self.minimum > self.workers:
            raise ConfigError(f"minimum is {self.minimum}, but workers, the most there may be, is {self.workers}")
        for name in self.options:
            if name in type(self).model_fields or name in ("security", "protocol", "n_workers"):
                raise ConfigError(f"options.{name}: has a setting of its own; leave it out of options")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether a cluster that is started here talks in TLS."""
        return self.kind in BATCH if self.encrypt is None else self.encrypt


def load_cluster(
    kind: str | Path | None = None, *, workers: int | None = None, minimum: int | None = None,
    address: str | None = None, site: str | Path | None = None, overrides: Sequence[str] = (),
) -> ClusterConfig:  # fmt: skip
    """Read which cluster is meant: a file of site settings, and what the command line says over it.

    Parameters
    ----------
    kind : str or path, optional
        A kind of cluster, the address of a scheduler, or the file of site settings itself.
    workers, minimum, address
        As in `ClusterConfig`.
    site : path, optional
        A YAML file with the settings of a site.
    overrides : sequence of str
        `key=value`, with dots into nested keys.

    Raises
    ------
    ConfigError
        There is no such kind, or a setting is wrong or makes no sense with the others.
    """
    word = str(kind) if kind is not None else None
    if word is not None and Path(word).suffix in (".yaml", ".yml"):
        if site is not None:
            raise ConfigError(f"{word} and {site}: say one file of site settings")
        word, site = None, word
    elif word is not None and ":" in word:
        word, address = None, word
    elif word is not None and word not in get_args(Kind):
        raise ConfigError(unknown_text("cluster", word, get_args(Kind)))
    if word is None and address is not None:
        word = "scheduler"
    said = {"kind": word, "workers": workers, "minimum": minimum, "address": address}
    return load_config(
        ClusterConfig, site, [*(f"{k}={json.dumps(v)}" for k, v in said.items() if v is not None), *overrides]
    )
