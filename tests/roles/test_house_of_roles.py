"""What every role promises, whatever it does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from tests.roles.readme import readme, roles
from tests.roles.root import PROJECT

ROLES = roles()
EACH_ROLE = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
# Examples whose plans differ in every list that a template walks over.
EXAMPLES = ["minimal", "home-pi", "public-relay", "router", "full"]


def plan_templates() -> list[tuple[Path, str]]:
    found = []
    for role in ROLES:
        variables = yaml.safe_load((role / "vars/main.yaml").read_text())
        found += [(role, path) for path in variables.get(f"{role.name}_plan_templates", [])]
    return found


EACH_PLAN_TEMPLATE = pytest.mark.parametrize(
    ("role", "destination"), plan_templates(), ids=lambda value: str(value).rpartition("/")[2]
)


def rendered(role: Path, destination: str, **values: Any) -> str:
    """As `appliance machine apply` renders: plain Jinja2, and no name that it does not know."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    source = (role / f"templates{destination}.j2").read_text()
    return str(environment.from_string(source).render(values))


@EACH_ROLE
def test_the_readme_is_fresh(role: Path) -> None:
    assert (role / "README.md").read_text() == readme(role), "python -m tests.roles.readme"


@EACH_ROLE
def test_every_default_has_a_reason_and_a_specification(role: Path) -> None:
    specification = yaml.safe_load((role / "meta/argument_specs.yaml").read_text())
    options = specification["argument_specs"]["main"]["options"]
    lines = (role / "defaults/main.yaml").read_text().splitlines()
    bare = [
        line
        for line in lines
        if re.match(r"\s*(-\s+\S|[\w.]+:\s+\S)", line) and not re.search(r"\s# \S", line)
    ]
    assert not bare
    assert set(yaml.safe_load("\n".join(lines))) == set(options)


@EACH_ROLE
def test_it_has_a_switch_and_is_looked_at(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults/main.yaml").read_text())
    assert isinstance(defaults[f"{role.name}_enabled"], bool)
    # Molecule passes over a verification that is missing.
    assert (role / "molecule/default/verify.yaml").exists()


@EACH_ROLE
def test_a_templates_path_is_its_destination(role: Path) -> None:
    tasks = "".join(path.read_text() for path in (role / "tasks").rglob("*.yaml"))
    for template in (role / "templates").rglob("*.j2"):
        place = "/" + str(template.relative_to(role / "templates").with_suffix(""))
        named = place in tasks or any(place == path for _, path in plan_templates())
        assert named, f"nothing writes {place}"


@EACH_PLAN_TEMPLATE
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_plan_fits_the_template(role: Path, destination: str, example: str) -> None:
    plan = json.loads(
        subprocess.run(
            [
                *(sys.executable, "-m", "appliance", "plan", "--json"),
                f"schemas/examples/{example}.yaml",
            ],
            cwd=PROJECT,
            check=True,
            capture_output=True,
        ).stdout
    )
    text = rendered(role, destination, appliance_plan=plan)
    assert "None" not in text
    if destination.endswith(".json"):
        json.loads(text)
    # A plan may have nothing for a role: no kaspad where the node is elsewhere.
    spoken_of = plan.get(role.name, True)
    assert (text != rendered(role, destination, appliance_plan=None)) == bool(spoken_of)


@EACH_PLAN_TEMPLATE
def test_without_a_plan_nothing_of_it_is_left(role: Path, destination: str) -> None:
    assert "{" not in rendered(role, destination, appliance_plan=None).replace("{}", "")
