"""Plan templates: what the roles left to be rendered at boot, because the plan is known only then.

`TEMPLATES/<destination>.j2` becomes `RUN/<destination>`, where a link leads from `/<destination>`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import jinja2

from appliance.machine import files
from appliance.machine.places import Places
from appliance.machine.report import Report

SUFFIX: Final = ".j2"


def render_all(places: Places, plan: dict[str, Any] | None, report: Report) -> list[str]:
    """The destinations (`etc/sysctl.d/…`) whose text changed. A template that fails keeps its old
    text and is a fault. Without a plan, `appliance_plan` is none."""
    # Trimmed as Ansible does it, so that a server and an image get the same bytes.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places.templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )
    changed = []
    for path in sorted(places.templates.rglob(f"*{SUFFIX}")):
        name = str(path.relative_to(places.templates))
        destination = name.removesuffix(SUFFIX)
        with report.step(f"/{destination}"):
            try:
                text = environment.get_template(name).render(appliance_plan=plan)
            except jinja2.TemplateError as error:
                report.fault(f"/{destination}: cannot be made: {error}")
                continue
            if files.write(places.run / destination, text.encode(), mode=_mode(path)):
                changed.append(destination)
    return changed


def _mode(template: Path) -> int:
    """The template's own; the link at the destination has none."""
    return template.stat().st_mode & 0o777
