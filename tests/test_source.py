"""From where ssh is let in."""

from __future__ import annotations

import socket

import pytest

from cluster.errors import InputError
from cluster.master.ec2 import source


class Probe:
    """A socket on a machine whose address is `address`, "" without a route."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connect(self, place: tuple[str, int]) -> None:
        if not self.address:
            raise OSError(101, "Network is unreachable")

    def getsockname(self) -> tuple[str, int]:
        return self.address, 1

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Probe(address))


def test_a_public_address_is_the_one_that_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "8.8.4.4")
    assert source.network("") == "8.8.4.4/32"


@pytest.mark.parametrize(("address", "names"), [("192.168.1.5", r"192\.168\.1\.5, is not"), ("", "no route")])
def test_without_a_public_address_it_has_to_be_said(monkeypatch: pytest.MonkeyPatch, address: str, names: str) -> None:
    at(monkeypatch, address)
    with pytest.raises(InputError, match=f"{names}.*--from"):
        source.network("")


def test_a_network_is_taken_as_it_is_given() -> None:
    assert source.network("198.51.100.7") == "198.51.100.7/32"
    assert source.network("10.1.2.3/16") == "10.1.0.0/16"
    assert source.network("2001:db8::1") == "2001:db8::1/128"


@pytest.mark.parametrize("given", ["0.0.0.0/0", "::/0", "home", "1.2.3"])
def test_what_is_no_network_or_lets_all_in_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="--from"):
        source.network(given)
