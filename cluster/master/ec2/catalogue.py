"""The catalogue of instance types: what each is, costs and brings. `ec2/catalogue.toml` is what ships."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster import paths
from cluster.errors import InputError
from cluster.master.ec2 import speeds as measured_speeds
from cluster.master.ec2.rental import Market
from cluster.master.ec2.speeds import Speeds

SHIPPED = ("ec2", "catalogue.toml")
_MIB = 1024
_MONTH_H = 730.0  # as AWS counts

_Positive = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Startup(_Data):
    """`[startup]`"""

    boot_s: Annotated[float, Field(ge=0)]
    setup_s: Annotated[float, Field(ge=0)]

    @property
    def seconds(self) -> float:
        """From the request for an instance until it takes packages."""
        return self.boot_s + self.setup_s


class Billing(_Data):
    """`[billing]`"""

    least_s: Annotated[float, Field(ge=0)]
    disk_gib: _Count
    disk_usd_gib_month: Annotated[float, Field(ge=0)]
    address_usd_h: Annotated[float, Field(ge=0)]

    @property
    def disk_usd_h(self) -> float:
        """Of the volume of one instance."""
        return self.disk_gib * self.disk_usd_gib_month / _MONTH_H


class Spot(_Data):
    """`[spot]`"""

    interruptions_h: _Share


class Compiling(_Data):
    """`[compiling]`"""

    jobs: _Count
    remote: _Share
    most: _Count


class Share(_Data):
    """`[nodes.DRIVER]`: what a node takes of its host."""

    vcpus: _Count
    memory_mib: _Count


class Nodes(_Data):
    """`[nodes]`"""

    emulated: Share
    native: Share


class Family(_Data):
    """A line of `[families]`: instance types that differ in size alone."""

    arch: str
    emulated: _Positive
    compile: _Positive
    native: _Positive | None = None
    targets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_a_speed_for_its_targets(self) -> Family:
        if self.targets and self.native is None:
            raise ValueError("targets need `native`, the speed of nodes that need no emulation")
        return self


class Type(_Data):
    """A line of `[types]`."""

    vcpus: _Count
    memory_gib: _Positive
    network_gbps: _Positive
    usd_h: _Positive
    spot_usd_h: _Positive


class Catalogue(_Data):
    """The whole file; what each key means stands in it."""

    dated: date
    region: str
    startup: Startup
    billing: Billing
    spot: Spot
    compiling: Compiling
    nodes: Nodes
    families: dict[str, Family]
    types: dict[str, Type]
    regions: dict[str, _Positive]

    @model_validator(mode="after")
    def _is_whole(self) -> Catalogue:
        unknown = next((name for name in self.types if family(name) not in self.families), None)
        if unknown is not None:
            raise ValueError(f"type {unknown} is of no family in [families]")
        if self.region not in self.regions:
            raise ValueError(f"region {self.region} is not in [regions]")
        return self

    def there(self, region: str) -> Catalogue:
        """The same with the prices of `region`. Raises InputError for one that it does not know."""
        if region not in self.regions:
            raise InputError(f"--region {region} is not in the catalogue", f"regions: {', '.join(self.regions)}")
        factor = self.regions[region] / self.regions[self.region]
        types = {
            name: one.model_copy(update={"usd_h": one.usd_h * factor, "spot_usd_h": one.spot_usd_h * factor})
            for name, one in self.types.items()
        }
        return self.model_copy(update={"region": region, "types": types})

    def only(self, names: Collection[str]) -> Catalogue:
        """The same with the types `names` alone. Raises InputError for one that it does not know."""
        unknown = next((name for name in names if name not in self.types), None)
        if unknown is not None:
            raise InputError(f"--types {unknown} is not in the catalogue", f"types: {', '.join(self.types)}")
        return self.model_copy(update={"types": {name: self.types[name] for name in names}})


@dataclass(frozen=True, slots=True)
class Offer:
    """What an instance of a type brings for a target."""

    type: str
    arch: str
    driver: str
    """How its nodes are run: "emulated" or "native"."""
    nodes: int
    speed: float
    """Of each node; 1 is the reference of all times."""
    measured: bool
    """Whether that was measured, on a host that joined before."""
    slots: float
    """Compiles at once that it does if it has no nodes, in processors of the reference."""
    memory_mib: float
    usd_h: float
    spot_usd_h: float

    def price(self, market: Market) -> float:
        """USD an hour, without its disk."""
        return self.spot_usd_h if market is Market.SPOT else self.usd_h


def family(name: str) -> str:
    """The family of the instance type `name`."""
    return name.partition(".")[0]


def offers(catalogue: Catalogue, target: str, measured: Speeds = measured_speeds.NONE) -> tuple[Offer, ...]:
    """What each type brings for `target`, those left out that have no room for a node."""
    return tuple(_offers(catalogue, target, measured))


def _offers(catalogue: Catalogue, target: str, measured: Speeds) -> Iterator[Offer]:
    for name, one in catalogue.types.items():
        kin = catalogue.families[family(name)]
        native = kin.native if target in kin.targets else None
        share = catalogue.nodes.emulated if native is None else catalogue.nodes.native
        memory_mib = one.memory_gib * _MIB
        nodes = min(one.vcpus // share.vcpus, int(memory_mib // share.memory_mib))
        if nodes:
            known = measured_speeds.of(measured, name, target)
            yield Offer(
                type=name,
                arch=kin.arch,
                driver="emulated" if native is None else "native",
                nodes=nodes,
                speed=known or native or kin.emulated,
                measured=known is not None,
                slots=one.vcpus * kin.compile,
                memory_mib=memory_mib,
                usd_h=one.usd_h,
                spot_usd_h=one.spot_usd_h,
            )


def refreshed_file(directories: paths.Directories, region: str) -> Path:
    """Where the catalogue of `region` lies that AWS was asked for."""
    return directories.cache / "ec2" / f"catalogue-{region}.json"


def load(directories: paths.Directories, region: str | None = None) -> Catalogue:
    """The newest catalogue for `region`, by default the shipped one's: the user's own if there is one, else that.

    Raises InputError for an unknown region and for a broken file.
    """
    shipped = read(paths.data(*SHIPPED))
    wanted = shipped.there(region or shipped.region)
    own = refreshed_file(directories, wanted.region)
    return read(own) if own.is_file() else wanted


def read(path: Path) -> Catalogue:
    """The catalogue in the file `path`, TOML or JSON by its suffix. Raises InputError, which names the key."""
    try:
        text = path.read_text()
        if path.suffix == ".json":
            return Catalogue.model_validate_json(text)
        return Catalogue.model_validate(tomllib.loads(text))
    except OSError as error:
        raise InputError(f"{path} cannot be read", str(error.strerror)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML", str(error)) from error
    except ValidationError as error:
        raise InputError(*_complaint(path, error.errors()[0])) from error


def _complaint(path: Path, first: Mapping[str, Any]) -> tuple[str, str]:
    place = ".".join(map(str, first["loc"]))
    return f"{path}{f': {place}' if place else ''}", str(first["msg"])


def write(path: Path, catalogue: Catalogue) -> None:
    """Publish `catalogue` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = catalogue.model_dump_json(indent=1)
    paths.publish(path, lambda temporary: temporary.write_text(text + "\n"))
