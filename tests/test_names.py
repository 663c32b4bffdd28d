"""What nodes of other hosts are called."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.master.engines.names import NodeName

HOSTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(HOSTS, st.integers(1, 999))
def test_a_name_is_read_as_it_is_written(host: str, number: int) -> None:
    name = NodeName(host, number)
    assert NodeName.of(str(name)) == name


def test_a_host_has_names_of_its_own_for_its_nodes() -> None:
    assert NodeName.of("alpha:2").there == "node-2"
