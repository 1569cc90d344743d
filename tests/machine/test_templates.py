"""Files made of the plan."""

from __future__ import annotations

from tests.machine.setup_root import SMALL, Root, public_key


def test_templates_without_a_plan_still_make_files(root: Root) -> None:
    made = root.template(
        "etc/nftables.d/appliance.nft",
        "{% if appliance_plan %}\nopen\n{% else %}\nonly ssh\n{% endif %}\n",
    )
    root.apply()
    assert made.read_text() == "only ssh\n"


def test_a_template_that_fails_keeps_its_old_text_and_the_others_are_made(root: Root) -> None:
    good = root.template("etc/a.conf", "{{ appliance_plan.unit.LimitNOFILE }}\n")
    bad = root.template("etc/b.conf", "right\n")
    root.put("appliance.yaml", SMALL)
    root.put("authorized_keys", public_key(1))
    root.apply()
    root.template("etc/b.conf", "{{ appliance_plan.no_such_number }}\n")
    root.boot()
    root.run("etc").mkdir(parents=True)
    bad.write_text("right\n")
    root.apply()
    assert bad.read_text() == "right\n"
    assert good.read_text().strip().isdigit()
    assert "/etc/b.conf: cannot be made: " in root.faults
    assert root.in_force == SMALL
