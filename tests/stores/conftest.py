from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.pipelines.helpers import write_dataset
from tests.stores import Endpoint, NotInstallableError, ceph, skip, swift


@pytest.fixture(scope="session")
def swift_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Swift, of which one creator of an object wins."""
    try:
        swift.install()
    except NotInstallableError as error:
        skip("swift", error)
    with swift.running(tmp_path_factory.mktemp("swift")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def lax_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Swift as it is: several creators of an object may win."""
    try:
        swift.install()
    except NotInstallableError as error:
        skip("swift", error)
    with swift.running(tmp_path_factory.mktemp("swift-lax"), atomic=False) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def ceph_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Ceph, whose creates are atomic by its own doing."""
    try:
        ceph.install()
    except NotInstallableError as error:
        skip("ceph", error)
    with ceph.running(tmp_path_factory.mktemp("ceph")) as endpoint:
        yield endpoint


def new_bucket(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use the endpoint, and make a bucket there: its URL."""
    endpoint.use(monkeypatch)
    name = f"test-{uuid.uuid4().hex}"
    S3FileSystem().mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def bucket(swift_store: Endpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket in Swift, which this process now uses."""
    return new_bucket(swift_store, monkeypatch)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))
