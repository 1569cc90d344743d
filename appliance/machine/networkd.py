"""A machine's network as systemd-networkd and wpa_supplicant want it told. No I/O."""

from __future__ import annotations

from typing import Final

from appliance.declaration.model_machine import WifiSpec, WiredSpec

FIXED: Final = "60-appliance-fixed.network"
"""Before the image's own 80-appliance-wired.network, which asks for an address."""

SUPPLICANT: Final = "wpa_supplicant.conf"


def wired(spec: WiredSpec) -> str | None:
    """The network file; None where the image's default says it all."""
    if not spec.address and not spec.dns:
        return None
    # Virtual interfaces (bridges, veth ends) have a kind; a wired card has none.
    match = f"Name={spec.interface}" if spec.interface else "Type=ether\nKind=!*"
    lines = ["# Made at boot by `appliance machine apply` from the declaration.", "[Match]", match]
    lines += ["", "[Network]"]
    if spec.address:
        lines += [f"Address={address}" for address in spec.address]
        lines += [f"Gateway={gateway}" for gateway in spec.gateway]
        lines.append("DHCP=no")
        asks = not any(gateway.version == 6 for gateway in spec.gateway)
        lines.append(f"IPv6AcceptRA={'yes' if asks else 'no'}")
    else:
        lines += ["DHCP=yes", "IPv6AcceptRA=yes"]
    lines += [f"DNS={server}" for server in spec.dns]
    if spec.dns:
        # Those named here, and no others.
        lines += ["", "[DHCPv4]", "UseDNS=no", "", "[DHCPv6]", "UseDNS=no"]
        lines += ["", "[IPv6AcceptRA]", "UseDNS=no"]
    return "\n".join(lines) + "\n"


def supplicant(spec: WifiSpec, passphrase: str) -> str:
    """wpa_supplicant.conf(5). `passphrase` has 8 to 63 characters, or 64 hexadecimal digits."""
    secret = passphrase if len(passphrase) == 64 else f'"{passphrase}"'
    return "\n".join(
        (
            "# Made at boot by `appliance machine apply` from the declaration.",
            f"country={spec.country}",
            "network={",
            # Hexadecimal: a name may hold quotes and more.
            f"    ssid={spec.ssid.encode().hex()}",
            f"    psk={secret}",
            # WPA2 and WPA3; management frames protected where the network can.
            "    key_mgmt=WPA-PSK WPA-PSK-SHA256" + (" SAE" if len(passphrase) < 64 else ""),
            "    ieee80211w=1",
            f"    scan_ssid={int(spec.hidden)}",
            "}",
            "",
        )
    )
