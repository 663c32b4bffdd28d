"""Time process starts where this runs: `python3 driver.py REPEAT`, with nothing but the standard library.

It is given to a node as a file, so that neither ssh nor the host's clock is in the numbers. Prints one
JSON object: for each kind of process the milliseconds of REPEAT starts, from the spawn to the exit.
"""

import json
import os
import sys
import tempfile
import time

HELLO = '#include <stdio.h>\nint main(void)\n{\n\tputs("hello");\n\treturn 0;\n}\n'
COMMANDS = {
    "exec": ["/bin/true"],
    "shell": ["sh", "-c", ":"],
    "substitution": ["sh", "-c", "x=$(echo a | sed s/a/b/)"],
    "preprocess": ["gcc", "-E", "hello.c", "-o", "hello.i"],
    "compile": ["gcc", "-c", "hello.c", "-o", "hello.o"],
    "compile-and-link": ["gcc", "hello.c", "-o", "hello"],
    "python": ["python3", "-c", "pass"],
}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def milliseconds(argv: list[str]) -> float:
    """Run `argv` to its end; how long that took. Exits if it fails."""
    start = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, ENVIRONMENT)
    _, status = os.waitpid(child, 0)
    spent = (time.perf_counter() - start) * 1000
    if status:
        sys.exit(f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(status)}")
    return spent


def measure(repeat: int) -> dict[str, list[float]]:
    """`repeat` starts of each kind in turns, after one that only fills the caches."""
    os.environ["PATH"] = ENVIRONMENT["PATH"]  # where posix_spawnp looks
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        with open("hello.c", "w") as stream:
            stream.write(HELLO)
        for turn in range(repeat + 1):
            for name, argv in COMMANDS.items():
                spent = milliseconds(argv)
                if turn:
                    times[name].append(round(spent, 3))
        os.chdir("/")
    return times


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
