#!/usr/bin/env python3
"""Runs as root on a rented instance: ends it when its master is silent or its time is up, and hears of interruptions.

The master writes /proc/uptime into DIRECTORY/alive every few seconds; uptimes are compared, for clocks may be off.
What Amazon says of an interruption (two minutes ahead, by the instance metadata service, version 2) is put into
DIRECTORY/notice, where the master looks:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

EVERY_S = 5.0  # as Amazon recommends
ANSWER_S = 2.0


def uptime(path: Path) -> float:
    """Seconds since the boot, as /proc/uptime and its copies begin with; 0 if `path` says none."""
    try:
        return float(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def over(now: float, heard: float, silence_s: float, end_s: float) -> bool:
    """Whether the instance is to end. `heard` after `now` is from before a reboot."""
    return now >= end_s or now - (heard if heard <= now else 0.0) > silence_s


def interruption(service: str) -> str:
    """What the metadata service at the URL `service` says of an interruption, "" if nothing."""
    ask = urllib.request.Request(
        f"{service}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    try:
        with urllib.request.urlopen(ask, timeout=ANSWER_S) as answer:
            token = answer.read().decode()
        action = urllib.request.Request(
            f"{service}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        with urllib.request.urlopen(action, timeout=ANSWER_S) as answer:
            return answer.read().decode()
    except (OSError, ValueError):  # 404 while there is none
        return ""


def leave(notice: Path, said: str) -> None:
    """Put `said` into `notice`, whole."""
    part = notice.with_suffix(".part")
    part.write_text(said)
    part.chmod(0o644)
    part.rename(notice)


def main() -> None:
    """Watch until the instance ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--silence-s", type=float, required=True)
    parser.add_argument("--end-s", type=float, required=True, help="of uptime")
    parser.add_argument("--service", default="http://169.254.169.254")
    parser.add_argument("--uptime", type=Path, default=Path("/proc/uptime"))
    parser.add_argument("--poweroff", default="systemctl poweroff")
    given = parser.parse_args()
    alive, notice = given.directory / "alive", given.directory / "notice"
    while not over(uptime(given.uptime), uptime(alive), given.silence_s, given.end_s):
        said = interruption(given.service)
        if said:
            leave(notice, said)
        time.sleep(EVERY_S)
    subprocess.run(shlex.split(given.poweroff), check=True)


if __name__ == "__main__":
    main()
