"""A build on hosts made of namespaces: `python tests/cluster_of_instances.py COUNT KIND ATOM… [--kill]`; needs root.

COUNT machines are added by `cluster host add --driver KIND`, in turn where that is `qemu,chroot`, and build ATOM…; with
--kill one of them loses its power as soon as three packages are built. What it prints is the build's own output, and
what came of the hosts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, repeat
from pathlib import Path

from instances import Instance, Network, network

from cluster.master.hosts import link

CLUSTER = (sys.executable, "-m", "cluster")
_DEADLINE_S = 1500.0


def main(count: int, kind: str, atoms: list[str], *, kill: bool) -> int:
    """Build `atoms` on `count` machines; the build's exit code."""
    with tempfile.TemporaryDirectory(prefix="instances-") as scratch, network(Path(scratch) / "net") as net:
        state = Path(scratch) / "state"
        common = ("--state", str(state))
        key = link.identity(state / "hosts").with_suffix(".pub").read_text()
        started = [net.start(f"host{number}") for number in range(1, count + 1)]
        for instance in started:
            instance.admit(key)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, started, cycle(kind.split(",")), repeat(common)))
        subprocess.run([*CLUSTER, "host", "list", *common], check=True, timeout=60)
        binhost = Path(scratch) / "binhost"
        if kill:
            threading.Thread(target=kill_later, args=(net, "host1", binhost), daemon=True).start()
        words = [*CLUSTER, "build", *atoms, "--binhost", str(binhost), *common]
        return subprocess.run(words, check=False, timeout=_DEADLINE_S).returncode


def add(instance: Instance, kind: str, common: tuple[str, ...]) -> None:
    """Make `instance` a host of one node."""
    words = [*CLUSTER, "host", "add", f"root@{instance.address}", "--name", instance.name, "--nodes", "1"]
    words += ["--driver", kind, "--host-key", instance.host_key, *common]
    subprocess.run(words, check=True, timeout=_DEADLINE_S, stdout=subprocess.DEVNULL)


def kill_later(net: Network, name: str, binhost: Path) -> None:
    """End the machine `name` when three packages are built."""
    end = time.monotonic() + _DEADLINE_S
    while len(list(binhost.rglob("*.gpkg.tar"))) < 3 and time.monotonic() < end:
        time.sleep(0.5)
    print(f"--- {name} loses its power", flush=True)
    net.kill(name)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--kill"]
    sys.exit(main(int(words[0]), words[1], words[2:], kill="--kill" in sys.argv))
