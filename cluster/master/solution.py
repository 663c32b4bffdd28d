"""What Portage decided, or why it could not: its dependency graph as frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from _emerge.AtomArg import AtomArg
from _emerge.Blocker import Blocker
from _emerge.DependencyArg import DependencyArg
from _emerge.DepPrioritySatisfiedRange import DepPrioritySatisfiedRange
from _emerge.Package import Package
from _emerge.SetArg import SetArg
from portage.dep import check_required_use, human_readable_required_use, match_from_list

from cluster.master.graph import smallest_cycle
from cluster.master.keepgoing import Wanting
from cluster.model import Kind

_KINDS = MappingProxyType({Kind.BUILD: "buildtime", Kind.RUN: "runtime", Kind.POST: "runtime_post"})
"""Portage's own names, those of a DepPriority's attributes."""


@dataclass(frozen=True, slots=True)
class Node:
    """A package in Portage's graph."""

    cpv: str
    cp: str
    slot: str
    """As the plan writes it: without the subslot when that is the slot again."""
    use: tuple[str, ...]
    """The enabled flags of its own IUSE."""
    iuse: tuple[str, ...]
    enabled: frozenset[str]
    """All enabled flags, also those the profile implies for every ebuild."""
    repository: str
    merge: bool
    """Whether the plan builds it; the stage has it otherwise."""


@dataclass(frozen=True, slots=True)
class Need:
    """An edge: a package needs `child`."""

    child: Node
    kinds: tuple[Kind, ...]
    atoms: tuple[str, ...]
    """The dependency strings that `child` satisfies, sorted."""
    satisfied: bool
    """Whether the stage has something that would do."""


@dataclass(frozen=True, slots=True)
class Solution:
    """What Portage decided."""

    order: tuple[Node, ...]
    """The packages to build, as `emerge` would merge them."""
    needs: Mapping[Node, tuple[Need, ...]]
    """In the order of the ebuild's own dependencies, for every package in the graph."""
    arguments: Mapping[Node, tuple[str, ...]]
    """The atoms and sets of the request that name a package, sorted; for those that any names."""
    parents: Mapping[Node, Node]
    """The package that first asked for another."""
    wanting: Wanting = field(default_factory=Wanting)


@dataclass(frozen=True, slots=True)
class UseProblem:
    """Why a package that would fit does not, as far as USE goes."""

    cpv: str
    missing: tuple[str, ...] = ()
    """Flags it does not have."""
    enable: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    required_use: str = ""
    """The part of its REQUIRED_USE that does not hold."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """A dependency that nothing satisfies."""

    atom: str
    bare: str
    """The atom without its USE part."""
    cp: str
    wanted_by: str
    """A package, a set (`@demo`), or "" for an atom that was asked for."""
    use: tuple[UseProblem, ...]
    argument: str = ""
    """The atom as it was asked for, by itself or in a set; "" if a package wants it."""


@dataclass(frozen=True, slots=True)
class SlotConflict:
    """Versions that exclude each other, with the packages and atoms that ask for each."""

    slot: str
    versions: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


@dataclass(frozen=True, slots=True, order=True)
class UseChange:
    """Other USE flags for a package."""

    cpv: str
    enable: tuple[str, ...]
    disable: tuple[str, ...]

    @property
    def flags(self) -> str:
        """As package.use has them."""
        return " ".join((*self.enable, *(f"-{flag}" for flag in self.disable)))


@dataclass(frozen=True, slots=True)
class Circle:
    """Packages of which each needs the next, and the last the first."""

    cpvs: tuple[str, ...]
    changes: tuple[UseChange, ...]
    """Each of which breaks it; the smallest first."""


@dataclass(frozen=True, slots=True)
class Unsolved:
    """Why Portage found no solution. What is empty is not the reason."""

    broken: str = ""
    """A package whose ebuild cannot be sourced, if Portage gave up at that."""
    unmet: tuple[Unmet, ...] = ()
    conflicts: tuple[SlotConflict, ...] = ()
    blockers: tuple[tuple[str, str], ...] = ()
    """A package and the atom it blocks."""
    circle: Circle | None = None
    """Why no order can be found."""
    rivals: tuple[tuple[str, ...], ...] = ()
    """The packages on each side of the first conflict, or else of the first blocker."""
    wanting: Wanting = field(default_factory=Wanting)
    """The graph as far as Portage came."""


def solution_of(graph: Any) -> Solution:
    """The frozen copy of a solved depgraph."""
    digraph = graph._dynamic_config.digraph
    packages = [package for package in digraph if isinstance(package, Package)]
    nodes = {package: _node(package) for package in packages}
    order = [task for task in graph.altlist() if isinstance(task, Package) and task.operation == "merge"]
    wishes = _wishes(graph)
    needs = {nodes[package]: tuple(_needs(digraph, package, nodes, wishes)) for package in packages}
    named = ((node, _arguments(digraph, package)) for package, node in nodes.items())
    parents = {}
    for package in packages:
        first = next((nodes[parent] for parent in digraph.parent_nodes(package) if parent in nodes), None)
        if first is not None:
            parents[nodes[package]] = first
    return Solution(
        tuple(nodes[package] for package in order),
        needs,
        {node: names for node, names in named if names},
        parents,
        _wanting(graph),
    )


def _node(package: Any) -> Node:
    slot = str(package.slot) if package.sub_slot in (None, package.slot) else f"{package.slot}/{package.sub_slot}"
    return Node(
        cpv=str(package.cpv),
        cp=str(package.cp),
        slot=slot,
        use=tuple(sorted(package.use.enabled & package.iuse.all)),
        iuse=tuple(sorted(package.iuse.all)),
        enabled=frozenset(package.use.enabled),
        repository=str(package.repo or ""),
        merge=not package.installed and package.operation == "merge",
    )


def _wanting(graph: Any) -> Wanting:
    digraph, named = graph._dynamic_config.digraph, graph._dynamic_config._parent_atoms
    edges: list[tuple[str, str]] = []
    asked: list[tuple[str, str]] = []
    for package in digraph:
        if not isinstance(package, Package):
            continue
        for parent in digraph.parent_nodes(package):
            if isinstance(parent, Package):
                edges.append((str(parent.cpv), str(package.cpv)))
            elif isinstance(parent, AtomArg):
                asked.append((str(parent.arg), str(package.cpv)))
        sets = (atom for parent, atom in named.get(package, ()) if isinstance(parent, SetArg))
        asked.extend((str(atom), str(package.cpv)) for atom in sets)
    return Wanting(tuple(edges), tuple(asked))


def _wishes(graph: Any) -> dict[tuple[Any, Any], tuple[str, ...]]:
    """The atoms by which one package wants another, by the two."""
    found: dict[tuple[Any, Any], set[str]] = {}
    for child, parents in graph._dynamic_config._parent_atoms.items():
        for parent, atom in parents:
            # What the parent wrote: USE conditionals and the slot that := was bound to are Portage's additions.
            found.setdefault((parent, child), set()).add(str(getattr(atom, "unevaluated_atom", atom)))
    return {pair: tuple(sorted(atoms)) for pair, atoms in found.items()}


def _needs(
    digraph: Any, package: Any, nodes: Mapping[Any, Node], wishes: Mapping[tuple[Any, Any], tuple[str, ...]]
) -> Iterator[Need]:
    for child, priorities in digraph.nodes[package][0].items():
        if child not in nodes:
            continue
        # Portage marks with `ignored` what it reads of a built package without needing it.
        real = [priority for priority in priorities if not getattr(priority, "ignored", False)]
        if kinds := tuple(kind for kind, name in _KINDS.items() if any(getattr(one, name) for one in real)):
            satisfied = all(priority.satisfied for priority in real)
            yield Need(nodes[child], kinds, wishes.get((package, child), ()), satisfied)


def _arguments(digraph: Any, package: Any) -> tuple[str, ...]:
    """The arguments that name `package`. Sets that Portage adds by itself are `internal`."""
    parents = digraph.parent_nodes(package)
    named = (parent for parent in parents if isinstance(parent, DependencyArg))
    return tuple(sorted(str(parent.arg) for parent in named if not getattr(parent, "internal", False)))


def unsolved_of(graph: Any) -> Unsolved:
    """The frozen copy of why a depgraph has no solution."""
    dynamic = graph._dynamic_config
    unmet = [_unmet(graph, *arguments, **options) for arguments, options in dynamic._unsatisfied_deps_for_display]
    conflicts = [_conflict(graph, conflict) for conflict in dynamic._package_tracker.slot_conflicts()]
    return Unsolved(
        unmet=tuple(unmet),
        conflicts=tuple(conflicts),
        rivals=tuple((cpv,) for cpv, _ in conflicts[0].versions) if conflicts else _sides(dynamic),
        wanting=_wanting(graph),
        blockers=tuple(_blockers(dynamic)),
        circle=_circle(dynamic),
    )


def _unmet(graph: Any, root: str, atom: Any, myparent: Any = None, show_req_use: Any = None, **_: Any) -> Unmet:
    problems = [_required_use(graph, show_req_use)] if show_req_use else _use_problems(graph, root, atom)
    return Unmet(
        atom=str(atom).replace("null/", ""),
        bare=str(atom.without_use),
        cp=str(atom.cp),
        wanted_by=_who(myparent),
        use=tuple(problems),
        argument="" if isinstance(myparent, Package) else _asked(atom, myparent),
    )


def _asked(atom: Any, parent: Any) -> str:
    return str(parent.arg) if isinstance(parent, AtomArg) else str(atom).replace("null/", "")


def _who(parent: Any) -> str:
    if parent is None or isinstance(parent, AtomArg):
        return ""
    return str(parent.cpv) if isinstance(parent, Package) else str(parent.arg)


def _required_use(graph: Any, package: Any) -> UseProblem:
    enabled = graph._pkg_use_enabled(package)
    rule = check_required_use(
        package._metadata["REQUIRED_USE"], enabled, package.iuse.is_valid_flag, eapi=package.eapi
    ).tounicode()
    return UseProblem(str(package.cpv), required_use=human_readable_required_use(rule))


def _use_problems(graph: Any, root: str, atom: Any) -> list[UseProblem]:
    """For each unmasked package that fits but for USE, what would have to change; newest first."""
    if not atom.use:
        return []
    problems = []
    root_config = graph._frozen_config.roots[root]
    for package in graph._iter_match_pkgs(root_config, "ebuild", atom.without_use):
        if not package.visible:
            continue
        missing = package.iuse.get_missing_iuse(atom.unevaluated_atom.use.required)
        enabled = graph._pkg_use_enabled(package)
        enable = () if missing else sorted((atom.use.enabled - enabled) & package.iuse.all)
        disable = () if missing else sorted((atom.use.disabled & enabled) & package.iuse.all)
        if missing or enable or disable:
            problems.append(UseProblem(str(package.cpv), tuple(sorted(missing)), tuple(enable), tuple(disable)))
    return problems


def _conflict(graph: Any, conflict: Any) -> SlotConflict:
    parents = graph._dynamic_config._parent_atoms
    versions = []
    for package in conflict:
        wanted = sorted({(_who(parent), str(atom)) for parent, atom in parents.get(package, ())})
        versions.append((str(package.cpv), tuple(wanted)))
    return SlotConflict(str(conflict.atom), tuple(versions))


def _blockers(dynamic: Any) -> Iterator[tuple[str, str]]:
    for blocker in dynamic._unsatisfied_blockers_for_display or ():
        if isinstance(blocker, Blocker):
            parents = dynamic._blocker_parents.parent_nodes(blocker)
            yield (", ".join(sorted(_who(parent) for parent in parents)), str(blocker.atom).lstrip("!"))


def _circle(dynamic: Any) -> Circle | None:
    """The smallest circle of the hardest dependencies that have one."""
    for edges in _circular(dynamic._circular_deps_for_display):
        if cpvs := smallest_cycle(edges):
            return Circle(cpvs, tuple(_breaking(dynamic._circular_dependency_handler, cpvs)))
    return None


def _breaking(handler: Any, cpvs: Sequence[str]) -> list[UseChange]:
    """Portage's suggestions, which it makes for the circle that it met first, for this one."""
    packages = {str(package.cpv): package for package in handler.graph if isinstance(package, Package)}
    handler.shortest_cycle = tuple(packages[cpv] for cpv in cpvs)
    handler.parent_solutions = {}
    handler._find_suggestions()
    changes = (
        UseChange(
            str(package.cpv),
            tuple(sorted(flag for flag, state in solution if state)),
            tuple(sorted(flag for flag, state in solution if not state)),
        )
        for package, solutions in handler.parent_solutions.items()
        for solution in solutions
    )
    return sorted(changes, key=lambda change: (len(change.enable + change.disable), change.enable, change))


def _sides(dynamic: Any) -> tuple[tuple[str, ...], ...]:
    """The packages that have the first blocker, and those that it blocks."""
    for blocker in dynamic._unsatisfied_blockers_for_display or ():
        if isinstance(blocker, Blocker):
            has = [parent for parent in dynamic._blocker_parents.parent_nodes(blocker) if isinstance(parent, Package)]
            others = [one for one in dynamic.digraph if isinstance(one, Package) and one not in has]
            blocked = match_from_list(blocker.atom, [one.cpv for one in others])
            return tuple(str(one.cpv) for one in has), tuple(map(str, blocked))
    return ()


def _circular(digraph: Any) -> Iterator[tuple[tuple[str, str], ...]]:
    """The edges of `digraph`, the hardest alone first: Portage shows its cycles in this order too."""
    if digraph is None:
        return
    levels = DepPrioritySatisfiedRange.ignore_priority
    highest = levels.index(DepPrioritySatisfiedRange.ignore_medium_soft)
    packages = [package for package in digraph if isinstance(package, Package)]
    for ignore in reversed(levels[: highest + 1]):
        yield tuple(
            (str(parent.cpv), str(child.cpv))
            for parent in packages
            for child in digraph.child_nodes(parent, ignore_priority=ignore)
            if isinstance(child, Package)
        )
