"""What a build sees of its prerequisites: the host's image against Portage's own installation in the node."""

from __future__ import annotations

import bz2
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from repos import write_repository

from cluster import paths
from cluster.master.gpkg import Opened, opened

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

_DEADLINE_S = 1500
_LIB = """\
src_unpack() { mkdir -p "${S}"; }
src_install() {
	echo header > lib.h; echo data > data; echo conf > lib.conf; echo 'LIBVAR="/usr/share/lib"' > 99lib
	doheader lib.h
	insinto /usr/share/lib; doins data
	dosym data /usr/share/lib/link
	dosym /usr/share/lib/data /opt/lib/absolute
	dosym /usr/share/lib /usr/share/alias
	dohard() { ln "${D}$1" "${D}$2"; }
	dohard /usr/share/lib/data /usr/share/lib/same
	insinto /lib/udev/rules.d; doins data
	exeinto /sbin; doexe data
	fowners portage:portage /usr/share/lib/data
	fperms 4750 /usr/share/lib/data
	keepdir /var/lib/lib
	fperms 0700 /var/lib/lib
	insinto /etc; doins lib.conf
	insinto /etc; newins lib.conf hostname
	doenvd 99lib
}
"""
_MAKE = 'src_unpack() { mkdir -p "${S}"; }\nsrc_install() { insinto /usr/share/alias; echo make > m; doins m; }\n'
_LOOK = """\
src_unpack() { mkdir -p "${S}"; }
src_compile() {
	local seen=( /opt/lib /var/lib/lib /etc/env.d /etc/lib.conf /etc/hostname /usr/include/lib.h /usr/share/lib )
	seen+=( /usr/share/alias /usr/lib/udev /usr/sbin/data /usr/lib /usr/sbin /usr/share /usr/include /etc /var /lib )
	find "${seen[@]}" -maxdepth 1 \\( -type f -printf '%p %m %u:%g %s %n\n' -o -printf '%p %y %m %u:%g %l\n' \\) \
		| sort > seen
	cat /etc/hostname /etc/ld.so.conf /etc/profile.env /usr/share/alias/* > texts
	has_version '=dev-build/make-4.5' && echo new >> versions
	has_version '=dev-build/make-4.4.1' && echo old >> versions
	has_version app/lib:0/7 && echo lib >> versions
	touch /usr/never 2>/dev/null && echo writable >> versions
}
src_install() {
	insinto /look
	doins seen texts versions
	cp -r /var/db/pkg "${D}/look/installed" || die
}
"""
_EBUILDS: Mapping[str, Mapping[str, str]] = {
    "app/lib-1": {"SLOT": "0/7", "_body": _LIB},
    "dev-build/make-4.5": {"RDEPEND": "app/lib:=", "DEPEND": "app/lib", "_body": _MAKE},
    "app/look-1": {"BDEPEND": ">=dev-build/make-4.5 app/lib", "DEPEND": "app/lib:=", "_body": _LOOK},
}
# The host cannot compose anything: the node runs emerge.
_EMERGE = """\
from cluster.node import composed, layout
def image(*arguments):
    raise layout.Unfit("as the test asks")
composed.image = image
"""
_MAIN = "from cluster.cli import main\nmain()\n"


def _build(place: Path, binhost: Path, before: str = "") -> dict[str, bytes]:
    """Build app/look in nodes; returns what its package has below /look, by path."""
    repository = write_repository(place / "repo", _EBUILDS, name="small")
    words = ["build", "app/look", "--repo", f"small={repository.location}", "--nodes", "1", "--json"]
    words += ["--profile", str(paths.data("profiles", "arm64"))]
    words += ["--state", str(place / "state"), "--binhost", str(binhost)]
    argv = [sys.executable, "-c", before + _MAIN, *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    with opened(binhost / "app/look-1.gpkg.tar") as package:
        files = [member for member in package.image.getmembers() if member.isreg()]
        return {member.name.removeprefix("image/look/"): _read(package, member) for member in files}


def _read(package: Opened, member: tarfile.TarInfo) -> bytes:
    stream = package.image.extractfile(member)
    assert stream is not None
    return stream.read()


def _contents(text: bytes) -> list[str]:
    """The lines of a CONTENTS; of a symbolic link without its time, which Portage sets to now."""
    lines = text.decode().splitlines()
    return sorted(line.rpartition(" ")[0] if line.startswith("sym ") else line for line in lines)


def _stable(entry: bytes) -> list[bytes]:
    """The consolidated `metadata` of an installed package, without the time of its directory."""
    return [line for line in entry.splitlines() if not line.startswith(b"#dir_mtime=")]


def _unprotected(seen: bytes) -> list[str]:
    """Without the new version of a file of /etc that Portage puts beside the old, for a person to merge."""
    return [line for line in seen.decode().splitlines() if "/._cfg0000_" not in line]


def _environment(saved: bytes) -> list[str]:
    """An `environment.bz2` without what the hooks of job/bashrc left in it; emerge saves it anew."""
    lines = bz2.decompress(saved).decode().splitlines()
    return [line for line in lines if not line.startswith(("declare -- _cluster_up=", "declare -- x="))]


def test_a_build_sees_in_the_image_what_emerge_would_have_installed(tmp_path: Path) -> None:
    binhost = tmp_path / "binhost"
    ours = _build(tmp_path / "composed", binhost)
    (binhost / "app/look-1.gpkg.tar").unlink()
    theirs = _build(tmp_path / "emerge", binhost, _EMERGE)
    logs = [place / "state/logs/arm64/app/look-1.log" for place in (tmp_path / "composed", tmp_path / "emerge")]
    assert [b">>> Emerging binary" in log.read_bytes() for log in logs] == [False, True]

    assert ours["versions"] == b"new\nlib\n"  # and /usr is sealed
    assert b"include /etc/ld.so.conf.d/" in ours["texts"]  # else libtool links with an rpath
    assert ours.keys() == theirs.keys()
    assert "installed/dev-build/make-4.4.1/PF" not in ours
    for name, text in theirs.items():
        match Path(name).name:
            case "environment.bz2":
                assert _environment(ours[name]) == _environment(text), name
            case "CONTENTS":
                assert _contents(ours[name]) == _contents(text), name
            case "seen":
                assert _unprotected(ours[name]) == _unprotected(text), name
            case "metadata":
                assert _stable(ours[name]) == _stable(text), name
            case _:
                assert ours[name] == text, name
