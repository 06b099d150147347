"""Dask clusters by one word: this machine, an existing scheduler, or jobs of a batch system.

Whoever reaches a dask scheduler can run code as its owner. A local cluster therefore listens on the loopback address
only, and batch clusters, whose workers sit on other machines, talk in TLS with certificates made for one run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from coffea_ad.errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.jobs import (
    _of_roles,
    batch_cluster,
    certificates,
    one_sentence,
    reason_of,
    submit_one,
)

__all__ = ["connect", "describe"]


_LOOK = 5  # s, between looks for workers that are gone


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
        cluster = _local(config) if config.kind == "local" else batch_cluster(config, stack)
        stack.callback(cluster.close)
        if config.kind != "local" and config.minimum != 0:
            with one_sentence(config):
                cluster.sync(submit_one, cluster)
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
        raise ConfigError(f"no dask scheduler answers at {config.address}{hint} ({reason_of(error)})") from None
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
        arguments |= {"protocol": "tls://", "security": certificates()}
    try:
        cluster = LocalCluster(**arguments | config.options)
    except RuntimeError as error:
        raise ConfigError(
            f"the dask cluster cannot start ({reason_of(error)}); in a script, call ad.run under "
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
