"""The templates of pictures, which lie beside this module."""

from __future__ import annotations

import jinja2


def svg(name: str) -> jinja2.Template:
    """The SVG template `name`; what is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cluster", "drawing"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
