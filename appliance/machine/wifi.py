"""Wi-Fi: the passphrase leaves the setup partition, and wpa_supplicant gets what it needs."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.declaration.model_machine import WifiSpec
from appliance.errors import ApplianceError
from appliance.machine import files, networkd
from appliance.machine.places import PASSPHRASE, Places
from appliance.machine.report import Report
from appliance.machine.setup import MAX_PASSPHRASE, Setup


def configure(places: Places, spec: WifiSpec | None, setup: Setup, report: Report) -> bool:
    """Whether wpa_supplicant's configuration changed. The fresh passphrase is kept and removed from
    the setup partition, which every computer can read; one that is wrong stays there."""
    passphrase: str | None = None
    with report.step("Wi-Fi"):
        passphrase = _fresh(places, setup, report) or _kept(places)
    target = places.run / networkd.SUPPLICANT
    with report.step("Wi-Fi"):
        if spec is None:
            return files.remove(target)
        if passphrase is None:
            report.fault(
                f"Wi-Fi: no passphrase is known for {spec.ssid!r}; put it into a file {PASSPHRASE} "
                "beside appliance.yaml"
            )
            return files.remove(target)
        text = networkd.supplicant(spec, passphrase)
        return files.write(target, text.encode(), mode=0o600)
    return False


def _fresh(places: Places, setup: Setup, report: Report) -> str | None:
    if setup.passphrase is None:
        return None
    name = setup.passphrase.name
    text = setup.passphrase.data.decode("utf-8", "replace").rstrip("\r\n")
    # IEEE 802.11i: 8 to 63 printable ASCII characters, or the key itself as 64 hexadecimal digits.
    if not re.fullmatch(r"[ -~]{8,63}|[0-9a-fA-F]{64}", text):
        report.fault(f"{name}: is no Wi-Fi passphrase: those have 8 to 63 plain characters")
        return None
    try:
        files.write(places.state / PASSPHRASE, text.encode(), mode=0o600, durable=True)
    except OSError as error:
        report.fault(f"{name}: cannot be kept, and stays where it is: {files.why(error)}")
        return text
    _erase(places.setup / name, report)
    return text


def _erase(path: Path, report: Report) -> None:
    """Overwritten first. What a memory card keeps of it is the card's secret."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        path.unlink()
        files.sync(path.parent)
    except OSError as error:
        report.fault(
            f"{path.name}: is stored, but cannot be removed here: {files.why(error)}; whoever has "
            "the card can read it"
        )


def _kept(places: Places) -> str | None:
    try:
        data = files.read(places.state / PASSPHRASE, MAX_PASSPHRASE)
    except ApplianceError:
        return None
    return data.decode() if data else None
