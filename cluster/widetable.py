"""Tables whose cells are never cut: on a narrow terminal their lines wrap."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_WIDEST = 1000  # columns


def table(*names: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table with columns called `names`, and then `numbers`, which stand on the right."""
    made = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        made.add_column(name, no_wrap=True)
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def show(console: Console, made: Table) -> None:
    """Print it. Rich by itself would cut names to the width of the terminal."""
    made.width = console.measure(made, options=console.options.update(width=_WIDEST)).maximum
    console.print(made, soft_wrap=True)
