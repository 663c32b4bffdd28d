"""Certificates: who is believed."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

from cluster.host.tls import Authority, Identity


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def said(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """What a client hears from a server over a pair of sockets."""
    here, there = socket.socketpair()
    here.settimeout(10)
    there.settimeout(10)

    def answer() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as secure:
                secure.sendall(b"hello")
        except OSError:
            there.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(here) as secure:
            return secure.recv(5)
    finally:
        here.close()
        thread.join()


def test_two_of_one_authority_believe_each_other(authority: Authority) -> None:
    assert said(authority.issue("a").server_context(), authority.issue("b").client_context()) == b"hello"


def test_one_of_another_authority_is_not_believed_by_either_side(authority: Authority, tmp_path: Path) -> None:
    ours, theirs = authority.issue("a"), Authority(tmp_path / "other").issue("a")
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        said(theirs.server_context(), ours.client_context())
    believing = theirs.client_context()
    believing.verify_mode = ssl.CERT_NONE
    with pytest.raises(OSError):
        said(ours.server_context(), believing)


def test_one_without_a_certificate_is_not_served(authority: Authority) -> None:
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.verify_mode = ssl.CERT_NONE
    with pytest.raises(OSError):
        said(authority.issue("a").server_context(), nobody)


def test_only_the_user_reads_keys(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue("a")
    files = [path for path in (tmp_path / "authority").rglob("*.pem") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {identity.authority, identity.certificate, identity.key} <= set(files)
    assert (tmp_path / "authority").stat().st_mode & 0o777 == 0o700


def test_a_clock_that_is_hours_behind_does_not_matter(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue("a").certificate.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(hours=23)
    assert certificate.not_valid_after_utc > now + datetime.timedelta(days=300)


def test_an_authority_stays_what_it_is(authority: Authority, tmp_path: Path) -> None:
    earlier = authority.issue("a")
    later = Authority(tmp_path / "authority").issue("b")
    assert said(earlier.server_context(), later.client_context()) == b"hello"


def test_an_identity_is_found_where_its_files_were_brought(authority: Authority) -> None:
    identity = authority.issue("a")
    assert Identity.at(identity.key.parent) == identity
