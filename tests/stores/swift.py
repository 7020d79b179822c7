"""OpenStack Swift with its S3 API: one server of each kind, one device, no authority but the test's own.

``python -m tests.stores.swift`` starts one and tells how to use it.
"""

from __future__ import annotations

import getpass
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.ports import free_ports
from tests.stores import Endpoint, NotInstallableError, cache, daemon, locked, wait_for

VERSION: Final = "2.38.3"
BACKENDS: Final = ("account", "container", "object")
PIPELINE: Final = "catch_errors gatekeeper healthcheck cache s3api tempauth copy slo dlo proxy-server"
_PLAIN: Final = ("catch_errors", "gatekeeper", "healthcheck", "copy", "slo", "dlo")


def install() -> Path:
    """The folder of Swift's programs, in a virtual environment of their own.

    Raises:
        NotInstallableError: the package or one of its dependencies cannot be had.
    """
    folder = cache() / f"swift-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    with locked("swift"):
        if not (folder / "complete").exists():
            venv.create(folder, with_pip=True, clear=True)
            command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", f"swift=={VERSION}"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise NotInstallableError(done.stderr.strip()[-500:])
            (folder / "complete").touch()
    return folder / "bin"


@contextmanager
def running(folder: Path, *, atomic: bool = True) -> Iterator[Endpoint]:
    """A store with its data below ``folder``.

    Args:
        atomic: of concurrent creators of one object one wins. Swift itself looks first and writes later, so that
            several may win; what makes it atomic here is in ``filters/``.
    """
    programs = install()
    ports = dict(zip((*BACKENDS, "proxy"), free_ports(4), strict=True))
    (folder / "devices" / "d1").mkdir(parents=True)
    _configure(folder, ports, atomic)
    for backend in BACKENDS:
        _make_ring(programs, folder, backend, ports[backend])
    filters = {"PYTHONPATH": str(Path(__file__).parent / "filters")}
    with ExitStack() as stack:
        servers = {}
        for name in ports:
            command = [str(programs / f"swift-{name}-server"), str(folder / f"{name}.conf"), "-v"]
            servers[name] = stack.enter_context(daemon(command, folder / f"{name}.log", filters))
        for name, port in ports.items():
            wait_for(port, servers[name], folder / f"{name}.log")
        yield Endpoint(f"http://127.0.0.1:{ports['proxy']}", "test:tester", "testing")


def _configure(folder: Path, ports: dict[str, int], atomic: bool) -> None:
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    for backend in BACKENDS:
        filters = "one_writer " if atomic and backend == "object" else ""
        _write(folder, backend, ports[backend], f"{filters}{backend}-server", "container_update_timeout = 30")
    options = "account_autocreate = true\nnode_timeout = 60"
    sections = [f"[filter:{name}]\nuse = egg:swift#{name}" for name in _PLAIN]
    sections += ["[filter:cache]\npaste.filter_factory = swift_filters:cache"]
    sections += ["[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1"]
    sections += ["[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin"]
    _write(folder, "proxy", ports["proxy"], PIPELINE, options, *sections)


def _write(folder: Path, name: str, port: int, pipeline: str, options: str, *sections: str) -> None:
    """The configuration of one server."""
    default = {
        "swift_dir": folder,
        "devices": folder / "devices",
        "mount_check": "false",
        "fallocate_reserve": 0,
        "bind_ip": "127.0.0.1",
        "bind_port": port,
        "workers": 0,
        "user": getpass.getuser(),
        "log_level": "WARNING",
    }
    text = [
        "[DEFAULT]",
        *(f"{key} = {value}" for key, value in default.items()),
        f"[pipeline:main]\npipeline = {pipeline}",
        f"[app:{name}-server]\nuse = egg:swift#{name}\n{options}",
        "[filter:one_writer]\npaste.filter_factory = swift_filters:one_writer",
        *sections,
    ]
    (folder / f"{name}.conf").write_text("\n".join(text) + "\n")


def _make_ring(programs: Path, folder: Path, backend: str, port: int) -> None:
    ring = [str(programs / "swift-ring-builder"), str(folder / f"{backend}.builder")]
    for arguments in (["create", "2", "1", "0"], ["add", f"r1z1-127.0.0.1:{port}/d1", "1"], ["rebalance"]):
        done = subprocess.run([*ring, *arguments], capture_output=True, text=True)
        if done.returncode > 1:  # 1 is a warning
            raise AssertionError(f"{' '.join(ring)}: {done.stdout}{done.stderr}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="swift-") as folder, running(Path(folder)) as endpoint:
        endpoint.serve()


if __name__ == "__main__":
    main()
