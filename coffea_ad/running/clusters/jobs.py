"""Clusters of batch jobs: their script, their certificates, their class."""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coffea_ad.errors import ConfigError
from coffea_ad.running.clusters.config import PEM, ClusterConfig

__all__ = ["batch_cluster", "certificates", "job_script", "one_sentence", "reason_of", "security_of"]


# dask-jobqueue has none of its own; the adapters of LPC and lxplus have.
_DEFAULTS = {"htcondor": {"memory": "2GB", "disk": "2GB"}, "slurm": {"memory": "2GB"}}
_CLASSES = {
    "htcondor": ("dask_jobqueue", "HTCondorCluster", "pip install 'coffea-ad[batch]'"),
    "slurm": ("dask_jobqueue", "SLURMCluster", "pip install 'coffea-ad[batch]'"),
    "lpc": ("lpcjobqueue", "LPCCondorCluster", "pip install git+https://github.com/CoffeaTeam/lpcjobqueue.git"),
    "lxplus": ("dask_lxplus", "CernCluster", "pip install dask-lxplus"),
}


# glibc gives freed memory back at once; XRootD's client survives the forks of Python.
_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "0", "XRD_RUNFORKHANDLER": "1"}
_PROXY = "x509-proxy"


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
    arguments = _arguments(config, folder, dict.fromkeys(PEM, ""))
    of_job = {name: value for name, value in arguments.items() if name not in not_for_jobs}
    with one_sentence(config):
        job = cluster_class.job_cls(f"{'tls' if config.encrypted else 'tcp'}://SCHEDULER", name="WORKER", **of_job)
        return str(job.job_script())


def batch_cluster(config: ClusterConfig, stack: ExitStack) -> Any:
    """Start the scheduler of a batch cluster; it has to listen where workers on other nodes reach it."""
    cluster_class = _class(config)
    command = cluster_class.job_cls.submit_command
    if config.kind != "lpc" and shutil.which(command) is None:  # LPC's adapter submits through Python
        raise ConfigError(f"{config.kind}: there is no {command} on this machine; start where jobs can be submitted")
    with one_sentence(config):
        where = Path(config.shared_temp_directory or Path.home()).expanduser()
        # Only its owner can enter it, and it goes when the cluster is closed.
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=".coffea-ad-", dir=where)))
        pem = {name: Path(path).read_text() for name, path in config.tls.paths().items()}
        if config.encrypted:
            pem = pem or certificates().get_tls_config_for_role("worker")
            for name, file in PEM.items():
                (folder / file).write_text(pem[name])
        if config.kind == "slurm" and "X509_USER_PROXY" in os.environ:
            shutil.copy(os.environ["X509_USER_PROXY"], folder / _PROXY)
        return cluster_class(**_arguments(config, folder, pem))


async def submit_one(cluster: Any) -> None:
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
    arguments: dict[str, Any] = {"processes": config.cores, **_DEFAULTS.get(config.kind, {})}
    arguments |= {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if config.log_directory:
        arguments["log_directory"] = str(Path(config.log_directory).expanduser())
    arguments["scheduler_options"] = {"dashboard_address": config.dashboard}
    files = [str(folder / file) for file in PEM.values()] if config.encrypted else []
    if config.encrypted:
        arguments |= {"protocol": "tls://", "security": security_of(config, folder, pem)}
    if config.kind == "lpc":  # its workers start without a shell, and it sees to their ports and the proxy itself
        return _with_options(arguments | {"transfer_input_files": files}, config.options)
    arguments["worker_extra_args"] = [
        "--no-dashboard",
        "--dashboard-address",
        "127.0.0.1:0",
    ]  # workers serve web pages too
    proxy, exports = os.environ.get("X509_USER_PROXY"), dict(_ENVIRONMENT)
    if config.kind == "slurm":
        exports |= {"X509_USER_PROXY": str(folder / _PROXY)} if proxy else {}
    else:
        arguments["job_extra_directives"] = ({"x509userproxy": proxy} if proxy else {}) | (
            {
                "should_transfer_files": "YES", "when_to_transfer_output": "ON_EXIT", "transfer_output_files": '""',
                "transfer_input_files": ",".join(files),
            } if files else {}
        )  # fmt: skip
    if config.kind == "lxplus":
        arguments["scheduler_options"] |= {"host": socket.gethostname(), "port": 8786}  # which batch nodes reach there
    arguments["job_script_prologue"] = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    return _with_options(arguments, config.options)


def _with_options(arguments: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Add the options: lists and dictionaries grow, anything else is replaced."""
    out = arguments | options
    for name in arguments.keys() & options.keys():
        before, value = arguments[name], options[name]
        if isinstance(before, list):
            out[name] = [*before, *(value if isinstance(value, list) else [value])]
        elif isinstance(before, dict) and isinstance(value, dict):
            files = [d["transfer_input_files"] for d in (before, value) if "transfer_input_files" in d]
            out[name] = before | value | ({"transfer_input_files": ",".join(files)} if files else {})
    return out


def security_of(config: ClusterConfig, folder: Path, pem: dict[str, str]) -> Any:
    """Return certificates that the scheduler holds in memory, while jobs are told the paths of theirs."""
    from distributed import Security

    # HTCondor takes them to the folder of the job, in which LPC's workers start, without a shell.
    place = {"slurm": f"{shlex.quote(str(folder))}/", "lpc": ""}.get(config.kind, "$_CONDOR_SCRATCH_DIR/")

    class JobSecurity(Security):
        def get_tls_config_for_role(self, role: str) -> Any:
            of_role = super().get_tls_config_for_role(role)  # type: ignore[no-untyped-call]
            return of_role | {name: place + file for name, file in PEM.items()} if role == "worker" else of_role

    return JobSecurity(**_of_roles(pem))  # type: ignore[no-untyped-call]


def _of_roles(files: dict[str, str]) -> dict[str, Any]:
    roles = ("client", "scheduler", "worker")
    parts = {f"tls_{role}_{part}": files[part] for role in roles for part in ("cert", "key")}
    return {"require_encryption": True, "tls_ca_file": files["ca_file"], **parts}


def certificates() -> Any:
    """Make certificates for one run."""
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
def one_sentence(config: ClusterConfig) -> Iterator[None]:
    """Say in one sentence why a cluster does not start."""
    try:
        yield
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.kind}: the cluster cannot start ({reason_of(error)})") from None


def reason_of(error: Exception) -> str:
    """Return what a command wrote to its standard error, or the first line of a message."""
    text = str(error).strip()
    _, _, complaint = text.partition("stderr:\n")
    return " ".join(complaint.split())[:300] or (text.splitlines() or [type(error).__name__])[0]
