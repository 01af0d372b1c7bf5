"""One lab for all end-to-end tests: three managers and two workers. Each test gets it healthy."""

import os
from collections.abc import Iterator

import pytest
from lib.cluster import Cluster

from pyswarm.deploy.lab.lab import running_lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def lab_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("needs root: makes namespaces, mounts and cgroups")
    with running_lab("e2e", managers=3, workers=2, labs=tmp_path_factory.mktemp("labs")) as lab:
        yield Cluster(lab)


@pytest.fixture
def cluster(lab_cluster: Cluster) -> Iterator[Cluster]:
    """The lab with every host up and connected."""
    lab_cluster.recover()
    yield lab_cluster
    lab_cluster.recover()


@pytest.fixture
def web(cluster: Cluster) -> Cluster:
    """The lab with six replicas of the example service running."""
    cluster.deploy_web(6)
    return cluster
