"""The binhost: real GPKGs made by Portage, read back by Portage, installed from by emerge."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import portage
import pytest
from portage.dbapi.bintree import binarytree
from portage.gpkg import gpkg

from cluster.errors import InputError, MachineError
from cluster.master import binhost
from cluster.master.binhost import AdmitError, Binhost, serve, serving
from cluster.master.gpkg import portage_user
from cluster.master.judge import differences
from cluster.model import Cpv, Package

CHOST = "aarch64-unknown-linux-gnu"
PACKAGE = Package(
    cpv=Cpv("app-misc/foo-1.2-r1"),
    slot="0/1.2",
    use=("bar",),
    iuse=("bar", "baz"),
    repository="demo",
    ebuild=Path("/nowhere/foo-1.2-r1.ebuild"),
    requires=(),
    distfiles=(),
)
METADATA = {
    "EAPI": "8",
    "SLOT": "0/1.2",
    "USE": "arm64 bar elibc_glibc",
    "IUSE": "+bar -baz",
    "CHOST": CHOST,
    "KEYWORDS": "arm64",
    "repository": "demo",
    "DEFINED_PHASES": "install",
    "RDEPEND": "bar? ( app-misc/lib:= ) baz? ( app-misc/never )",
    "BUILD_TIME": "1700000000",
    "LICENSE": "MIT",
}

Make = Callable[..., Path]


def settings(root: Path) -> Any:
    env = {
        "BINPKG_FORMAT": "gpkg",
        "BINPKG_COMPRESS": "gzip",
        "FEATURES": "pkgdir-index-trusted",
        "PORTAGE_REPOSITORIES": "",
        **portage_user(),
    }
    return portage.config(config_root=str(root), target_root=str(root), eprefix="", local_config=False, env=env)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a GPKG of one file: make(cpv, KEY="value"…)."""

    def make(cpv: str = PACKAGE.cpv, content: bytes = b"#!/bin/sh\necho foo\n", **changes: str) -> Path:
        root = tmp_path / "image"
        (root / "usr/bin").mkdir(parents=True, exist_ok=True)
        (root / "usr/bin/foo").write_bytes(content)
        category, _, pf = cpv.partition("/")
        metadata = METADATA | {"CATEGORY": category, "PF": pf} | changes
        path = tmp_path / f"{pf}.gpkg.tar"
        package = gpkg(settings(tmp_path), cpv, str(path))
        package.compress(str(root), {key: f"{value}\n".encode() for key, value in metadata.items()})
        return path

    return make


def has(binhost: Binhost, package: Package) -> bool:
    """Whether the binhost has `package` as it is wanted."""
    record = binhost.records().get(package.cpv)
    return record is not None and not differences(record, package, CHOST)


def image_of(file: Path) -> bytes:
    """The compressed image in the GPKG `file`, byte for byte."""
    with tarfile.open(file) as container:
        member = next(member for member in container if "/image.tar" in member.name)
        stream = container.extractfile(member)
        assert stream is not None
        return stream.read()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "binhost" / "arm64"


def test_empty_directory_becomes_a_binhost(directory: Path) -> None:
    directory.mkdir(parents=True)
    assert Binhost(directory, CHOST).entries() == ()
    assert not has(Binhost(directory, CHOST), PACKAGE)


def test_admit(directory: Path, make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    opened = Binhost(directory, CHOST)
    made = make()
    path = opened.admit(made, PACKAGE)
    assert path == opened.path(PACKAGE.cpv) == directory / "app-misc/foo-1.2-r1.gpkg.tar"
    assert image_of(path) == image_of(made)
    assert path.stat().st_mode & 0o777 == 0o644
    assert has(opened, PACKAGE)
    assert has(Binhost(directory, CHOST), PACKAGE)
    (entry,) = opened.entries()
    assert entry.size == path.stat().st_size
    assert entry.build_time == 1700000000
    assert entry.metadata.use == ("bar",)
    assert entry.metadata.repository == "demo"
    left = [name.name for name in directory.rglob("*") if name.is_file()]
    assert sorted(left) == [".portage-cluster", "Packages", "foo-1.2-r1.gpkg.tar"]
    assert capfd.readouterr() == ("", "")


def test_what_is_admitted_is_read_and_nothing_else(
    directory: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get_metadata = gpkg.get_metadata

    def noted(package: Any, *words: Any) -> Any:
        read.append(Path(package.gpkg_file).name)
        return get_metadata(package, *words)

    opened = Binhost(directory, CHOST)
    monkeypatch.setattr(gpkg, "get_metadata", noted)
    for number in range(3):
        read.clear()
        opened.admit(make(f"app-misc/foo-{number}"), replace(PACKAGE, cpv=Cpv(f"app-misc/foo-{number}")))
        assert read
        assert not {f"foo-{other}.gpkg.tar" for other in range(number)} & set(read)
    assert {str(entry.metadata.cpv) for entry in opened.entries()} == {f"app-misc/foo-{number}" for number in range(3)}


def test_two_masters_lose_nothing(directory: Path, make: Make) -> None:
    both = [Binhost(directory, CHOST), Binhost(directory, CHOST)]
    for number in range(6):
        cpv = f"app-misc/foo-{number}"
        both[number % 2].admit(make(cpv), replace(PACKAGE, cpv=Cpv(cpv)))
    assert [len(one.entries()) for one in both] == [6, 6]


def test_threads_lose_nothing(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    made = {cpv: make(cpv) for cpv in (f"app-misc/foo-{number}" for number in range(8))}
    threads = [
        threading.Thread(target=opened.admit, args=(file, replace(PACKAGE, cpv=Cpv(cpv)))) for cpv, file in made.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened.entries()) == 8


def test_admitted_again_replaces(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    opened.admit(make(), PACKAGE)
    plain = replace(PACKAGE, use=())
    assert not has(opened, plain)
    opened.admit(make(USE="arm64", content=b"other" * 100), plain)
    assert has(opened, plain)
    assert not has(opened, PACKAGE)
    assert len(opened.entries()) == 1


@pytest.mark.parametrize(
    ("changes", "package", "told"),
    [
        ({"PF": "foo-1.3"}, PACKAGE, "CPV is 'app-misc/foo-1.3', wanted 'app-misc/foo-1.2-r1'"),
        ({"USE": "arm64 baz"}, PACKAGE, "USE is 'baz', wanted 'bar'"),
        ({"SLOT": "0/1.3"}, PACKAGE, "SLOT is '0/1.3', wanted '0/1.2'"),
        ({"SLOT": "0"}, PACKAGE, "SLOT is '0/0', wanted '0/1.2'"),
        ({"CHOST": "x86_64-pc-linux-gnu"}, PACKAGE, f"CHOST is 'x86_64-pc-linux-gnu', wanted '{CHOST}'"),
    ],
)
def test_another_package_is_refused(
    directory: Path, make: Make, changes: dict[str, str], package: Package, told: str
) -> None:
    opened = Binhost(directory, CHOST)
    with pytest.raises(AdmitError) as caught:
        opened.admit(make(**changes), package)
    assert str(caught.value) == f"the binary package of {package.cpv} is not admitted: {told}"
    assert opened.entries() == ()
    assert not opened.path(package.cpv).exists()


def test_slot_without_subslot_is_the_same(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    opened.admit(make(SLOT="0"), replace(PACKAGE, slot="0"))
    assert has(opened, replace(PACKAGE, slot="0/0"))


def cut(content: bytes) -> bytes:
    return content[:-6000]


def flip(content: bytes) -> bytes:
    """Alter one byte of the image's compressed data."""
    at = content.index(b"image.tar.gz") + 512 + 60
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda _: b"", lambda _: b"not a gpkg" * 2000], ids=["cut", "flipped", "empty", "text"]
)
def test_damaged_file_is_refused(
    directory: Path, make: Make, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Binhost(directory, CHOST)
    file = make()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(AdmitError, match="is not a sound GPKG"):
        opened.admit(file, PACKAGE)
    assert opened.entries() == ()
    assert not opened.path(PACKAGE.cpv).exists()
    assert capfd.readouterr() == ("", "")


def test_refusal_keeps_what_was_there(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    before = opened.admit(make(), PACKAGE).read_bytes()
    with pytest.raises(AdmitError):
        opened.admit(make(CHOST="other"), PACKAGE)
    assert has(opened, PACKAGE)
    assert opened.path(PACKAGE.cpv).read_bytes() == before


def test_missing_and_cut_files_are_not_had(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    path = opened.admit(make(), PACKAGE)
    path.write_bytes(path.read_bytes()[:-1])
    assert not has(opened, PACKAGE)
    path.unlink()
    assert not has(opened, PACKAGE)
    opened.admit(make(), PACKAGE)
    assert has(opened, PACKAGE)


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Packages").touch()
    with pytest.raises(InputError, match="is not empty and no binhost of ours: name an empty directory with --binhost"):
        Binhost(tmp_path, CHOST)
    with pytest.raises(InputError, match="is not a directory"):
        Binhost(tmp_path / "Packages", CHOST)
    with pytest.raises(InputError, match="is not a directory"):
        Binhost(tmp_path / "Packages" / "below", CHOST)


def test_binhost_of_another_target_is_refused(directory: Path) -> None:
    Binhost(directory, CHOST)
    with pytest.raises(InputError, match=f"is a binhost for CHOST {CHOST}, not riscv64"):
        Binhost(directory, "riscv64-unknown-linux-gnu")
    (directory / ".portage-cluster").write_text("[")
    with pytest.raises(InputError, match="is damaged"):
        Binhost(directory, CHOST)


def test_portage_reads_the_index(directory: Path, make: Make, tmp_path: Path) -> None:
    Binhost(directory, CHOST).admit(make(), PACKAGE)
    header, _, body = (directory / "Packages").read_text().partition("\n\n")
    assert f"CHOST: {CHOST}" in header.splitlines()
    assert {"PACKAGES: 1", "VERSION: 0"} <= set(header.splitlines())
    assert {line.partition(":")[0] for line in body.split("\n") if line} >= {
        *("BUILD_TIME", "CPV", "DEFINED_PHASES", "EAPI", "IUSE", "KEYWORDS", "LICENSE", "MD5", "MTIME"),
        *("RDEPEND", "REPO", "SHA1", "SIZE", "SLOT", "USE"),
    }
    tree = binarytree(pkgdir=str(directory), settings=settings(tmp_path))
    tree.populate()
    assert tree.dbapi.cpv_all() == [PACKAGE.cpv]
    slot, rdepend = tree.dbapi.aux_get(PACKAGE.cpv, ["SLOT", "RDEPEND"])
    assert (slot, rdepend) == ("0/1.2", "app-misc/lib:=")


@pytest.fixture
def config_root(tmp_path: Path) -> Path:
    """A machine that has one small repository, a profile, and nothing installed."""
    root = tmp_path / "client"
    files = {
        "repo/metadata/layout.conf": "masters =\nprofile-formats = portage-2\n",
        "repo/profiles/repo_name": "demo\n",
        "repo/profiles/arch.list": "arm64\n",
        "repo/profiles/categories": "app-misc\n",
        "repo/profiles/arm64/eapi": "8\n",
        "repo/profiles/arm64/make.defaults": f'ARCH="arm64"\nACCEPT_KEYWORDS="arm64"\nCHOST="{CHOST}"\n',
        "etc/portage/repos.conf": f"[DEFAULT]\nmain-repo = demo\n[demo]\nlocation = {root}/repo\n",
        "etc/portage/make.conf": 'ACCEPT_LICENSE="*"\nFEATURES="-sandbox -usersandbox -userfetch -userpriv -news"\n',
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "etc/portage/make.profile").symlink_to(root / "repo/profiles/arm64")
    return root


def emerge(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run emerge on the configuration under `root`.

    ROOT and EPREFIX stay as they are: with others Portage also wants a profile for the running system.
    """
    env = {
        "PATH": os.environ["PATH"],
        "PORTAGE_CONFIGROOT": str(root),
        **portage_user(),
    }
    argv = [sys.executable, str(Path(sys.executable).with_name("emerge")), *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_emerge_installs_from_it(directory: Path, make: Make, config_root: Path) -> None:
    opened = Binhost(directory, CHOST)
    opened.admit(make(), PACKAGE)
    library = replace(PACKAGE, cpv=Cpv("app-misc/lib-3"), use=(), slot="0/3")
    opened.admit(make(library.cpv, USE="", IUSE="", SLOT="0/3", RDEPEND=""), library)
    with serving(directory) as address:
        conf = f"[ours]\nsync-uri = {address.url}\npriority = 1\nverify-signature = false\n"
        (config_root / "etc/portage/binrepos.conf").write_text(conf)
        told = emerge(config_root, "--pretend", "--verbose", "--getbinpkgonly", "--color=n", "app-misc/foo")
    assert told.returncode == 0, told.stdout + told.stderr
    lines = [line for line in told.stdout.splitlines() if line.startswith("[binary")]
    assert [line.split("]")[1].split(":")[0].strip() for line in lines] == ["app-misc/lib-3", "app-misc/foo-1.2-r1"]
    assert 'USE="bar -baz"' in lines[1]


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        content: bytes = answer.read()
        return content


def test_serving(directory: Path, make: Make) -> None:
    opened = Binhost(directory, CHOST)
    path = opened.admit(make(), PACKAGE)
    with serving(directory) as address:
        assert address.host == "127.0.0.1"
        assert get(f"{address.url}/Packages").startswith(b"CHOST")
        assert get(f"{address.url}/app-misc/{path.name}") == path.read_bytes()
    with pytest.raises(urllib.error.URLError):
        get(f"{address.url}/Packages")


def test_serves_nothing_else(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    (inside / ".hidden").write_text("hidden")
    (inside / "link").symlink_to(tmp_path / "secret")
    paths = ("/", "/../secret", "/%2e%2e/secret", "//../secret", "/.hidden", "/link", "/absent", "/a%00b")
    with serving(inside) as address:
        statuses = {(method, path): ask(address, method, path) for method in ("GET", "HEAD") for path in paths}
        assert set(statuses.values()) == {404}, statuses
        assert [ask(address, method, "/link") for method in ("POST", "PUT", "DELETE")] == [501] * 3


def ask(address: binhost.Address, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_unchanged_index_is_not_sent_again(directory: Path, make: Make) -> None:
    Binhost(directory, CHOST).admit(make(), PACKAGE)
    with serving(directory) as address:
        with urllib.request.urlopen(f"{address.url}/Packages", timeout=5) as answer:
            modified = answer.headers["Last-Modified"]
        request = urllib.request.Request(f"{address.url}/Packages", headers={"If-Modified-Since": modified})
        with pytest.raises(urllib.error.HTTPError, match="304"):
            urllib.request.urlopen(request, timeout=5)


def test_port_in_use(tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        with pytest.raises(MachineError, match=f"port {address.port} of 127.0.0.1 is in use: .*--port"):
            serve(tmp_path, address.host, address.port, lambda _: None)
        with pytest.raises(MachineError, match="cannot listen on port 70000"):
            serve(tmp_path, address.host, 70000, lambda _: None)
        with pytest.raises(MachineError, match="cannot listen on port 0 of no-such"):
            serve(tmp_path, "no-such-host.invalid", 0, lambda _: None)


def test_serve_says_when_it_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("content")
    seen: list[bytes] = []
    done = threading.Event()

    def look(address: binhost.Address) -> None:
        seen.append(get(f"{address.url}/file"))
        done.set()

    def ready(address: binhost.Address) -> None:
        threading.Thread(target=look, args=(address,)).start()

    def interrupt(server: ThreadingHTTPServer) -> None:
        if done.is_set():
            raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "service_actions", interrupt)
    with pytest.raises(KeyboardInterrupt):
        serve(tmp_path, "127.0.0.1", 0, ready)
    assert seen == [b"content"]


def test_a_package_is_taken_as_it_is(directory: Path, make: Make, tmp_path: Path) -> None:
    theirs = Binhost(tmp_path / "theirs", CHOST)
    wanted = replace(PACKAGE, fingerprint=(("ebuild", "1"),))
    given = theirs.admit(make(), wanted)
    mine = Binhost(directory, CHOST)
    mine.take(theirs.directory, wanted)
    assert mine.path(wanted.cpv).read_bytes() == given.read_bytes()
    assert mine.records() == theirs.records()
    assert mine.records()[wanted.cpv].fingerprint == wanted.fingerprint


def test_what_is_not_the_same_or_not_whole_is_not_taken(directory: Path, make: Make, tmp_path: Path) -> None:
    theirs = Binhost(tmp_path / "theirs", CHOST)
    given = theirs.admit(make(), PACKAGE)
    mine = Binhost(directory, CHOST)
    with pytest.raises(AdmitError, match=r"foo-1.2-r1 cannot be taken from .*theirs: USE is"):
        mine.take(theirs.directory, replace(PACKAGE, use=()))
    given.write_bytes(cut(given.read_bytes()))
    with pytest.raises(AdmitError, match=r"foo-1.2-r1 cannot be taken from .*theirs: .* is not a sound GPKG"):
        mine.take(theirs.directory, PACKAGE)
    assert mine.records() == {}
