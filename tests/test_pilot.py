"""Pilots: the sandbox's words, and one that builds with this machine's compiler in the place of the target's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from factories import host_root
from factories import package as make_package
from processes import eventually
from repos import write_repository

from cluster import paths, target
from cluster.errors import MachineError
from cluster.model import Package
from cluster.node import container, pilot, sandbox
from cluster.node.compilecache import CompileCache
from cluster.node.compileserver import CompileServer, Tally
from cluster.node.job import Materials, Settings

pytestmark = pytest.mark.slow

ARM64 = target.load("arm64")
NAMES = ("gcc", "cc")
BODY = """\
src_unpack() { mkdir -p "${S}/closed/full"; chmod 500 "${S}/closed"; }
src_compile() {
    echo 'int main(void) { return 7; }' > seven.c || die
    gcc -O2 -c seven.c || die
    (: < /dev/tcp/127.0.0.1/22) 2> /dev/null && die "the network is there"
    [[ -e /home || -e /etc/shadow || -e /root/.ssh ]] && die "the host is there"
    has_version app/needed || die "the prerequisites are not there"
    touch /usr/written 2> /dev/null && die "/usr is writable"
    einfo "all is well"
}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def kit(cache: Path) -> pilot.Kit:
    if not (shutil.which("gcc") and sandbox.works()):
        pytest.skip("needs gcc and bwrap")
    try:
        return pilot.ensure(ARM64, host_root(), NAMES, cache)
    except MachineError as error:
        pytest.skip(f"no pilots here: {error}")


@dataclass
class Flight:
    server: CompileServer
    tally: Tally
    log: Path
    pids: list[int]

    def said(self, text: str, deadline_s: float = 60.0) -> str:
        """The log once it has `text` in it."""
        assert eventually(lambda: text in self.log.read_text(errors="replace"), deadline_s), self.log.read_text()
        return self.log.read_text(errors="replace")


@contextmanager
def flight(kit: pilot.Kit, place: Path, body: str) -> Iterator[Flight]:
    repository = write_repository(place / "repo", {"app/small-1": {"_body": body}}, name="small")
    ebuild = repository.location / "app/small/small-1.ebuild"
    package: Package = make_package("app/small-1", "app/needed-2", repository="small", ebuild=ebuild)
    settings = Settings(ARM64.chost, repository.location / "profiles/arm64", (repository,), jobs=1, distcc_hosts="h")
    socket = place / "socket"
    pids: list[int] = []
    directory = place / "pilot"
    directory.mkdir()
    with (
        CompileServer(CompileCache(place / "compiles", 1 << 30), slots=2, audit_percent=100.0, local=socket) as server,
        server.job(host_root(), place / "job", audited=False) as (token, job),
        pilot.flying(
            kit,
            package,
            settings,
            Materials(place, {}, "", pilot.access(token), prerequisites=place / "image"),
            Path("/usr/include"),
            ("sys-devel/gcc-14:14",),
            directory=directory,
            log=place / "log",
            socket=socket,
            own=pids.append,
        ),
    ):
        yield Flight(server, job.tally, place / "log", pids)


def test_what_a_pilot_compiles_is_in_the_cache_and_it_sees_nothing_of_the_host(kit: pilot.Kit, tmp_path: Path) -> None:
    with flight(kit, tmp_path, BODY) as flown:
        flown.said("all is well")
        assert (flown.tally.compiled, flown.tally.audited) == (1, 0)
        assert list((tmp_path / "compiles").glob("??/*"))
    (closed,) = (tmp_path / "pilot/tmp").rglob("closed")
    assert closed.stat().st_mode & 0o700 == 0o700


def test_a_pilot_ends_with_its_context_and_all_its_processes(kit: pilot.Kit, tmp_path: Path) -> None:
    body = 'src_unpack() { mkdir -p "${S}"; }\nsrc_compile() { einfo here; exec -a pilots-child sleep 1000; }\n'
    with flight(kit, tmp_path, body) as flown:
        flown.said("here")
        (pid,) = flown.pids
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    processes = Path("/proc").glob
    assert eventually(lambda: not [path for path in processes("[0-9]*/cmdline") if b"pilots-child" in _read(path)])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_kit_is_made_once(kit: pilot.Kit, cache: Path) -> None:
    before = (kit.directory / "bin/cc-client").stat().st_ino
    assert pilot.ensure(ARM64, host_root(), reversed(NAMES), cache) == kit
    assert (kit.directory / "bin/cc-client").stat().st_ino == before
    assert sorted(path.name for path in (kit.directory / "bin").iterdir()) == ["cc", "cc-client", "gcc"]


SPAWNS = """\
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
int main(int n, char **argv)
{
    for (int i = 1; i < n; i++) {
        pid_t child;
        char *words[] = {argv[i], NULL}, *none[] = {NULL};
        int status = 0, error = (strchr(argv[i], '/') ? posix_spawn : posix_spawnp)(&child, argv[i], 0, 0, words, none);
        if (!error)
            waitpid(child, &status, 0);
        printf("%s: %s, %d\\n", argv[i], error ? strerrorname_np(error) : "started", WEXITSTATUS(status));
    }
}
"""


def test_what_is_preloaded_tells_errors_as_the_c_library_does(kit: pilot.Kit, tmp_path: Path) -> None:
    (tmp_path / "spawns.c").write_text(SPAWNS)
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-o", "spawns", "spawns.c"], cwd=tmp_path, check=True)
    for name, text, mode in (("words", "words\n", 0o755), ("script", "#!/bin/false\n", 0o755), ("data", "", 0o644)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    names = ["/bin/true", "true", "./absent", "absent", "./words", "./script", "./data", "data", "/bin", "words/x"]
    environment = {"PATH": f"/nowhere:{tmp_path}:/usr/bin"}
    preload = {"LD_PRELOAD": str(kit.directory / "preload/posix_spawn.so")}
    theirs, ours = (
        subprocess.run(
            [tmp_path / "spawns", *names], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for env in (environment, environment | preload)
    )
    assert ours == theirs
    assert "./absent: ENOENT, 0" in ours
    assert "./script: started, 1" in ours


def test_the_sandbox_has_no_network_no_capability_and_writes_to_the_job_only() -> None:
    kit = pilot.Kit(Path("/kit"), ARM64)
    words = pilot.command(kit, Path("/sealed"), Path("/work"), Path("/socket"), {"bin": "usr/bin", "lib": "usr/lib"})
    assert {"--unshare-all", "--clearenv", "--die-with-parent"} <= set(words)
    assert "--share-net" not in words
    assert words[words.index("--cap-drop") + 1] == "ALL"
    writable = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "--bind"]
    assert writable == [
        ["/work/job", "/job"],
        ["/work/installed/var/db", "/var/db"],
        ["/work/tmp", "/var/tmp"],
        ["/socket", "/run/compile"],
    ]
    text = " ".join(words)
    assert " --symlink usr/bin /bin " in text
    assert " --ro-bind /sealed /node " in text


@pytest.mark.parametrize(("nodes", "cpus", "processors", "room"), [(1, 1, 2, True), (2, 1, 2, False), (2, 2, 4, False)])
def test_pilots_fly_where_a_processor_would_be_idle(nodes: int, cpus: int, processors: int, room: bool) -> None:
    assert pilot.is_room(nodes, cpus, processors) is room


def test_a_machine_without_qemu_user_has_no_pilots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "_BINFMT", tmp_path)
    with pytest.raises(MachineError, match="apt-get install qemu-user-static"):
        pilot.ensure(ARM64, host_root(), NAMES, tmp_path)


def test_a_kernel_that_keeps_binfmt_to_itself_has_no_pilots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qemu-aarch64.conf").touch()
    monkeypatch.setattr(container, "_BINFMT", tmp_path)
    (tmp_path / "unshare").write_text("#!/bin/sh\necho 'mount: permission denied' >&2\nexit 32\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(MachineError, match="permission denied"):
        pilot.ensure(ARM64, host_root(), NAMES, tmp_path)


@pytest.mark.parametrize("name", ["pilot", "with-binfmt", "enter"])
def test_the_hosts_scripts_are_shell(name: str) -> None:
    subprocess.run(["sh", "-n", paths.data("stage-images", "host", name)], check=True)
