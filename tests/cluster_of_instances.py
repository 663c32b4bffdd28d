"""A build on hosts made of namespaces, as `python tests/cluster_of_instances.py 4 chroot @demo --kill`; needs root.

The machines are added by `cluster host add --driver KIND`, and build ATOM…; what happens to one of them as soon as
three packages are built is for the options to say. What is printed is the build's own output, and what came of the
hosts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, repeat
from pathlib import Path

from instances import Instance, Network, network

from cluster.master.hosts import link

CLUSTER = (sys.executable, "-m", "cluster")
VICTIM = "host1"
_DEADLINE_S = 3600.0


def words_of(argv: list[str]) -> argparse.Namespace:
    """What is asked for."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("count", type=int, help="machines")
    words.add_argument("kind", help="qemu, chroot, or several in turn, separated by commas")
    words.add_argument("atoms", nargs="+", metavar="ATOM")
    words.add_argument("--config", type=Path, help="a configuration for all of it")
    words.add_argument("--target", default="arm64")
    words.add_argument("--after", type=int, default=3, help="packages, when it happens")
    what = words.add_mutually_exclusive_group()
    what.add_argument("--kill", action="store_true", help="one machine loses its power")
    what.add_argument("--cut", action="store_true", help="the cable of one is pulled, and put back after a minute")
    return words.parse_args(argv)


def main(asked: argparse.Namespace) -> int:
    """Do it; the build's exit code."""
    with tempfile.TemporaryDirectory(prefix="instances-") as scratch, network(Path(scratch) / "net") as net:
        state, binhost = Path(scratch) / "state", Path(scratch) / "binhost"
        common = ("--state", str(state), *(("--config", str(asked.config)) if asked.config else ()))
        key = link.identity(state / "hosts").with_suffix(".pub").read_text()
        started = [net.start(f"host{number}") for number in range(1, asked.count + 1)]
        for instance in started:
            instance.admit(key)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(add, started, cycle(asked.kind.split(",")), repeat((*common, "--target", asked.target))))
        subprocess.run([*CLUSTER, "host", "list", *common], check=True, timeout=60)
        if asked.kill:
            later(binhost, asked.after, lambda: power_goes(net))
        if asked.cut:
            later(binhost, asked.after, lambda: cable_goes(net))
        words = [*CLUSTER, "build", *asked.atoms, "--target", asked.target, "--binhost", str(binhost), *common]
        status = subprocess.run(words, check=False, timeout=_DEADLINE_S).returncode
        subprocess.run([*CLUSTER, "host", "list", *common], check=True, timeout=60)
        return status


def add(instance: Instance, kind: str, common: tuple[str, ...]) -> None:
    """Make `instance` a host of one node."""
    words = [*CLUSTER, "host", "add", f"root@{instance.address}", "--name", instance.name, "--nodes", "1"]
    words += ["--driver", kind, "--host-key", instance.host_key, *common]
    subprocess.run(words, check=True, timeout=_DEADLINE_S, stdout=subprocess.DEVNULL)


def later(binhost: Path, packages: int, act: Callable[[], None]) -> None:
    """Let something happen when so many packages are built."""

    def watch() -> None:
        while len(list(binhost.rglob("*.gpkg.tar"))) < packages:
            time.sleep(0.5)
        act()

    threading.Thread(target=watch, daemon=True).start()


def power_goes(net: Network) -> None:
    """End the machine."""
    print(f"--- {VICTIM} loses its power", flush=True)
    net.kill(VICTIM)


def cable_goes(net: Network) -> None:
    """Cut the machine off for a minute."""
    print(f"--- the cable of {VICTIM} is pulled", flush=True)
    net.cut(VICTIM)
    time.sleep(60)
    print(f"--- the cable of {VICTIM} is back", flush=True)
    net.mend(VICTIM)


if __name__ == "__main__":
    sys.exit(main(words_of(sys.argv[1:])))
