"""A build on hosts made of namespaces, as `python tests/cluster_of_instances.py 4 chroot @demo --kill`; needs root.

The machines are added by `cluster host add --driver KIND`, and build ATOM…; what happens to one of them as soon as
three packages are built is for the options to say. What is printed is the build's own output, and what came of the
hosts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

from instances import Instance, Network, network

from cluster.master.hosts import link

CLUSTER = (sys.executable, "-m", "cluster")
_DEADLINE_S = 3600.0


def words_of(argv: list[str]) -> argparse.Namespace:
    """What is asked for."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("count", type=int, help="machines")
    words.add_argument("kind", help="qemu, chroot, compile (no nodes), or several in turn, separated by commas")
    words.add_argument("atoms", nargs="+", metavar="ATOM")
    words.add_argument("--config", type=Path, help="a configuration for all of it")
    words.add_argument("--target", default="arm64")
    words.add_argument("--after", type=int, default=3, help="packages, when it happens")
    what = words.add_mutually_exclusive_group()
    what.add_argument("--kill", action="store_true", help="one machine loses its power")
    what.add_argument("--cut", action="store_true", help="the cable of one is pulled, and put back after a minute")
    return words.parse_args(argv)


@dataclass(frozen=True)
class Farm:
    """Machines of namespaces that have been added as hosts, and where the master keeps what is its own."""

    net: Network
    place: Path
    options: tuple[str, ...]
    """Of every command."""

    @property
    def binhost(self) -> Path:
        return self.place / "binhost"

    def cluster(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run `cluster` with `words`."""
        return subprocess.run([*CLUSTER, *words, *self.options], text=True, timeout=_DEADLINE_S, check=False, **how)

    def build(self, *words: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run `cluster build` with `words`."""
        return self.cluster("build", *words, "--binhost", str(self.binhost), **how)

    def add(self, instance: Instance, kind: str, target: str) -> None:
        """Make `instance` a host of one node, or of none if its kind is `compile`."""
        use = ["--compiles-only"] if kind == "compile" else ["--nodes", "1", "--driver", kind]
        words = ["host", "add", f"root@{instance.address}", "--name", instance.name, *use]
        words += ["--host-key", instance.host_key, "--target", target]
        added = self.cluster(*words, capture_output=True)
        assert added.returncode == 0, added.stderr


@contextmanager
def farm(place: Path, count: int, kinds: str, target: str, *options: str) -> Iterator[Farm]:
    """`count` hosts for `target`, whose nodes are of `kinds` in turn; files are kept in `place`."""
    state = place / "state"
    with network(place / "net") as net:
        made = Farm(net, place, ("--state", str(state), *options))
        key = link.identity(state / "hosts").with_suffix(".pub").read_text()
        started = [net.start(f"host{number}") for number in range(1, count + 1)]
        for instance in started:
            instance.admit(key)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(made.add, started, cycle(kinds.split(",")), repeat(target)))
        yield made


def main(asked: argparse.Namespace) -> int:
    """Do it; the build's exit code."""
    options = ("--config", str(asked.config)) if asked.config else ()
    with (
        tempfile.TemporaryDirectory(prefix="instances-") as place,
        farm(Path(place), asked.count, asked.kind, asked.target, *options) as hosts,
    ):
        hosts.cluster("host", "list")
        if asked.kill:
            later(hosts, asked.after, power_goes)
        if asked.cut:
            later(hosts, asked.after, cable_goes)
        status = hosts.build(*asked.atoms, "--target", asked.target).returncode
        hosts.cluster("host", "list")
        return status


def later(hosts: Farm, packages: int, act: Callable[[Network, str], None]) -> Future[str]:
    """Let something happen to a host that builds when so many packages are built; the future is its name."""

    def watch() -> str:
        while len(list(hosts.binhost.rglob("*.gpkg.tar"))) < packages or not (busy := _busy(hosts)):
            time.sleep(0.5)
        act(hosts.net, busy)
        return busy

    victim: Future[str] = Future()
    threading.Thread(target=lambda: victim.set_result(watch()), daemon=True).start()
    return victim


def _busy(hosts: Farm) -> str:
    """The first host that builds something; "" for none."""
    (run,) = json.loads(hosts.cluster("status", "--json", capture_output=True).stdout)["runs"]
    return next((host["name"] for host in run["hosts"] if host["state"] == "building"), "")


def power_goes(net: Network, name: str) -> None:
    """End a machine."""
    print(f"--- {name} loses its power", file=sys.stderr, flush=True)
    net.kill(name)


def cable_goes(net: Network, name: str) -> None:
    """Cut a machine off for a minute."""
    print(f"--- the cable of {name} is pulled", file=sys.stderr, flush=True)
    net.cut(name)
    time.sleep(60)
    print(f"--- the cable of {name} is back", file=sys.stderr, flush=True)
    net.mend(name)


if __name__ == "__main__":
    sys.exit(main(words_of(sys.argv[1:])))
