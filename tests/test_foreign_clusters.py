"""Clusters of other packages: whatever their attributes are, a run on them works."""

from __future__ import annotations

import pytest
from distributed import Client, LocalCluster
from toys import DATA, HERE

import coffea_ad as ad
from coffea_ad.errors import ConfigError
from coffea_ad.running.clusters.connect import describe

FILESET = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}


class GatewayCluster:
    """What dask-gateway's cluster offers, and no more: neither `scheduler` nor `plan`."""

    def __init__(self, local):
        self._local = local
        self.name = "site.abcdef"
        self.dashboard_link = "https://hub.example/clusters/site.abcdef/status"
        self.scheduler_address, self.security = local.scheduler_address, local.security
        self.loop, self.asynchronous, self.status = local.loop, False, local.status

    def get_client(self, set_as_default=True):
        return Client(self, set_as_default=set_as_default)


@pytest.fixture(scope="module")
def gateway():
    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as local:
        yield GatewayCluster(local)


@pytest.mark.dask
@pytest.mark.parametrize("given", ["client", "cluster"])
def test_a_run_works_on_a_gateway(gateway, tmp_path, given, capsys):
    options = {"overrides": [f"folder={tmp_path}"], "chunksize": 100, "executor": "dask", "preflight": False}
    if given == "cluster":
        report = ad.run(FILESET, str(HERE / "counting_processor.py"), cluster=gateway, **options)
    else:
        with gateway.get_client() as client:
            report = ad.run(FILESET, str(HERE / "counting_processor.py"), cluster=client, **options)
            assert client.status == "running"  # it is the caller's
    assert report.complete
    assert "1 workers at tcp://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.dask
def test_its_dashboard_is_shown(gateway):
    with gateway.get_client() as client:
        assert describe(client).endswith("; dashboard https://hub.example/clusters/site.abcdef/status")


def test_what_is_no_cluster_is_refused():
    with pytest.raises(ConfigError, match=r"cluster is 8; give a kind, .* or a dask client or cluster"):
        ad.run(FILESET, "semivisible_jets", executor="dask", cluster=8)
