"""Ceph with its S3 gateway: one monitor, one device in memory, one gateway, from unpacked Debian packages.

Nothing is installed into the system; ``python -m tests.stores.ceph`` starts one and tells how to use it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.ports import free_ports
from tests.stores import Endpoint, NotInstallableError, cache, daemon, locked, wait_for

PACKAGES: Final = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
KEY, SECRET = "test-access", "test-secret"

_COMMAND: Final = """\
import ctypes, json, sys
rados, cluster = ctypes.CDLL("librados.so.2"), ctypes.c_void_p()
def check(status):
    if status < 0:
        sys.exit(f"librados: {status}")
check(rados.rados_create(ctypes.byref(cluster), b"admin"))
check(rados.rados_conf_read_file(cluster, sys.argv[1].encode()))
check(rados.rados_connect(cluster))
command = ctypes.c_char_p(sys.argv[2].encode())
answer, said = ctypes.c_char_p(), ctypes.c_char_p()
sizes = ctypes.c_size_t(), ctypes.c_size_t()
check(rados.rados_mon_command(cluster, ctypes.byref(command), ctypes.c_size_t(1), None, ctypes.c_size_t(0),
    ctypes.byref(answer), ctypes.byref(sizes[0]), ctypes.byref(said), ctypes.byref(sizes[1])))
rados.rados_shutdown(cluster)
"""
"""Gives the monitor a command. The ``ceph`` program would, but runs on the distribution's own Python only."""


def install() -> Path:
    """The folder that holds Ceph's files as a system's root would.

    Raises:
        NotInstallableError: this is no Debian or Ubuntu, or the packages cannot be had.
    """
    folder = cache() / "ceph"
    with locked("ceph"):
        if not (folder / "complete").exists():
            if not shutil.which("apt-get") or not shutil.which("dpkg"):
                raise NotInstallableError("it is unpacked from Debian packages, and there is no apt-get here")
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "debs" / "partial").mkdir(parents=True)
            command = ["apt-get", "install", "-y", "--download-only", "--no-install-recommends"]
            command += ["-o", f"Dir::Cache::archives={folder / 'debs'}", "-o", "Debug::NoLocking=true", *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:  # a fresh image has no package lists, or old ones
                subprocess.run(["apt-get", "update"], capture_output=True)
                done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise NotInstallableError(done.stderr.strip()[-500:])
            for package in (folder / "debs").glob("*.deb"):
                subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
            if not (folder / "root" / "usr" / "bin" / "radosgw").exists():
                raise NotInstallableError("the packages hold no radosgw")
            (folder / "complete").touch()
    return folder / "root"


@contextmanager
def running(folder: Path) -> Iterator[Endpoint]:
    """A store with its data in the memory of its processes, which end with the block."""
    root = install()
    mon, gateway = free_ports(2)
    fsid, osd = uuid.uuid4(), uuid.uuid4()
    address = f"[v2:127.0.0.1:{mon}]"
    config = folder / "ceph.conf"
    config.write_text(_config(folder, root, str(fsid), address, gateway))
    libraries = [next((root / "usr" / "lib").glob("*-linux-gnu")), *(root / "lib").glob("*-linux-gnu")]
    libraries.insert(1, libraries[0] / "ceph")
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "CEPH_CONF": str(config),
        "PATH": f"{root / 'usr' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }

    def once(*command: str) -> None:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"

    once("ceph-authtool", "--create-keyring", f"{folder}/keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    once("monmaptool", "--create", "--addv", "a", address, "--fsid", str(fsid), f"{folder}/monmap")
    once("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap", "--keyring", f"{folder}/keyring")
    with ExitStack() as stack:

        def start(name: str, *command: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(
                daemon([str(root / "usr" / "bin" / command[0]), *command[1:]], folder / f"{name}.out", environment)
            )

        wait_for(mon, start("mon", "ceph-mon", "-f", "-i", "a"), folder / "mon.out")
        once(sys.executable, "-c", _COMMAND, str(config), f'{{"prefix": "osd new", "uuid": "{osd}"}}')
        once("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(osd))
        start("osd", "ceph-osd", "-f", "-i", "0")
        user = ["--uid=test", "--display-name=test", f"--access-key={KEY}", f"--secret-key={SECRET}"]
        once("radosgw-admin", "user", "create", *user)
        wait_for(gateway, start("rgw", "radosgw", "-f", "-n", "client.rgw"), folder / "rgw.out")
        yield Endpoint(f"http://127.0.0.1:{gateway}", KEY, SECRET)


def _config(folder: Path, root: Path, fsid: str, address: str, gateway: int) -> str:
    library = next((root / "usr" / "lib").glob("*-linux-gnu/ceph"))
    common = {
        "fsid": fsid,
        "mon_host": address,
        "public_addr": "127.0.0.1",
        "cluster_addr": "127.0.0.1",
        **dict.fromkeys(("auth_cluster_required", "auth_service_required", "auth_client_required"), "none"),
        "ms_mon_client_mode": "crc",
        "run_dir": folder,
        "admin_socket": "",  # its path would be too long for a socket
        "log_file": f"{folder}/$name.log",
        "mon_cluster_log_file": f"{folder}/cluster.log",
        "plugin_dir": library,
        "erasure_code_dir": library / "erasure-code",
        "osd_class_dir": library.parent / "rados-classes",
        "osd_pool_default_size": 1,
        "osd_pool_default_min_size": 1,
        "mon_allow_pool_size_one": "true",
        "osd_pool_default_pg_num": 4,
        "osd_pool_default_pg_autoscale_mode": "off",
        "osd_crush_chooseleaf_type": 0,
        "mon_max_pg_per_osd": 1000,
        "mon_data": f"{folder}/mon",
        "mon_data_avail_crit": 1,
        "osd_data": f"{folder}/osd",
        "osd_objectstore": "memstore",
        "memstore_device_bytes": 1 << 30,
    }
    gateways = {"rgw_frontends": f"beast endpoint=127.0.0.1:{gateway}", "rgw_data": folder}
    for name in ("mon", "osd"):
        (folder / name).mkdir()
    lines = ["[global]", *(f"{key} = {value}" for key, value in common.items())]
    return "\n".join([*lines, "[client.rgw]", *(f"{key} = {value}" for key, value in gateways.items())]) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder, running(Path(folder)) as endpoint:
        endpoint.serve()


if __name__ == "__main__":
    main()
