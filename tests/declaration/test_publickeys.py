"""Public SSH keys: what ssh-keygen makes is read, and nothing that is not whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.declaration.publickeys import PublicKey, looks_private

KINDS = [
    ("ed25519", ()),
    ("ecdsa", ("-b", "256")),
    ("ecdsa", ("-b", "384")),
    ("ecdsa", ("-b", "521")),
    ("rsa", ("-b", "2048")),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_what_ssh_keygen_makes_is_read_as_ssh_keygen_reads_it(
    kind: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "key"
    make = ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "me and you", "-f", str(path)]
    subprocess.run(make, check=True)
    text = path.with_suffix(".pub").read_text()
    key = PublicKey.parse(text)
    assert str(key) == text.strip()
    said = subprocess.run(
        ["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True
    ).stdout
    assert key.fingerprint == said.split()[1]
    secret = path.read_text()
    assert looks_private(secret)
    assert any(looks_private(line) for line in secret.splitlines())
    with pytest.raises(ValueError, match="private key"):
        PublicKey.parse(secret)


@given(cut=st.integers(1, 60))
def test_a_key_that_was_cut_is_no_key(cut: int) -> None:
    whole = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    PublicKey.parse(whole)
    with pytest.raises(ValueError, match="no whole ssh-ed25519 key"):
        PublicKey.parse(whole[:-cut])


@given(text=st.text(max_size=300))
def test_no_text_breaks_the_parser_or_comes_back_in_its_words(text: str) -> None:
    told = ""
    try:
        PublicKey.parse(text)
    except ValueError as error:
        told = str(error)
    assert len(text.strip()) < 12 or text.strip() not in told
