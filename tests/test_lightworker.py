"""Workers that are nothing but a conversation, beside a real one."""

from __future__ import annotations

import os
import pickle
import queue
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from benches import FakeEquipment
from yards import PATIENCE_S, TARGET, Yard

from cluster.host.tls import Authority
from cluster.master.engines import crew as crews
from cluster.master.engines import scheduler as schedulers
from cluster.process import Child

pytestmark = pytest.mark.slow

pytest.importorskip("distributed")

HOST = "hx-0"


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Yard, list[Mapping[str, Any]]]]:
    place = tmp_path_factory.mktemp("yard")
    said: list[Mapping[str, Any]] = []
    hear = crews.Crew.said

    def heard(crew: crews.Crew, event: tuple[float, Mapping[str, Any]]) -> None:
        said.append(event[1])
        hear(crew, event)

    authority = Authority(place / "authority")
    identity = authority.issue("master")
    with (
        pytest.MonkeyPatch.context() as patch,
        schedulers.running(identity, place) as scheduler,
    ):
        patch.setattr(crews.Crew, "said", heard)
        with crews.gathering(scheduler, identity, TARGET) as crew:
            made = Yard(place, authority, scheduler, crew)
            assert crew.attend(made.heard.put) == ()
            yield made, said


def light(yard: Yard) -> Child:
    paths = (Path(__file__).parent, Path(__file__).parents[1])
    env = {**os.environ, "DASK_CONFIG": str(schedulers.CONFIG), "PYTHONPATH": ":".join(map(str, paths))}
    words = [yard.scheduler.address, str(yard.directory), TARGET, "x", "1"]
    argv = [sys.executable, "-m", "cluster.bench.lightworker", *words]
    return Child(argv, log_path=yard.directory / "light.log", env=env)


def build(yard: Yard, parcel: str) -> None:
    ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
    yard.crew.start(f"{HOST}:1", FakeEquipment(), parcel, lambda phase: None, ends.put)
    assert ends.get(timeout=PATIENCE_S).startswith(parcel)


def plain(said: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was said, without what two workers and two moments differ in."""
    jobs = sorted({event["job"] for event in said if "job" in event})
    return [_plain({**event}, jobs) for event in said]


def _plain(event: dict[str, Any], jobs: list[int]) -> dict[str, Any]:
    match event:
        case {"job": job, "came": came}:
            return {**event, "worker": "", "job": jobs.index(job), "came": pickle.loads(came).partition(" by ")[0]}
        case {"job": job}:
            return {**event, "worker": "", "job": jobs.index(job)}
        case {"came": _, "said": own}:
            return {**event, "came": "", "said": {**own, "memory_mib": 0, "disk_mib": 0}}
    return {**event, "went": ""}


def test_the_master_hears_of_a_light_worker_what_it_hears_of_a_real_one(
    yard: tuple[Yard, list[Mapping[str, Any]]],
) -> None:
    there, said = yard
    heard = []
    for start in (lambda: there.worker(HOST, nodes=1), lambda: light(there)):
        with start():
            assert there.next().host.nodes == (f"{HOST}:1",)
            for parcel in ("sed", "grep"):
                build(there, parcel)
        assert there.next().reason == "its connection broke"
        heard.append(plain(said))
        said.clear()
    keys = [["came", "resources", "said"], *[["job", "phase", "worker"], ["came", "job", "worker"]] * 2]
    assert [sorted(event) for event in heard[0]] == [*keys, ["reason", "went"]]
    assert heard[1] == heard[0]


def test_a_light_worker_ends_with_its_scheduler(yard: tuple[Yard, list[Mapping[str, Any]]]) -> None:
    there, _ = yard
    worker = light(there)
    assert there.next().host.name == HOST
    crews.disband(there.crew)
    assert worker.wait(PATIENCE_S) == 0
