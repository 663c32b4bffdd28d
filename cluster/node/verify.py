"""The proof: a fresh node that has built nothing installs from the binhost and runs the programs."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster import paths
from cluster.model import Cpv, Repository
from cluster.node import disk, job
from cluster.node.node import Hardware, booted

_ROOM_MIB = 512
_RAN = re.compile(r"^cluster: (?P<how>ok|failed) (?P<program>.*)$")


@dataclass(frozen=True, slots=True)
class Proof:
    """What the node did."""

    ran: tuple[str, ...]
    """Programs that ran and succeeded."""
    failed: tuple[str, ...]
    """Programs that did not."""
    said: str
    """All that the node printed."""
    status: int
    """Of the whole; not 0 when emerge failed."""

    @property
    def good(self) -> bool:
        """Whether everything was installed and ran."""
        return self.status == 0 and not self.failed


def programs(repositories: Iterable[Repository], packages: Iterable[Cpv]) -> tuple[str, ...]:
    """The commands that `metadata/programs.toml` of the repositories gives for these packages.

    The file maps CATEGORY/NAME to a shell command that succeeds if the package works.
    """
    known: dict[str, str] = {}
    for repository in repositories:
        path = repository.location / "metadata" / "programs.toml"
        if path.exists():
            known |= tomllib.loads(path.read_text())
    names = [re.sub(r"-\d[^/]*$", "", cpv) for cpv in packages]
    return tuple(known[name] for name in names if name in known)


def verify(
    atoms: Iterable[str],
    commands: Iterable[str],
    settings: job.Settings,
    hardware: Hardware,
    *,
    directory: Path,
    binhost_port: int,
    deadline_s: float,
    output: Callable[[bytes], object],
    own: Callable[[int], None],
) -> Proof:
    """Install `atoms` over HTTP from loopback port `binhost_port` and run `commands`, in a fresh node.

    Raises NodeLost when the node is at fault.
    """
    content = directory / "job"
    content.mkdir()
    uri = f'PORTAGE_BINHOST="http://10.0.2.2:{binhost_port}"\n'
    # The node is to show what a user's machine does: fetching is the point here.
    plain = "".join(line for line in job.make_conf(settings).splitlines(True) if "COMMAND" not in line)
    job.fill_settings(content, settings, plain + uri)
    for repository in settings.repositories:
        shutil.copytree(repository.location, content / "repos" / repository.name, symlinks=True)
    (content / "job.env").write_text(f"ATOMS={shlex.quote(' '.join(atoms))}\n")
    (content / "programs").write_text("".join(f"{command}\n" for command in commands))
    shutil.copy(paths.data("stage-images", "job", "verify"), content / "verify")
    said: list[bytes] = []

    def heard(data: bytes) -> None:
        said.append(data)
        output(data)

    with booted(hardware, directory, disk.from_directory(content, room_mib=_ROOM_MIB), own) as node:
        command = f"mkdir -p {job.MOUNT} && mount -o noatime /dev/vdb {job.MOUNT} && exec sh {job.MOUNT}/verify"
        status = node.shell.run(command, total_s=deadline_s, silence_s=deadline_s, output=heard)
    text = b"".join(said).decode(errors="replace")
    found = [match for match in map(_RAN.match, text.splitlines()) if match]
    return Proof(
        ran=tuple(match["program"] for match in found if match["how"] == "ok"),
        failed=tuple(match["program"] for match in found if match["how"] == "failed"),
        said=text,
        status=status,
    )
