"""Stages: a root file system that boots and builds, made once from Debian's packages, kept in the cache.

stages/TARGET-KEY/
    disk.qcow2   the root disk that every node's overlay lies over
    kernel initrd
    stage.json   what it is made of
    keys/        id (ours), host_key (the nodes')
    sysroot/     headers and libraries, for compilers on the host
    compiler/    what its own compiler says of itself
    kernels/     NAME/: the same stage with another kernel, links but for that
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import paths
from cluster.apt import PrivateApt, machine_mirror
from cluster.errors import MachineError
from cluster.node import disk, firstrun, keypair, programs, qemu, rootfs, roots, sysroot
from cluster.node import emulator as emulators
from cluster.process import find_program, run, tail
from cluster.target import Recipe, Target

Say = Callable[[str], None]

_DISK_MIB = 8192  # sparse: what a package may need to build, not what is used
_NEED_MIB = 3000
_MEMORY_MIB = 1024
_STEP_DEADLINE_S = 1200.0
_POWEROFF_S = 300.0  # of writing back, on a host that is busy
_SAID_LINES = 12  # dpkg names the packages it could not configure at the end
_CONFIGURE_DEADLINE_S = 1800.0
_MANY_OWNERS = {"root": (), "unshare": ("unshare", "--user", "--map-auto", "--map-root-user")}
"""By mmdebstrap's mode: the words before a command that gives files to any owner. Without them there is fakeroot."""
_FORMAT = 2  # of the directory above; a change makes all stages anew


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage in the cache."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The root disk, qcow2, never written to."""
        return self.directory / "disk.qcow2"

    @property
    def kernel(self) -> Path:
        """The kernel that nodes boot."""
        return self.directory / "kernel"

    @property
    def initrd(self) -> Path:
        """Its initramfs."""
        return self.directory / "initrd"

    @property
    def identity(self) -> Path:
        """The private key that opens its nodes."""
        return self.directory / "keys" / "id"

    @property
    def host_key(self) -> Path:
        """The public key that its nodes must show."""
        return self.directory / "keys" / "host_key.pub"

    @property
    def sysroot(self) -> Path:
        """What its compilers read of it, unpacked."""
        return self.directory / "sysroot"

    @property
    def signature(self) -> Path:
        """What its own compilers say of themselves, one file for each question and language."""
        return self.directory / "compiler"

    @property
    def base(self) -> Stage:
        """The stage that this one differs from in its kernel alone; itself if that is its own."""
        return Stage(self.disk.readlink().parent) if self.disk.is_symlink() else self

    @property
    def facts(self) -> dict[str, str]:
        """What `stage.json` says of it."""
        facts: dict[str, str] = json.loads((self.directory / "stage.json").read_text())
        return facts


def key(target: Target, recipe: Recipe) -> str:
    """A hash of all that a stage is made from: recipe, target, guest scripts, Portage's version."""
    parts = [
        str(_FORMAT),
        target.model_dump_json(exclude={"kernel": {"own"}, "machines": True}),
        recipe.model_dump_json(),
        importlib.metadata.version("portage"),
        *(Path(__file__).with_name(name).read_text() for name in ("rootfs.py", "programs.py")),
        *(
            path.read_text()
            for place in ("guest", "shell")
            for path in sorted(paths.data("stage-images", place).iterdir())
        ),
    ]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()


def find(target: Target, recipe: Recipe, cache: Path) -> Stage | None:
    """The stage for `target` if it is built."""
    directory = cache / "stages" / f"{target.name}-{key(target, recipe)}"
    return Stage(directory) if (directory / "stage.json").exists() else None


def all_stages(cache: Path) -> tuple[Stage, ...]:
    """Every finished stage in the cache."""
    return tuple(Stage(path.parent) for path in sorted((cache / "stages").glob("*/stage.json")))


def remove(stage: Stage) -> None:
    """Delete a stage."""
    shutil.rmtree(stage.directory)


def ensure(target: Target, recipe: Recipe, cache: Path, say: Say) -> Stage:
    """The stage for `target`, built if the cache has none. Of two runs at once, one builds."""
    found = find(target, recipe, cache)
    if found is not None:  # whoever builds one of another target is not waited for
        return found
    with paths.locked(cache / "stages" / "lock"):
        return find(target, recipe, cache) or _build(target, recipe, cache, say)


def _build(target: Target, recipe: Recipe, cache: Path, say: Say) -> Stage:
    stages = cache / "stages"
    paths.require_space(stages, _NEED_MIB, f"the {target.name} stage")
    mode = _extract_mode()
    for leftover in stages.glob(".new-*"):
        run([*_MANY_OWNERS.get(mode, ()), "rm", "-rf", leftover], deadline_s=_STEP_DEADLINE_S)
    emulator = emulators.ensure(target, recipe, cache)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=stages, ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        result = work / "stage"
        keys = result / "keys"
        keys.mkdir(parents=True)
        keypair.make(keys / "id")
        keypair.make(keys / "host_key")
        _extract(target, recipe, mode, work, say)
        release = _kernel(target, recipe, cache, work, result, say)
        sysroot.extract(work / "root.tar", result / "sysroot")
        ours = programs.provide(target, recipe, cache, result / "sysroot", work / "programs", say)
        said = _configured(emulator, target, recipe, mode, work, ours, say)
        say("compacting the root disk")
        _read_signature(work / "disk.raw", result / "compiler")
        disk.compact(emulator, work / "disk.raw", result / "disk.qcow2")
        facts = {
            "target": target.name,
            "release": recipe.suite,
            "kernel": release,
            "qemu": emulator.version,
            "portage": importlib.metadata.version("portage"),
            "compiler": _word(said, "compiler"),
            "mode": mode,
            "configured_in_s": _word(said, "configuring took"),
        }
        (result / "stage.json").write_text(json.dumps(facts, indent=1) + "\n")
        directory = stages / f"{target.name}-{key(target, recipe)}"
        result.rename(directory)
    return Stage(directory)


def with_kernel(stage: Stage, target: Target, recipe: Recipe, cache: Path, say: Say) -> Stage:
    """`stage` with the kernel package that `target` names in the place of its kernel, kept with it."""
    return _with(
        stage.base, key(target, recipe), lambda work, result: _kernel(target, recipe, cache, work, result, say)
    )


def with_image(stage: Stage, name: str, image: Path, release: str) -> Stage:
    """`stage` with the kernel `image` in the place of its own, kept with it as `name`.

    Its initramfs stays, so that the kernel has to have the drivers of disk and network built in.
    """

    def fill(work: Path, result: Path) -> str:
        shutil.copy(image, result / "kernel")
        (result / "initrd").symlink_to(stage.base.initrd)
        return release

    return _with(stage.base, name, fill)


def _with(stage: Stage, name: str, fill: Callable[[Path, Path], str]) -> Stage:
    """`stage` with another kernel, which `fill` writes to its second argument and names; the first is for scratch.

    It is kept within the stage's directory, because a warm node of it lies over the stage's very disk.
    """
    directory = stage.directory / "kernels" / name
    with paths.locked(directory.parent / "lock"):
        if (directory / "stage.json").exists():
            return Stage(directory)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as scratch:
            work = Path(scratch)
            result = work / "stage"
            result.mkdir()
            release = fill(work, result)
            for part in (stage.disk.name, "keys", "sysroot", "compiler"):
                (result / part).symlink_to(stage.directory / part)
            (result / "stage.json").write_text(json.dumps({**stage.facts, "kernel": release}, indent=1) + "\n")
            result.rename(directory)
    return Stage(directory)


def _word(said: str, what: str) -> str:
    """The word after `what` in what the guest's `configure` said."""
    found = re.search(rf"cluster: {what} (\S+)", said)
    if found is None:
        raise MachineError("the stage's compiler does not run", "see the packages of its recipe")
    return found.group(1)


def _read_signature(image: Path, place: Path) -> None:
    place.mkdir()
    for question in ("macros", "search"):
        for language in sysroot.LANGUAGES:
            name = f"{question}-{language}"
            (place / name).write_bytes(disk.read_file(image, f"/usr/lib/cluster/compiler/{name}"))


def _works(argv: Sequence[str]) -> bool:
    """Whether a command that does nothing can be run here."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30).returncode == 0


def _extract_mode() -> str:
    """mmdebstrap's mode for this user. `extract` runs nothing of the target, so any will do."""
    if os.geteuid() == 0:
        return "root"
    able = shutil.which("newuidmap") is not None and _works([*_MANY_OWNERS["unshare"], "true"])
    return "unshare" if able else "chrootless"


def _chroot_words(target: Target, mode: str) -> tuple[str, ...] | None:
    """The words before a command that enters chroots of the target and gives files to any owner.

    None where this host does not run the target's programs, or this user may not do that.
    """
    words = _MANY_OWNERS.get(mode)
    if words is None or not target.runs_on() or not _works([*words, "unshare", *roots.NAMESPACES, "true"]):
        return None
    return words


def _extract(target: Target, recipe: Recipe, mode: str, work: Path, say: Say) -> None:
    """Unpack the recipe's packages to `work`/root.tar."""
    say(f"unpacking Debian {recipe.suite} packages for {target.debian_arch} (mmdebstrap, mode {mode})")
    argv: list[str | Path] = [
        *([find_program("fakeroot", "fakeroot"), "--"] if mode == "chrootless" else []),
        find_program("mmdebstrap", "mmdebstrap"),
        f"--mode={mode}",
        f"--arch={target.debian_arch}",
        "--variant=extract",
        "--format=tar",
        "--aptopt=Apt::Install-Recommends false",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--skip=cleanup/apt/cache",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "lintian")),
        f"--include={','.join(recipe.packages)}",
        recipe.suite,
        work / "root.tar",
        f"deb {machine_mirror().uri} {recipe.suite} main",
    ]
    run(argv, deadline_s=_STEP_DEADLINE_S)


def _kernel(target: Target, recipe: Recipe, cache: Path, work: Path, result: Path, say: Say) -> str:
    """Unpack the kernel outside the root, take its image, make the initramfs; returns its release."""
    suite = target.kernel.suite.format(suite=recipe.suite)
    say(f"fetching the kernel ({target.kernel.package} from {suite}) and making its initramfs")
    suites = tuple(dict.fromkeys((recipe.suite, suite)))
    apt = PrivateApt(cache / "apt" / target.debian_arch, suites, arch=target.debian_arch)
    names = [name for name in apt.depends(target.kernel.package, suite=suite) if name.startswith("linux-image-")]
    debs = apt.download_only([*names, recipe.busybox], work / "debs", suite=suite)
    tree = work / "kernel"
    for deb in debs:
        run([find_program("dpkg-deb", "dpkg"), "-x", deb, tree], deadline_s=_STEP_DEADLINE_S)
    image = next(iter(tree.glob(target.kernel.image)))
    shutil.copy(image, result / "kernel")
    release = re.sub(r"^[^-]*-", "", image.name)
    _initramfs(target, tree, release, work / "initramfs", result / "initrd")
    return release


def _module_order(tree: Path, release: str, names: tuple[str, ...]) -> list[Path]:
    """The files of modules `names` and of what they need, in the order to load them."""
    base = next(path for path in (tree / "usr/lib/modules" / release, tree / "lib/modules" / release) if path.exists())
    root = base.parents[2] if base.is_relative_to(tree / "usr") else tree
    run([find_program("depmod", "kmod"), "-b", root, release], deadline_s=_STEP_DEADLINE_S)
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in (base / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[Path(path).name.split(".")[0].replace("-", "_")] = (path, rest.split())
    order: list[str] = []
    for name in names:
        if name in needs:  # else it is built into this kernel
            path, required = needs[name]
            order += [*reversed(required), path]
    return [base / path for path in dict.fromkeys(order)]


def _initramfs(target: Target, tree: Path, release: str, root: Path, initrd: Path) -> None:
    """busybox, the drivers of the root disk and the network, and our init: about 2 MB."""
    for name in ("bin", "modules", "proc", "dev", "sys", "root"):
        (root / name).mkdir(parents=True)
    shutil.copy(
        next(path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists()), root / "bin/busybox"
    )
    (root / "bin/sh").symlink_to("busybox")
    shutil.copy(paths.data("stage-images", "guest", "initramfs-init"), root / "init")
    (root / "init").chmod(0o755)
    for number, module in enumerate(_module_order(tree, release, target.kernel.modules)):
        place = root / "modules" / f"{number:02}-{module.name.split('.')[0]}.ko"
        if module.suffix == ".xz":
            with place.open("wb") as stream:
                run(["xz", "-dc", module], deadline_s=_STEP_DEADLINE_S, output=stream)
        else:
            shutil.copy(module, place)
    script = f"find . | cpio --quiet --create --format=newc --owner=+0:+0 | gzip -1 > {initrd}"
    run(["sh", "-ec", script], deadline_s=_STEP_DEADLINE_S, cwd=root)


def _configured(
    emulator: emulators.Emulator, target: Target, recipe: Recipe, mode: str, work: Path, ours: Path, say: Say
) -> str:
    """Make `work`/disk.raw with `ours` in it, and configure the packages on the target; returns what that said."""
    spec = rootfs.Spec(
        tar=str(work / "root.tar"),
        work=str(work),
        keys=str(work / "stage" / "keys"),
        guest=str(paths.data("stage-images", "guest")),
        programs=str(ours),
        image=str(work / "disk.raw"),
        size_mib=_DISK_MIB,
        arch=target.name,
        provides=list(recipe.provides),
    )
    words = _chroot_words(target, mode)
    if words is None:
        say("writing the root file system")
        _compose([find_program("fakeroot", "fakeroot"), "--"], rootfs.__name__, spec)
        say(f"configuring the packages in a node (QEMU {emulator.version}, first boot)")
        return _boot(emulator, target, work)
    say("writing the root file system, and configuring the packages in a chroot of it")
    return _compose(words, firstrun.__name__, spec)


def _compose(words: Sequence[str], module: str, spec: rootfs.Spec) -> str:
    """Let `module` make the image, with `words` before it, by which files have any owner; returns what it said."""
    asked = Path(spec.work) / "spec.json"
    asked.write_text(json.dumps(asdict(spec)))
    said = run([*words, sys.executable, "-m", module, asked], deadline_s=_CONFIGURE_DEADLINE_S)
    Path(spec.tar).unlink()
    return said


def _boot(emulator: emulators.Emulator, target: Target, work: Path) -> str:
    """Boot `work`/disk.raw once, in which the packages configure themselves; returns what the console said."""
    machine = qemu.Machine(
        target=target,
        kernel=work / "stage" / "kernel",
        initrd=work / "stage" / "initrd",
        disks=(qemu.Disk(work / "disk.raw", "raw"),),
        memory_mib=_MEMORY_MIB,
        cpus=1,
        init="/sbin/cluster-first-boot",
    )
    done, failed = "cluster: configured", "cluster: configuration failed"
    # The path of a socket has at most 107 bytes, which a cache far from the root would exceed.
    short = tempfile.TemporaryDirectory(prefix="portage-cluster-")
    with short as sockets, qemu.running(emulator, machine, Path(sockets)) as vm:
        said = vm.console.wait_for((done, failed), deadline_s=_CONFIGURE_DEADLINE_S, alive=lambda: not vm.child.ended)
        if said == failed:
            raise MachineError("a package of the stage could not be configured", tail(vm.console.seen, _SAID_LINES))
        try:
            vm.child.wait(_POWEROFF_S)
        except subprocess.TimeoutExpired as error:
            raise MachineError(
                "the stage's first boot does not end", "try again when the machine is less busy"
            ) from error
    return vm.console.seen
