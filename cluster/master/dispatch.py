"""The loop of a run: hand jobs to an engine's nodes as `schedule` says, until nothing is left."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cluster.master import graph, schedule
from cluster.master.engines import Engine
from cluster.master.estimate import estimates
from cluster.master.progress import Progress
from cluster.model import Action as PlanAction
from cluster.model import Cpv, Job, Outcome, Package, Plan, Verdict

_TICK_S = 1.0
_KEPT = "the libraries that it links to are what they were"


def run(
    plan: Plan,
    engine: Engine,
    nodes: tuple[str, ...],
    *,
    attempts: int,
    past_seconds: Mapping[Cpv, float],
    progress: Progress,
    record: Callable[[Outcome], None],
    settle: Callable[[Package], str] = lambda package: "",
) -> tuple[Outcome, ...]:
    """Build what `plan` says on `nodes`; returns one outcome for each of its packages.

    A package that fails stops only what needs it. A lost one is tried up to `attempts` times.
    Every outcome is given to `record`. Of a package to CHECK, when all that it requires is there,
    `settle` says why it is built, or "" if it is kept. When it is interrupted it stops the engine.
    """
    outcomes: dict[Cpv, Outcome] = {
        package.cpv: Outcome(package.cpv, Verdict.SKIPPED, reason=package.reason)
        for package in plan.packages
        if not package.action.builds
    }
    packages = {package.cpv: package for package in plan.to_build}
    expected = estimates((package.cpv for package in plan.packages), past_seconds)
    seconds = {cpv: estimate.seconds for cpv, estimate in expected.items()}
    rank = graph.longest_remaining(graph.dependency_graph(plan), seconds)
    state, actions = schedule.start({cpv: package.requires for cpv, package in packages.items()}, rank, nodes, attempts)
    results: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()

    def work(job: Job, node: str) -> None:
        try:
            results.put(engine.run(job, node, lambda phase: progress.entered(node, phase)))
        except BaseException as error:  # a defect of ours: it must end the run, not hang it
            results.put(error)

    def finish(outcome: Outcome) -> None:
        outcomes[outcome.cpv] = outcome
        record(outcome)
        progress.ended(outcome)

    def act(action: schedule.Action) -> None:
        match action:
            case schedule.Dispatch(cpv, node, attempt):
                package = packages[cpv]
                if package.action is PlanAction.CHECK:
                    reason = settle(package)
                    if not reason:
                        results.put(Outcome(cpv, Verdict.SKIPPED, reason=_KEPT))
                        return
                    package = packages[cpv] = replace(package, action=PlanAction.BUILD, reason=reason)
                job = Job(package, attempt)
                progress.dispatched(job, node)
                pool.submit(work, job, node)
            case schedule.Block(cpv, cause):
                finish(Outcome(cpv, Verdict.BLOCKED, reason=f"needs {cause}, which {_how(outcomes[cause])}"))

    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        try:
            while True:
                for action in actions:
                    act(action)
                if state.done:
                    return tuple(outcomes[package.cpv] for package in plan.packages)
                result = _next(results, progress)
                if isinstance(result, BaseException):
                    raise result
                finish(result)
                state, actions = schedule.step(state, schedule.Finished(result.cpv, result.verdict))
        except BaseException:  # Ctrl-C above all: without this the pool waits for the builds
            engine.stop()
            raise


def _how(outcome: Outcome) -> str:
    return "was lost" if outcome.verdict is Verdict.LOST else "failed"


def _next(results: queue.SimpleQueue[Outcome | BaseException], progress: Progress) -> Outcome | BaseException:
    while True:
        try:
            return results.get(timeout=_TICK_S)
        except queue.Empty:
            progress.tick()
