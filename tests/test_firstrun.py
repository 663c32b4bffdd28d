"""A stage's packages configured without a boot, in a chroot that is changed for good."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.node import roots, stage
from cluster.target import load

pytestmark = pytest.mark.slow

CONFIGURE = """\
#!/bin/sh
read -r name < /proc/sys/kernel/hostname
echo "cluster: configured on $name"
: > /dev/null && echo text > /etc/made
for place in /host /etc/passwd; do [ ! -e $place ] || echo "$place is there"; done
exit $(cat /etc/status)
"""
RUN = """\
import sys
from pathlib import Path
from cluster.node import firstrun
print(firstrun.configure(Path(sys.argv[1]), Path(sys.argv[2])), end="")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with a shell and what enters and leaves it."""
    tree = tmp_path / "tree"
    for name in ("dev", "etc", "proc", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/lib/cluster"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for name in ("sh", "cat", "chroot", "umount", "rmdir"):
        program = Path(shutil.which(name) or name)
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for needed in (f"/usr/bin/{name}", *re.findall(r"(/\S+) \(0x", said)):
            place = tree / needed.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program if needed == f"/usr/bin/{name}" else needed, place)
    configure = tree / "usr/lib/cluster/configure"
    configure.write_text(CONFIGURE)
    configure.chmod(0o755)
    return tree


def configured(tree: Path, status: int) -> subprocess.CompletedProcess[str]:
    """How `firstrun.configure` ends, by root of a namespace, where the root's own script ends with `status`."""
    (tree / "etc/status").write_text(f"{status}\n")
    words = ["unshare", *roots.OWN_USERS]
    probe = subprocess.run([*words, "unshare", *roots.NAMESPACES, "true"], capture_output=True, check=False, timeout=30)
    if probe.returncode:
        pytest.skip("no namespaces here")
    argv = [*words, sys.executable, "-c", RUN, tree, tree.parent / "chroot"]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def test_what_is_done_in_the_chroot_is_done_to_the_tree_and_nothing_else(tree: Path) -> None:
    ended = configured(tree, 0)
    assert ended.stdout == "cluster: configured on node\n", ended.stderr
    assert (tree / "etc/made").read_text() == "text\n"
    assert not list((tree / "dev").iterdir())


def test_a_package_that_cannot_be_configured_is_an_error(tree: Path) -> None:
    ended = configured(tree, 3)
    assert ended.returncode
    assert "failed with exit status 3" in ended.stderr


def test_a_host_of_another_architecture_boots_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    native = load("amd64").model_copy(update={"machines": ("pdp11",)})
    monkeypatch.setattr(stage, "_works", lambda argv: True)
    assert stage._chroot_words(native, "root") is None
    monkeypatch.setattr("os.uname", lambda: type("Uname", (), {"machine": "pdp11"}))
    assert stage._chroot_words(native, "root") == ()
    assert stage._chroot_words(native, "unshare") == ("unshare", "--user", "--map-auto", "--map-root-user")
    assert stage._chroot_words(native, "chrootless") is None
    monkeypatch.setattr(stage, "_works", lambda argv: False)
    assert stage._chroot_words(native, "root") is None
