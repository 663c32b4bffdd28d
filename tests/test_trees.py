"""Trees: real git remotes, real rsync, Portage over what came of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from repos import Ebuilds, write_repository

from cluster import config
from cluster.errors import CommandFailed, InputError, MachineError
from cluster.master import git, metadata, trees
from cluster.master.trees import Places, Status, Tree
from cluster.model import Repository

pytestmark = pytest.mark.slow

EBUILDS = {
    "app/cached-1": {},
    "app/sourced-1": {"_body": "inherit one\nDEPEND=app/cached\n"},
}
BROKEN = {**EBUILDS, "app/wrong-1": {"_body": 'die "not like this"\n'}, "app/orphan-1": {"_body": "inherit nothing\n"}}
ENDLESS = "read <> <(:)\n"
"""What bash waits for in vain, without work."""
ECLASS = {"eclass/one.eclass": "RDEPEND=app/cached\n"}


class Quiet:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        self.said.append(text)

    fail = warn


def run_git(directory: Path, *words: str) -> str:
    argv = ["git", "-C", str(directory), "-c", "user.name=x", "-c", "user.email=x@localhost", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def commit(directory: Path) -> str:
    """Commit everything in `directory`; returns the commit."""
    if not (directory / ".git").exists():
        run_git(directory, "init", "--quiet", "--initial-branch=main")
    run_git(directory, "add", "--all")
    run_git(directory, "commit", "--quiet", "--allow-empty", "-m", "a change")
    return run_git(directory, "rev-parse", "HEAD")


def manifest(ebuild: Path) -> str:
    """The Manifest that a repository without thin-manifests has."""
    content = ebuild.read_bytes()
    blake2b, sha512 = hashlib.blake2b(content).hexdigest(), hashlib.sha512(content).hexdigest()
    return f"EBUILD {ebuild.name} {len(content)} BLAKE2B {blake2b} SHA512 {sha512}\n"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository called `far`, without git."""
    return write_repository(tmp_path / "upstream", EBUILDS, name="far", files=ECLASS).location


@pytest.fixture
def where(tmp_path: Path) -> Places:
    return Places(tmp_path / "trees", tmp_path / "cache", tmp_path / "synced")


def over_git(upstream: Path, where: Places, pin: str = "") -> Tree:
    return Tree("far", "git", where.trees / "far", f"file://{upstream}", pin)


def over_rsync(upstream: Path, where: Places) -> Tree:
    return Tree("far", "rsync", where.trees / "far", str(upstream))


def synced(tree: Tree, where: Places, *others: Tree) -> tuple[Status, list[str]]:
    """Sync one tree among `others`; returns how it stands and what was complained of."""
    reporter = Quiet()
    (found,) = trees.sync([tree], [tree, *others], where, reporter)
    return found, reporter.said


def fails(tree: Tree) -> str:
    """The one line that says why `tree` cannot be fetched."""
    with pytest.raises((InputError, MachineError)) as caught:
        trees.fetch(tree)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def siblings(tree: Tree) -> set[str]:
    """What lies beside the tree, but for the lock."""
    return {path.name for path in tree.location.parent.iterdir()} - {f".{tree.location.name}.lock"}


# Which trees there are.


def test_the_configuration_names_trees_in_its_order(tmp_path: Path, where: Places) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[repositories]\nfirst = "/overlay"\n[repositories.far]\nsync = "git"\nuri = "file:///up"\n'
        f'[repositories.near]\nsync = "rsync"\nuri = "/up"\ndirectory = "{tmp_path}/near"\n'
    )
    assert trees.configured(config.load(mine).repositories, where) == (
        Tree("first", "directory", Path("/overlay")),
        Tree("far", "git", where.trees / "far", "file:///up"),
        Tree("near", "rsync", tmp_path / "near", "/up"),
    )


def test_an_unknown_name_does_not_hide_the_known_ones(where: Places, tmp_path: Path) -> None:
    known = (Tree("a", "directory", tmp_path), Tree("b", "directory", tmp_path))
    found, wrong = trees.chosen(known, ["b", "c", "b"])
    assert found == known[1:]
    assert [str(error) for error in wrong] == ["there is no repository 'c': repositories: a, b"]
    assert trees.chosen(known, []) == (known, ())


# Git.


def test_a_clone_follows_the_head_of_its_remote(upstream: Path, where: Places) -> None:
    tree = over_git(upstream, where)
    first = commit(upstream)
    assert synced(tree, where)[0].revision == first
    assert siblings(tree) == {"far"}
    shutil.rmtree(upstream / "app/cached")
    write_repository(upstream, {"app/new-1": {}}, name="far")
    second = commit(upstream)
    found, complaints = synced(tree, where)
    assert (found.revision, complaints) == (second, [])
    assert (tree.location / "app/new/new-1.ebuild").exists()
    assert not (tree.location / "app/cached").exists()
    assert run_git(tree.location, "rev-list", "--count", "HEAD") == "1", "only what is needed is fetched"


@pytest.mark.parametrize("by_hash", [True, False])
def test_a_pinned_commit_stays(upstream: Path, where: Places, monkeypatch: pytest.MonkeyPatch, by_hash: bool) -> None:
    first = commit(upstream)
    commit(upstream)
    if not by_hash:  # a server that gives branches only
        plain = git.Clone._fetch

        def refuse(clone: git.Clone, what: str) -> None:
            if what == first:
                raise CommandFailed("git failed", "Server does not allow request for unadvertised object")
            plain(clone, what)

        monkeypatch.setattr(git.Clone, "_fetch", refuse)
    tree = over_git(upstream, where, first)
    assert synced(tree, where)[0].revision == first
    assert run_git(tree.location, "rev-list", "--count", "--all") == ("1" if by_hash else "2")
    shutil.move(upstream, upstream.with_name("moved"))
    assert synced(tree, where)[0].revision == first, "what is here already needs no remote"


def test_a_pin_that_moves(upstream: Path, where: Places) -> None:
    first, second = commit(upstream), commit(upstream)
    for pin in (second, first):
        found, complaints = synced(over_git(upstream, where, pin), where)
        assert (found.revision, complaints) == (pin, [])


def test_an_unknown_pin(upstream: Path, where: Places) -> None:
    commit(upstream)
    tree = over_git(upstream, where, "1" * 40)
    said = fails(tree)
    assert f"file://{upstream} has no commit {'1' * 40}: mend the key commit" in said
    assert not tree.location.exists()


def test_a_remote_that_cannot_be_reached(upstream: Path, where: Places) -> None:
    tree = over_git(upstream / "nothing", where)
    said = fails(tree)
    assert said.startswith(f"repository far: {tree.uri} cannot be fetched: ")
    assert "does not appear to be a git repository; mend its uri" in said
    assert not tree.location.exists()


def test_local_changes_are_kept(upstream: Path, where: Places) -> None:
    tree = over_git(upstream, where)
    commit(upstream)
    trees.fetch(tree)
    (tree.location / "app/mine-1.ebuild").write_text("mine")
    (tree.location / "profiles/eapi").write_text("7\n")
    said = fails(tree)
    assert f"{tree.location} has local changes (profiles/eapi and 1 more)" in said
    assert f"git -C {tree.location} stash --include-untracked" in said
    assert (tree.location / "profiles/eapi").read_text() == "7\n"


def test_generated_metadata_is_no_local_change(upstream: Path, where: Places) -> None:
    """Whether the history has the cache, has none, or has not even a directory for it."""
    shutil.rmtree(upstream / "metadata")
    for name in ("cached", "sourced"):
        (upstream / f"app/{name}/Manifest").write_text(manifest(upstream / f"app/{name}/{name}-1.ebuild"))
    tree = over_git(upstream, where)
    without = commit(upstream)
    found, _ = synced(tree, where)
    assert found.metadata is not None
    assert (found.metadata.generated, found.metadata.fresh) == (2, 2)
    assert trees.revision(tree.location) == without
    write_repository(upstream, EBUILDS, name="far")
    (upstream / "metadata/md5-cache/app/cached-1").write_text("DESCRIPTION=old\n_md5_=0\n")
    within = commit(upstream)
    found, complaints = synced(tree, where)
    assert (found.revision, complaints) == (within, [])
    assert found.metadata is not None
    assert (found.metadata.generated, found.metadata.fresh) == (1, 2)
    assert trees.revision(tree.location) == within
    assert synced(tree, where)[1] == []


def test_a_checkout_that_was_killed_is_known_and_done_again(
    upstream: Path, where: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = over_git(upstream, where)
    commit(upstream)
    trees.fetch(tree)
    (upstream / "app/cached/cached-1.ebuild").unlink()
    second = commit(upstream)
    plain = git._git

    def killed(directory: Path, *words: str, **how: float) -> str:
        if words[0] == "checkout":
            (directory / "app/cached/cached-1.ebuild").unlink()
            (directory / ".git/index.lock").touch()
            raise CommandFailed("git was killed")
        return plain(directory, *words, **how)

    with monkeypatch.context() as patch:
        patch.setattr(git, "_git", killed)
        assert "git was killed" in fails(tree)
    with pytest.raises(InputError, match="did not end: run: cluster tree sync far"):
        trees.check_whole("far", tree.location)
    assert synced(tree, where)[0].revision == second
    trees.check_whole("far", tree.location)


def test_a_directory_that_is_no_work_tree(upstream: Path, where: Places) -> None:
    tree = over_git(upstream, where)
    tree.location.mkdir(parents=True)
    (tree.location / "thesis.tex").write_text("dear")
    assert "is there and is no git work tree: move it away" in fails(tree)
    assert (tree.location / "thesis.tex").read_text() == "dear"


def test_the_callers_git_repository_is_left_alone(
    upstream: Path, where: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(upstream)
    (tmp_path / "other").mkdir()
    other = commit(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    tree = over_git(upstream, where)
    trees.fetch(tree)
    assert trees.revision(tree.location) == first
    monkeypatch.delenv("GIT_DIR")
    assert trees.revision(tmp_path / "other") == other


@pytest.mark.parametrize(("program", "make"), [("git", over_git), ("rsync", over_rsync)])
def test_a_missing_program(
    upstream: Path, where: Places, monkeypatch: pytest.MonkeyPatch, program: str, make: object
) -> None:
    monkeypatch.setattr("cluster.process.shutil.which", lambda *words, **path: None)
    assert callable(make)
    found, complaints = synced(make(upstream, where), where)
    assert complaints == [f"repository far: program {program} is missing: apt-get install {program}"]
    assert found.problem == complaints[0]


@pytest.mark.parametrize("make", [over_git, over_rsync])
@pytest.mark.parametrize(
    ("name", "complaint"), [(None, "has no profiles/repo_name"), ("other", "calls itself 'other'")]
)
def test_an_upstream_of_another_name_never_takes_the_place_of_the_tree(
    upstream: Path, where: Places, make: object, name: str | None, complaint: str
) -> None:
    assert callable(make)
    tree = make(upstream, where)
    before = commit(upstream)
    trees.fetch(tree)
    (upstream / "profiles/repo_name").unlink()
    if name:
        (upstream / "profiles/repo_name").write_text(f"{name}\n")
    commit(upstream)
    assert complaint in fails(tree)
    assert (tree.location / "profiles/repo_name").read_text() == "far\n"
    if tree.sync == "git":
        assert trees.revision(tree.location) == before


# Rsync.


def test_rsync_copies_a_tree_and_what_changes_of_it(upstream: Path, where: Places) -> None:
    tree = over_rsync(upstream, where)
    found, complaints = synced(tree, where)
    assert complaints == []
    same = (tree.location / "eclass/one.eclass").stat().st_ino
    (upstream / "app/cached/cached-1.ebuild").unlink()
    (upstream / "profiles/eapi").write_text("7\n")
    again, _ = synced(tree, where)
    assert again.revision != found.revision
    assert (tree.location / "profiles/eapi").read_text() == "7\n"
    assert not (tree.location / "app/cached/cached-1.ebuild").exists()
    assert (tree.location / "eclass/one.eclass").stat().st_ino == same, "what did not change is not copied"
    assert siblings(tree) == {"far"}


def test_rsync_keeps_the_metadata_that_was_generated(upstream: Path, where: Places) -> None:
    tree = over_rsync(upstream, where)
    generated = [found.metadata.generated for found, _ in (synced(tree, where) for _ in range(2)) if found.metadata]
    assert generated == [1, 0]


def test_rsync_copies_neither_history_nor_what_leads_out(upstream: Path, where: Places) -> None:
    commit(upstream)
    (upstream / "app/passwd").symlink_to("/etc/passwd")
    os.mkfifo(upstream / "app/pipe")
    tree = over_rsync(upstream, where)
    trees.fetch(tree)
    assert not any((tree.location / name).is_symlink() for name in ("app/passwd", "app/pipe"))
    assert not any((tree.location / name).exists() for name in (".git", "app/passwd", "app/pipe"))


def test_rsync_that_was_killed_between_two_renames(upstream: Path, where: Places) -> None:
    tree = over_rsync(upstream, where)
    trees.fetch(tree)
    tree.location.rename(tree.location.with_name(".far.old"))
    (tree.location.with_name(".far.new")).mkdir()
    trees.fetch(tree)
    assert siblings(tree) == {"far"}
    trees.check_name("far", tree.location)


def test_rsync_that_fails_leaves_what_was_there(upstream: Path, where: Places) -> None:
    tree = over_rsync(upstream, where)
    trees.fetch(tree)
    before = trees.revision(tree.location)
    upstream.rename(upstream.with_name("moved"))
    assert fails(tree).startswith(f"repository far: {upstream} cannot be fetched: rsync: ")
    assert trees.revision(tree.location) == before


@pytest.mark.parametrize("dear", ["thesis.tex", ".git/HEAD"])
def test_rsync_replaces_nothing_but_that_repository(upstream: Path, where: Places, dear: str) -> None:
    tree = over_rsync(upstream, where)
    (tree.location / dear).parent.mkdir(parents=True)
    (tree.location / dear).write_text("dear")
    assert str(tree.location) in fails(tree)
    assert (tree.location / dear).read_text() == "dear"


@pytest.fixture
def daemon(upstream: Path, tmp_path: Path) -> Iterator[str]:
    """An rsync daemon on loopback that serves `upstream`; its address."""
    conf = tmp_path / "rsyncd.conf"
    conf.write_text(f"use chroot = no\nlog file = {tmp_path}/rsyncd.log\n[far]\npath = {upstream}\n")
    listener = subprocess.Popen(
        ["python3", "-c", _SERVE, "rsync", "--daemon", "--no-detach", f"--config={conf}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    port = listener.stdout.readline().strip()
    yield f"rsync://127.0.0.1:{port}/far"
    listener.kill()
    listener.wait()


_SERVE = """\
import socket, subprocess, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            subprocess.run(sys.argv[1:], stdin=connection, stdout=connection)
"""


def test_an_rsync_daemon(daemon: str, where: Places) -> None:
    tree = Tree("far", "rsync", where.trees / "far", daemon)
    trees.fetch(tree)
    assert (tree.location / "app/cached/cached-1.ebuild").exists()
    assert "nothing" in fails(Tree("far", "rsync", where.trees / "far", daemon.replace("/far", "/nothing")))


# Revisions.


def test_the_revision_of_a_work_tree(upstream: Path, tmp_path: Path) -> None:
    first = commit(upstream)
    assert trees.revision(upstream) == first
    assert trees.revision(upstream / "profiles") == first
    (upstream / "eclass/two.eclass").write_text("")
    assert trees.revision(upstream) == f"{first}+changes"
    assert trees.revision(upstream / "profiles") == first, "what changed is not below it"
    assert trees.revision(tmp_path / "absent") == ""


def test_the_revision_of_plain_files(upstream: Path) -> None:
    first = trees.revision(upstream)
    assert first.startswith("files:")
    (upstream / "metadata/md5-cache/app/cached-1").write_text("another\n")
    assert trees.revision(upstream) == first
    ebuild = upstream / "app/cached/cached-1.ebuild"
    os.utime(ebuild, ns=(0, 0))
    assert trees.revision(upstream) != first


def test_files_that_a_work_tree_ignores_are_not_of_its_revision(upstream: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("upstream\n")
    commit(tmp_path)
    assert trees.revision(upstream).startswith("files:")


def test_what_a_mirror_says_of_its_copy_is_the_revision(upstream: Path) -> None:
    (upstream / "metadata/timestamp.chk").write_text("Sat, 01 Jun 2024 12:00:01 +0000\n")
    assert trees.revision(upstream) == "Sat, 01 Jun 2024 12:00:01 +0000"
    (upstream / "metadata/timestamp.commit").write_text(f"{'a' * 40} 1717243201 2024-06-01T12:00:01Z\n")
    assert trees.revision(upstream) == "a" * 40


def test_revisions_are_found_beside_something_else(upstream: Path) -> None:
    given = (Repository("far", upstream), Repository("absent", upstream / "absent"))
    with trees.revising(given) as revised:
        pass
    assert revised() == given, "a revision does not make it another repository"
    assert [one.revision for one in revised()] == [trees.revision(upstream), ""]


# Metadata.


def entries(found: Status) -> tuple[int, int, int, int]:
    assert found.metadata is not None
    return found.metadata.fresh, found.metadata.stale, found.metadata.missing, found.metadata.generated


def local(tmp_path: Path, ebuilds: Ebuilds, name: str = "near", **more: str) -> Tree:
    """A plain directory."""
    location = write_repository(tmp_path / name, ebuilds, name=name, files={**ECLASS, **more}).location
    return Tree(name, "directory", location)


def test_metadata_of_a_directory_stays_out_of_it(tmp_path: Path, where: Places) -> None:
    tree = local(tmp_path, EBUILDS)
    files = sorted(tree.location.rglob("*"))
    assert entries(synced(tree, where)[0]) == (2, 0, 0, 1)
    assert sorted(tree.location.rglob("*")) == files
    assert entries(synced(tree, where)[0]) == (2, 0, 0, 0)
    (tree.location / "eclass/one.eclass").write_text("RDEPEND=app/other\n")
    (found,) = trees.status([tree], [tree], where, Quiet())
    assert entries(found) == (1, 1, 0, 0)
    assert found.synced is None
    assert entries(synced(tree, where)[0]) == (2, 0, 0, 1)


def test_broken_ebuilds_are_named_with_portages_reason_and_stop_nothing(upstream: Path, where: Places) -> None:
    write_repository(upstream, {**BROKEN, "app/late-1": {"EAPI": "99", "_body": ""}}, name="far")
    tree = over_rsync(upstream, where)
    found, complaints = synced(tree, where)
    assert entries(found) == (2, 0, 3, 1)
    assert not found.good
    said = {Path(line.partition(": ")[0]).stem: line.partition(": ")[2] for line in complaints}
    assert said["wrong-1"] == "not like this"
    assert said["orphan-1"] == "nothing.eclass could not be found by inherit()"
    assert said["late-1"].startswith("EAPI 99 is not one that Portage")
    assert len(complaints) == 3
    (tree.location / "app/wrong/wrong-1.ebuild").write_text('EAPI=8\nSLOT=0\nDESCRIPTION="x"\n')
    assert metadata.look(metadata.Scope((tree.repository,), None, where.trees / "work"), "far").missing == 3


def test_an_ebuild_that_does_not_end_is_named(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_repository(upstream, {**BROKEN, "app/endless-1": {"_body": ENDLESS}}, name="far")
    monkeypatch.setattr(metadata, "_SILENCE_S", 8.0)
    request = {"repositories": [("far", str(upstream))], "cache": "", "work": str(tmp_path / "work")}
    found = metadata.main({**request, "name": "far", "generate": True})
    reasons = {Path(broken.ebuild).stem: broken.reason for broken in found.broken}
    assert reasons["endless-1"] == "it does not end within 8 s"
    assert reasons["wrong-1"] == "not like this"
    assert (found.fresh, found.generated, set(reasons)) == (2, 1, {"endless-1", "wrong-1", "orphan-1"})


def test_what_portage_started_ends_with_the_deadline(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = f"endless{os.getpid()}"
    write_repository(upstream, {f"app/{mark}-1": {"_body": ENDLESS}}, name="far")
    monkeypatch.setattr(metadata, "_DEADLINE_S", 5.0)
    with pytest.raises(CommandFailed, match="did not end within 5 s"):
        metadata.generate(metadata.Scope((Repository("far", upstream),), None, tmp_path / "work"), "far")
    left = subprocess.run(["pgrep", "--full", f"app/{mark}"], capture_output=True, text=True)
    assert left.stdout == ""


def test_a_missing_manifest_is_named(upstream: Path, where: Places) -> None:
    (upstream / "metadata/layout.conf").write_text("masters =\n")
    _, complaints = synced(over_rsync(upstream, where), where)
    assert len(complaints) == 1
    assert "sourced-1.ebuild: Manifest not found for" in complaints[0]


def test_entries_of_ebuilds_that_are_gone_go_too(upstream: Path, where: Places) -> None:
    tree = over_rsync(upstream, where)
    synced(tree, where)
    shutil.rmtree(upstream / "app/sourced")
    assert entries(synced(tree, where)[0]) == (1, 0, 0, 0)
    assert [path.name for path in tree.location.glob("metadata/md5-cache/*/*")] == ["cached-1"]


def test_eclasses_come_from_a_master(tmp_path: Path, where: Places) -> None:
    base = local(tmp_path, {}, "base")
    over = local(
        tmp_path,
        {"app/x-1": {"_body": "inherit one\n"}},
        **{"metadata/layout.conf": "masters = base\nthin-manifests = true\n"},
    )
    (over.location / "eclass/one.eclass").unlink()
    found, complaints = synced(over, where, base)
    assert (entries(found), complaints) == ((1, 0, 0, 1), [])
    found, complaints = synced(over, where)
    assert complaints == [found.problem]
    assert found.problem.startswith("repository near builds on repository base, which is not there: add base")


# All of them.


def test_what_fails_with_one_does_not_stop_the_next(upstream: Path, where: Places, tmp_path: Path) -> None:
    gone = Tree("gone", "directory", tmp_path / "gone")
    far = over_rsync(upstream, where)
    reporter = Quiet()
    found = trees.sync([gone, far], [gone, far], where, reporter)
    assert [one.good for one in found] == [False, True]
    assert reporter.said == [f"repository gone: there is no directory {tmp_path}/gone: mend its path"]
    assert entries(found[1]) == (2, 0, 0, 1)


def test_status_changes_nothing(upstream: Path, where: Places, tmp_path: Path) -> None:
    far = over_rsync(upstream, where)
    before = sorted(tmp_path.rglob("*"))
    (found,) = trees.status([far], [far], where, Quiet())
    assert (found.revision, found.metadata, found.synced, found.good) == ("", None, None, True)
    assert sorted(tmp_path.rglob("*")) == before
    trees.fetch(far)
    before = sorted(tmp_path.rglob("*"))
    (found,) = trees.status([far], [far], where, Quiet())
    assert entries(found) == (1, 0, 1, 0)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sync_is_remembered(upstream: Path, where: Places) -> None:
    far = over_rsync(upstream, where)
    found, _ = synced(far, where)
    assert found.synced == (where.synced / "far").stat().st_mtime
    assert trees.status([far], [far], where, Quiet())[0].synced == found.synced
