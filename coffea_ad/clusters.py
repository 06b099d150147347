"""Dask clusters by one word: this machine, an existing scheduler, or jobs of a batch system.

Whoever reaches a dask scheduler can run code as its owner. A local cluster therefore listens on the loopback address
only, and batch clusters, whose workers sit on other machines, talk in TLS with certificates made for one run.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from coffea_ad.config import Frozen, load_config
from coffea_ad.errors import ConfigError, unknown_text

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ClusterConfig", "TLSFiles", "connect", "describe", "job_script", "load_cluster"]

Kind = Literal["local", "scheduler", "htcondor", "slurm", "lpc", "lxplus"]
_BATCH = ("htcondor", "slurm", "lpc", "lxplus")
_OWN = ("local", *_BATCH)
_CONDOR = ("htcondor", "lpc", "lxplus")

# Which settings mean something for which clusters; those that are not here mean something for all.
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "address": ("scheduler",), "timeout": ("scheduler",), "tls": ("scheduler", *_BATCH),
    "minimum": _OWN, "memory": _OWN, "encrypt": _OWN, "dashboard": _OWN, "options": _OWN,
    "cores": _BATCH, "log_directory": _BATCH, "shared_temp_directory": _BATCH,
    "disk": _CONDOR, "queue": ("slurm",), "account": ("slurm",), "walltime": ("slurm",),
}  # fmt: skip
_CLASSES = {
    "htcondor": ("dask_jobqueue", "HTCondorCluster", "pip install 'coffea-ad[batch]'"),
    "slurm": ("dask_jobqueue", "SLURMCluster", "pip install 'coffea-ad[batch]'"),
    "lpc": ("lpcjobqueue", "LPCCondorCluster", "pip install git+https://github.com/CoffeaTeam/lpcjobqueue.git"),
    "lxplus": ("dask_lxplus", "CernCluster", "pip install dask-lxplus"),
}
# dask-jobqueue has none of its own; the adapters of LPC and lxplus have.
_DEFAULTS = {"htcondor": {"memory": "2GB", "disk": "2GB"}, "slurm": {"memory": "2GB"}}
# glibc gives freed memory back at once; XRootD's client survives the forks of Python.
_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "0", "XRD_RUNFORKHANDLER": "1"}
_PEM = {"ca_file": "dask-ca.pem", "cert": "dask-cert.pem", "key": "dask-key.pem"}
_PROXY = "x509-proxy"
_LOOK = 5  # s, between looks for workers that are gone


class TLSFiles(Frozen):
    """Certificates in PEM: of the authority, and one's own with its key."""

    ca_file: str = Field("", description="certificate of the authority that signed all others")
    cert: str = Field("", description="own certificate")
    key: str = Field("", description="its private key; may be left out if it stands in the file of the certificate")

    @model_validator(mode="after")
    def _there(self) -> TLSFiles:
        if (self.ca_file or self.cert or self.key) and not (self.ca_file and self.cert):
            raise ConfigError("tls needs both ca_file and cert")
        for name in _PEM:
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
                raise ConfigError(f"{name} means nothing for a cluster of kind {self.kind}{other}")
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
        return self.kind in _BATCH if self.encrypt is None else self.encrypt


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
    given = str(kind) if kind is not None else None
    if given is not None and Path(given).suffix in (".yaml", ".yml"):
        if site is not None:
            raise ConfigError(f"{given} and {site}: say one file of site settings")
        given, site = None, given
    elif given is not None and ":" in given:
        given, address = None, given
    elif given is not None and given not in get_args(Kind):
        raise ConfigError(unknown_text("cluster", given, get_args(Kind)))
    if given is None and address is not None:
        given = "scheduler"
    said = {"kind": given, "workers": workers, "minimum": minimum, "address": address}
    return load_config(
        ClusterConfig, site, [*(f"{k}={json.dumps(v)}" for k, v in said.items() if v is not None), *overrides]
    )


@contextmanager
def connect(config: ClusterConfig) -> Iterator[Client]:
    """Start or join a cluster, and close afterwards what was started, whatever happens in between.

    A local cluster is there when this returns. An existing scheduler has at least one worker, unless `timeout` is 0,
    and outlives the client. Jobs of a batch system are submitted, and start when the queue lets them: `describe` says
    how many there are.

    Raises
    ------
    ConfigError
        A package is missing, nobody answers, or the cluster or its jobs are refused.
    """
    from distributed import Client

    with ExitStack() as stack:
        if config.kind == "scheduler":
            yield stack.enter_context(_join(config))
            return
        cluster = _local(config) if config.kind == "local" else _batch(config, stack)
        stack.callback(cluster.close)
        if config.kind != "local" and config.minimum != 0:
            with _one_sentence(config):
                cluster.sync(_submit_one, cluster)
            cluster.scale(config.workers if config.minimum is None else config.minimum)
        if config.minimum is not None:
            cluster.adapt(minimum=config.minimum, maximum=config.workers)
        yield stack.enter_context(Client(cluster))


def describe(client: Client) -> str:
    """Say in one sentence how many workers there are, and where the dashboard is, as far as the cluster tells.

    Clusters of other packages have other attributes: what is shown must not decide whether a run works.
    """
    n, cluster = len(client.nthreads()), client.cluster
    plan, pages = getattr(cluster, "plan", None), getattr(getattr(cluster, "scheduler", None), "http_server", None)
    workers = f"{n} workers" if plan is None else f"{n} of {len(plan)} workers are there"
    if pages is not None:
        return f"{workers}; dashboard http://{pages.address}:{pages.port}/status"
    where = getattr(client.scheduler, "address", None) or getattr(cluster, "name", None)
    link = getattr(cluster, "dashboard_link", None)
    return f"{workers} at {where or 'a scheduler'}" + (f"; dashboard {link}" if link else "")


def job_script(config: ClusterConfig) -> str:
    """Return the file that would be submitted for a worker, with SCHEDULER for the address; nothing is submitted.

    Raises
    ------
    ConfigError
        The kind is neither htcondor nor slurm: the adapters of sites complete theirs when they start.
    """
    if config.kind not in ("htcondor", "slurm"):
        raise ConfigError(f"a submit file can be shown for htcondor and slurm, not for {config.kind}")
    cluster_class = _class(config)
    folder = Path(config.shared_temp_directory or Path.home()).expanduser() / ".coffea-ad-RUN"
    handed_on = {"config_name", "interface", "protocol", "security"}
    not_for_jobs = set(inspect.signature(cluster_class.__base__).parameters) - handed_on
    arguments = _arguments(config, folder, dict.fromkeys(_PEM, ""))
    of_job = {name: value for name, value in arguments.items() if name not in not_for_jobs}
    with _one_sentence(config):
        job = cluster_class.job_cls(f"{'tls' if config.encrypted else 'tcp'}://SCHEDULER", name="WORKER", **of_job)
        return str(job.job_script())


@contextmanager
def _join(config: ClusterConfig) -> Iterator[Client]:
    from distributed import Client, Security

    paths = config.tls.paths()
    security = Security(**_of_roles(paths)) if paths else Security()  # or what dask's own configuration says
    encrypted = str(config.address).startswith("tls://")
    if encrypted and not all(security.get_tls_config_for_role("client")[name] for name in ("ca_file", "cert")):
        raise ConfigError(f"{config.address}: needs certificates; set tls.ca_file, tls.cert and tls.key")
    try:
        client = Client(config.address, security=security, timeout=config.timeout or 30)
    except (OSError, ValueError, TimeoutError) as error:
        hint = ", or it does not take the certificate" if encrypted else ""
        raise ConfigError(f"no dask scheduler answers at {config.address}{hint} ({_reason(error)})") from None
    with client:
        try:
            if config.timeout:
                client.wait_for_workers(1, timeout=config.timeout)
        except TimeoutError:
            raise ConfigError(f"the scheduler at {config.address} has no worker after {config.timeout:g} s") from None
        yield client


def _local(config: ClusterConfig) -> Any:
    from distributed import LocalCluster

    arguments: dict[str, Any] = {
        "n_workers": config.workers if config.minimum is None else config.minimum,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": config.dashboard,
        "processes": True,
        "memory_limit": config.memory or 1 / config.workers,  # of the machine's
        "silence_logs": logging.CRITICAL,  # what goes wrong is said once, by us
        # Ctrl-C goes to all processes of a terminal: the client ends its workers, and they need not say anything
        "preload": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    }
    if config.encrypted:
        arguments |= {"protocol": "tls://", "security": _temporary()}
    try:
        cluster = LocalCluster(**arguments | config.options)
    except RuntimeError as error:
        raise ConfigError(
            f"the dask cluster cannot start ({_reason(error)}); in a script, call ad.run under "
            'if __name__ == "__main__":, or choose executor="iterative"'
        ) from None
    _complete(cluster)
    return cluster


def _complete(cluster: Any) -> None:
    """Have a cluster start workers again that dask has given up.

    A worker that has died and is not back in 15 s, as on a busy machine, is closed for good, though it is still counted
    (`distributed.deploy.lost-worker-timeout`): without any worker, the run would wait for ever.
    """
    from tornado.ioloop import PeriodicCallback

    def look() -> None:
        if cluster.status.name == "running":
            cluster.scale(len(cluster.worker_spec))
        else:
            again.stop()

    again = PeriodicCallback(look, 1000 * _LOOK)
    cluster.loop.add_callback(again.start)


def _batch(config: ClusterConfig, stack: ExitStack) -> Any:
    """Start the scheduler of a batch cluster; it has to listen where workers on other nodes reach it."""
    cluster_class = _class(config)
    command = cluster_class.job_cls.submit_command
    if config.kind != "lpc" and shutil.which(command) is None:  # LPC's adapter submits through Python
        raise ConfigError(f"{config.kind}: there is no {command} on this machine; start where jobs can be submitted")
    with _one_sentence(config):
        where = Path(config.shared_temp_directory or Path.home()).expanduser()
        # Only its owner can enter it, and it goes when the cluster is closed.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=".coffea-ad-", dir=where)))
        pem = {name: Path(path).read_text() for name, path in config.tls.paths().items()}
        if config.encrypted:
            pem = pem or _temporary().get_tls_config_for_role("worker")
            for name, file in _PEM.items():
                (folder / file).write_text(pem[name])
        if config.kind == "slurm" and "X509_USER_PROXY" in os.environ:
            shutil.copy(os.environ["X509_USER_PROXY"], folder / _PROXY)
        return cluster_class(**_arguments(config, folder, pem))


async def _submit_one(cluster: Any) -> None:
    """Submit the first job: its refusal is raised here, while scaling submits the others in the background."""
    from distributed import Status

    cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        await cluster
    except (AssertionError, OSError, RuntimeError) as error:
        for job in cluster.workers.values():
            job.status = Status.failed  # otherwise the cluster waits for it when it is closed
        raise RuntimeError(str(error) or "the job was not taken") from None


def _arguments(config: ClusterConfig, folder: Path, pem: dict[str, str]) -> dict[str, Any]:
    """Return what the cluster's class is given; certificates and proxy lie in the folder."""
    names = ("cores", "memory", "disk", "walltime", "queue", "account")
    own: dict[str, Any] = {"processes": config.cores, **_DEFAULTS.get(config.kind, {})}
    own |= {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if config.log_directory:
        own["log_directory"] = str(Path(config.log_directory).expanduser())
    own["scheduler_options"] = {"dashboard_address": config.dashboard}
    files = [str(folder / file) for file in _PEM.values()] if config.encrypted else []
    if config.encrypted:
        own |= {"protocol": "tls://", "security": _security(config, folder, pem)}
    if config.kind == "lpc":  # its workers start without a shell, and it sees to their ports and the proxy itself
        return _with_options(own | {"transfer_input_files": files}, config.options)
    own["worker_extra_args"] = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]  # workers serve web pages too
    proxy, exports = os.environ.get("X509_USER_PROXY"), dict(_ENVIRONMENT)
    if config.kind == "slurm":
        exports |= {"X509_USER_PROXY": str(folder / _PROXY)} if proxy else {}
    else:
        own["job_extra_directives"] = ({"x509userproxy": proxy} if proxy else {}) | (
            {
                "should_transfer_files": "YES", "when_to_transfer_output": "ON_EXIT", "transfer_output_files": '""',
                "transfer_input_files": ",".join(files),
            } if files else {}
        )  # fmt: skip
    if config.kind == "lxplus":
        own["scheduler_options"] |= {"host": socket.gethostname(), "port": 8786}  # which batch nodes reach there
    own["job_script_prologue"] = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    return _with_options(own, config.options)


def _with_options(own: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Add the options: lists and dictionaries grow, anything else is replaced."""
    out = own | options
    for name in own.keys() & options.keys():
        before, value = own[name], options[name]
        if isinstance(before, list):
            out[name] = [*before, *(value if isinstance(value, list) else [value])]
        elif isinstance(before, dict) and isinstance(value, dict):
            files = [d["transfer_input_files"] for d in (before, value) if "transfer_input_files" in d]
            out[name] = before | value | ({"transfer_input_files": ",".join(files)} if files else {})
    return out


def _security(config: ClusterConfig, folder: Path, pem: dict[str, str]) -> Any:
    """Return certificates that the scheduler holds in memory, while jobs are told the paths of theirs."""
    from distributed import Security

    # HTCondor takes them to the folder of the job, in which LPC's workers start, without a shell.
    place = {"slurm": f"{shlex.quote(str(folder))}/", "lpc": ""}.get(config.kind, "$_CONDOR_SCRATCH_DIR/")

    class JobSecurity(Security):
        def get_tls_config_for_role(self, role: str) -> Any:
            of_role = super().get_tls_config_for_role(role)  # type: ignore[no-untyped-call]
            return of_role | {name: place + file for name, file in _PEM.items()} if role == "worker" else of_role

    return JobSecurity(**_of_roles(pem))  # type: ignore[no-untyped-call]


def _of_roles(files: dict[str, str]) -> dict[str, Any]:
    roles = ("client", "scheduler", "worker")
    parts = {f"tls_{role}_{part}": files[part] for role in roles for part in ("cert", "key")}
    return {"require_encryption": True, "tls_ca_file": files["ca_file"], **parts}


def _temporary() -> Any:
    from distributed import Security

    try:
        return Security.temporary()
    except ImportError:
        raise ConfigError(
            "certificates need the package cryptography: pip install 'coffea-ad[batch]'; encrypt=false does without, "
            "and lets everybody who reaches the scheduler run code as you"
        ) from None


def _class(config: ClusterConfig) -> Any:
    module, name, command = _CLASSES[config.kind]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        package = module.replace("_", "-")
        raise ConfigError(f"a {config.kind} cluster needs {package} ({error}): {command}") from None


@contextmanager
def _one_sentence(config: ClusterConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.kind}: the cluster cannot start ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Return what a command wrote to its standard error, or the first line of a message."""
    text = str(error).strip()
    _, _, complaint = text.partition("stderr:\n")
    return " ".join(complaint.split())[:300] or (text.splitlines() or [type(error).__name__])[0]
