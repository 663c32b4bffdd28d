"""The command line: `cluster VERB`. Exit 0 done, 1 could not run, 2 packages failed, 130 interrupted."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from cyclopts import App, CycloptsError

from cluster import config, target
from cluster.errors import ClusterError
from cluster.options import Common, print_json

_GROUPS = {
    "stage": "Stages: the root file systems that nodes boot.",
    "binhost": "The directory of finished binary packages.",
    "history": "Past builds, and what is expected of the next ones.",
    "bench": "Measure what emulation costs, and what each of our levers brings.",
    "ec2": "Hosts rented from Amazon EC2.",
    "tree": "The ebuild repositories of the configuration.",
    "host": "Other machines to build on.",
}
_VERBS = {
    "plan": ("plan",),
    "advise": ("advise",),
    "graph": ("graph", "why", "impact"),
    "build": ("build", "verify"),
    "simulate": ("simulate",),
    "ec2": ("ec2_plan", "ec2_catalogue"),
    "rental": ("ec2_up", "ec2_status", "ec2_down", "ec2_reap", "ec2_policy"),
    "stage": ("stage_build", "stage_kernel", "stage_list", "stage_show", "stage_remove"),
    "binhost": ("binhost_serve", "binhost_list", "binhost_push", "binhost_pull"),
    "tree": ("tree_sync", "tree_status"),
    "host": ("host_add", "host_list", "host_drain", "host_resume", "host_remove", "host_check"),
    "status": ("status", "explain"),
    "history": ("history_show", "history_errors", "history_export", "history_import", "history_restore"),
    "bench": (
        *("bench_emulation", "bench_process", "bench_node"),
        *("bench_plan", "bench_dispatch", "bench_size", "bench_schedule", "bench_scale"),
    ),
}
"""The functions of each module of `cluster.verbs`."""


def _app(*, whole: bool) -> App:
    """The command line. Unless it is to be `whole`, a verb is imported when it is met.

    What a plan does not need takes longer to import than many a plan to make.
    """
    app = App(
        name="cluster",
        help="Build a Gentoo-like distribution for another architecture, one package per QEMU node.",
        suppress_keyboard_interrupt=False,  # run() has something to say about it
    )
    groups = {name: App(name=name, help=text) for name, text in _GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for module, functions in _VERBS.items():
        for function in functions:
            place = f"cluster.verbs.{module}"
            verb = getattr(importlib.import_module(place), function) if whole else f"{place}:{function}"
            noun = function.partition("_")[0]
            groups.get(noun, app).command(verb, name=function.removeprefix(f"{noun}_"))
    app.command(targets)
    app.command(show_config, name="config")
    return app


def targets(*, common: Common | None = None) -> int:
    """List the targets that have a data file, and whether chroots of them need emulation here."""
    found = [target.load(name) for name in target.names()]
    if (common or Common()).json:
        print_json([{**one.model_dump(), "native": one.runs_on()} for one in found])
        return 0
    for one in found:
        chroots = "native" if one.runs_on() else "emulated"
        print(f"{one.name}\t{one.chost}\t{one.qemu.binary} {one.qemu.machine} {one.qemu.cpu}\tchroots {chroots}")
    return 0


def show_config(*, common: Common | None = None) -> int:
    """Print the default configuration, which is its reference, after checking yours."""
    common = common or Common()
    checked = config.load(common.config)
    if common.json:
        print_json(checked.model_dump())
    else:
        print(config.DEFAULT.read_text(), end="")
    return 0


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, so that every node is ended."""

    def interrupt(signum: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _set_up_logging(debug: bool) -> None:
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(name)s: %(message)s")
    for name in ("paramiko", "qemu", "asyncio", "httpx", "httpcore"):
        # Their complaints about a node that goes away are ours to make, in one line.
        logging.getLogger(name).setLevel(logging.INFO if debug else logging.CRITICAL)


def run(argv: list[str]) -> int:
    """Run the command line `argv`; returns the exit code."""
    debug = "--debug" in argv
    _set_up_logging(debug)
    try:
        with _terminated_like_interrupted():
            app = _app(whole=not argv or not {"--help", "-h"}.isdisjoint(argv))
            code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
            return code if isinstance(code, int) else 0
    except ClusterError as error:
        if debug:
            logging.exception("%s", getattr(error, "detail", ""))
        print(f"cluster: {error}", file=sys.stderr)
        return error.exit_code
    except CycloptsError as error:
        what = " ".join(str(error).split()).rstrip(".")
        print(f"cluster: {what}: `cluster --help` lists what there is", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; what was finished is kept, run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk or a directory without rights, wherever it is met
        if debug:
            logging.exception("")
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def main() -> None:
    """The `cluster` command."""
    sys.exit(run(sys.argv[1:]))
