"""Make a stage's root directory bootable; run under fakeroot, natively, on the host.

`python -m cluster.node.rootfs SPEC.json` unpacks what mmdebstrap extracted, records the
packages in dpkg's database as unpacked (guest/configure does the rest, on the target;
the way of multistrap), adds the master's own Portage, the ssh keys, the guest's scripts and our
programs, and writes the whole as an ext4 image.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.node import disk
from cluster.node.installed import write_installed
from cluster.process import run

_DPKG = "var/lib/dpkg"
_ARCHIVES = "var/cache/apt/archives"
_PORTAGE = "opt/portage"
_PROGRAMS = {
    "init": "sbin/cluster-init",
    "first-boot": "sbin/cluster-first-boot",
    "configure": "usr/lib/cluster/configure",
    "agent": "usr/lib/cluster/agent",
    "forkserver": "usr/lib/cluster/forkserver",
    "warm": "usr/lib/cluster/warm",
}
_STEP_DEADLINE_S = 600.0
_WRAPPER = """#!/bin/sh
# PyPI's Portage takes its prefix for EPREFIX unless told otherwise.
export EPREFIX="" ROOT=/ PORTAGE_CONFIGROOT=/
exec {interpreter} /{prefix}/lib/portage/bin/{name} "$@"
"""


def _control(deb: Path) -> dict[str, str]:
    """The control fields of `deb`, continuation lines kept."""
    fields: dict[str, str] = {}
    name = ""
    for line in run(["dpkg-deb", "--field", deb], deadline_s=_STEP_DEADLINE_S).splitlines():
        if line[:1].isspace():
            fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


def _file_list(deb: Path) -> str:
    """The paths of `deb` as dpkg's .list files have them."""
    with tarfile.open(deb.with_suffix(".fsys")) as members:
        names = [member.name.removeprefix(".").rstrip("/") or "/." for member in members]
    return "".join(f"{name}\n" for name in names)


def record_unpacked(root: Path) -> int:
    """Write dpkg's database for the .debs that mmdebstrap left in `root`; returns how many."""
    info = root / _DPKG / "info"
    info.mkdir(parents=True, exist_ok=True)
    entries = []
    debs = sorted((root / _ARCHIVES).glob("*.deb"))
    for deb in debs:
        fields = _control(deb)
        name = fields["Package"]
        if fields.get("Multi-Arch") == "same":
            name += f":{fields['Architecture']}"
        with deb.with_suffix(".fsys").open("wb") as stream:
            run(["dpkg-deb", "--fsys-tarfile", deb], deadline_s=_STEP_DEADLINE_S, output=stream)
        (info / f"{name}.list").write_text(_file_list(deb))
        control = deb.with_suffix(".control")
        run(["dpkg-deb", "--control", deb, control], deadline_s=_STEP_DEADLINE_S)
        for file in control.iterdir():
            if file.name != "control":
                shutil.move(file, info / f"{name}.{file.name}")
        fields = {"Package": fields.pop("Package"), "Status": "install ok unpacked", **fields}
        entries.append("".join(f"{key}: {value}\n" for key, value in fields.items()))
    (root / _DPKG / "status").write_text("\n".join(entries) + "\n")
    shutil.rmtree(root / _ARCHIVES)
    (root / _ARCHIVES / "partial").mkdir(parents=True)
    return len(debs)


def _portage_files() -> Iterator[tuple[Path, str]]:
    """The files of the Portage that runs this, each with its place below a prefix."""
    distribution = importlib.metadata.distribution("portage")
    prefix = Path(sys.prefix)
    for entry in distribution.files or ():
        source = Path(os.path.normpath(str(distribution.locate_file(entry))))
        if "tests" not in source.parts and source.exists():
            yield source, str(source.relative_to(prefix))


def python_of(root: Path) -> str:
    """The name of the root's Python with its version, as it is in the paths of its modules."""
    return (root / "usr/bin/python3").readlink().name


def install_portage(root: Path, python: str, interpreter: str = f"/{_PORTAGE}/bin/python3") -> None:
    """Copy the running Portage into a prefix of its own in `root`, with commands in /usr/local/bin.

    `python` is the name of the root's Python with its version, `interpreter` the program that runs the commands.
    """
    prefix = root / _PORTAGE
    ours, theirs = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/", f"lib/{python}/"
    for source, place in _portage_files():
        path = prefix / place.replace(ours, theirs)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, path)
    for command in (*(prefix / "bin").iterdir(), *(prefix / "lib/portage/bin").rglob("*")):
        _mend_interpreter(command)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (prefix / "bin/python3").symlink_to("/usr/bin/python3")
    (prefix / "bin/python").symlink_to("python3")
    # They name Gentoo's own repository and want signatures; a job says what it has.
    for name in ("repos.conf", "binrepos.conf"):
        (prefix / "share/portage/config" / name).unlink(missing_ok=True)
    shutil.rmtree(prefix / "etc/portage", ignore_errors=True)
    (prefix / "etc").mkdir(exist_ok=True)
    (prefix / "etc/portage").symlink_to("/etc/portage")
    (root / "etc/portage").mkdir(parents=True, exist_ok=True)
    for name in ("emerge", "ebuild", "env-update", "portageq"):
        write_program(
            root / "usr/local/bin" / name, _WRAPPER.format(prefix=_PORTAGE, name=name, interpreter=interpreter)
        )


def write_program(path: Path, text: str) -> None:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _mend_interpreter(command: Path) -> None:
    """Point a script's `#!` line at the node's Python instead of the master's."""
    if command.is_symlink() or not command.is_file():
        return
    text = command.read_bytes()
    first, separator, rest = text.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        stamp = command.stat()
        command.write_bytes(b"#!/" + _PORTAGE.encode() + b"/bin/python3" + separator + rest)
        os.utime(command, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def _append_accounts(root: Path) -> None:
    """The user and group that Portage looks up, and the one sshd wants, beside Debian's own."""
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / f"etc/{name}")
    with (root / "etc/passwd").open("a") as stream:
        stream.write("portage:x:250:250:portage:/var/tmp/portage:/usr/sbin/nologin\n")
        stream.write("sshd:x:251:65534::/run/sshd:/usr/sbin/nologin\n")
    with (root / "etc/group").open("a") as stream:
        stream.write("portage:x:250:portage\n")


def _configure_guest(root: Path, keys: Path, guest: Path) -> None:
    (root / "etc/hostname").write_text("node\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost node\n10.0.2.2 master\n")
    (root / "etc/resolv.conf").write_text("")
    ssh = root / "etc/ssh"
    ssh.mkdir(parents=True, exist_ok=True)
    shutil.copy(keys / "host_key", ssh / "ssh_host_ed25519_key")
    (ssh / "ssh_host_ed25519_key").chmod(0o600)
    (ssh / "sshd_config").write_text(
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "UsePAM no\nUseDNS no\nPrintMotd no\nMaxStartups 100\n"
        "Subsystem sftp /usr/lib/openssh/sftp-server\n"
        # An emulated processor: the cipher that needs no AES instructions.
        "Ciphers chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes128-ctr\n"
    )
    home = root / "root/.ssh"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    shutil.copy(keys / "id.pub", home / "authorized_keys")
    for name, place in _PROGRAMS.items():
        write_program(root / place, (guest / name).read_text())
    (root / "usr/bin/gtar").symlink_to("tar")
    # Where FEATURES=distcc looks for the compiler names that distcc answers to.
    (root / "usr/lib/distcc").mkdir(parents=True, exist_ok=True)
    (root / "usr/lib/distcc/bin").symlink_to(".")


@dataclass(frozen=True, slots=True)
class Spec:
    """What `compose` takes; it comes as JSON, because it runs in a process of its own."""

    tar: str
    """What mmdebstrap extracted."""
    work: str
    """A scratch directory; the tree is made in its `root`."""
    keys: str
    guest: str
    """The guest's scripts."""
    programs: str
    """The directory of our programs (`cluster.node.programs`), or of their source."""
    image: str
    size_mib: int
    arch: str
    provides: list[str]
    """What Portage is to believe installed."""


def make_tree(spec: Spec) -> Path:
    """Turn a tar of extracted packages into the directory of a root that boots; returns it."""
    root = Path(spec.work) / "root"
    root.mkdir()
    # Devices are the kernel's to make, in a node as in a chroot; and not everybody may.
    devices = ["--anchored", "--exclude=./dev/*"]
    run(["tar", "--extract", *devices, "--file", spec.tar, "--directory", root], deadline_s=_STEP_DEADLINE_S)
    print(f"recorded {record_unpacked(root)} packages", flush=True)
    _append_accounts(root)
    install_portage(root, python_of(root), "/usr/lib/cluster/python")
    _configure_guest(root, Path(spec.keys), Path(spec.guest))
    shutil.copytree(spec.programs, root / "usr/lib/cluster", dirs_exist_ok=True)
    write_installed(spec.provides, root, spec.arch)
    return root


def compose(spec: Spec) -> None:
    """Turn a tar of extracted packages into a bootable ext4 image."""
    tree = make_tree(spec)
    disk.make_ext4(tree, Path(spec.image), spec.size_mib)
    shutil.rmtree(tree)


if __name__ == "__main__":
    compose(Spec(**json.loads(Path(sys.argv[1]).read_text())))
