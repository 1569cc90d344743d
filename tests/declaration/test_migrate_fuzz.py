"""Whatever the order and the spelling of an older file, the newer one means the same."""

from __future__ import annotations

from typing import Final

from hypothesis import given, reject, settings
from hypothesis import strategies as st

from appliance.declaration import DeclarationErrors, loads
from appliance.declaration.migrate import migrate
from tests.declaration.test_faults import PEER_ID, RELAY
from tests.declaration.test_migrate import OLD

ENVIRON: Final = {"HOME": "/home/me"}

# Spellings of each field that mean something; `#` ends up in a comment where there is room.
FIELDS: Final = (
    ("apiVersion: appliance/v1alpha1", 'apiVersion: "appliance/v1alpha1"  # draft'),
    ("kind: Appliance", "kind:\n  Appliance"),
    ("name: box", "'name': box # ours", "name: >-\n  box\n"),
    ("network: simnet", '"network" : simnet'),
    ("profile: x86-medium", "profile:\n  architecture: aarch64 # a\n\n  # b\n  cores: 4\n"
     "  memory_bytes: 4294967296\n  link_bytes_per_second: 5000000\n  # c"),
    ("kaspad:", "embedded: 127.0.0.1:0", "kaspad: # here\n   # and there", "embedded: null"),
    ("listen: 0.0.0.0:4001", "listen: # x\n- 0.0.0.0:4001\n# y\n- '[::]:4001'",
     "libp2p-relay-port: 4001 # z", "listen:\n  0.0.0.0:4001",
     'listen: [0.0.0.0:4001, # x\n "[::]:4001"]'),
    (f"libp2p-relays:\n    - {RELAY}   # Ada's\n    # none besides", f"libp2p-relays: {RELAY}"),
    (f"libp2p-peers: [{PEER_ID}]", "libp2p-peers: []", "libp2p-peers: # later"),
    ("libp2p-circuit-bytes: 0", "libp2p-reservation-duration: 7200"),
    ('state-dir: "/srv/a # b"', "state-dir: '/srv/it''s'", "state-dir: |-\n  /srv/box"),
    ("metrics: off", "metrics:   127.0.0.1:9000  #"),
    ("log-level: debug", "log-format: text"),
)  # fmt: skip
GAPS: Final = st.sampled_from(["", "\n", "# note\n", "\n# para\n\n", "   # deep\n", "\n\n", "#\n"])


@st.composite
def documents(draw: st.DrawFn) -> str:
    blocks = [draw(st.sampled_from(spellings)) for spellings in FIELDS]
    blocks = draw(st.permutations(blocks))
    text = "".join(f"{draw(GAPS)}{block}\n" for block in blocks) + draw(GAPS)
    indent = draw(st.sampled_from(["", "  "]))
    return "".join(f"{indent}{line}\n" if line else "\n" for line in text.split("\n")[:-1])


@settings(max_examples=100)
@given(documents())
def test_the_new_text_means_the_same_and_keeps_its_comments(old: str) -> None:
    try:
        wanted = loads(old, environ=ENVIRON)
    except DeclarationErrors:
        reject()  # a comment behind a block scalar is a part of it
    migration = migrate(old.encode(), file="f.yaml", environ=ENVIRON)
    assert loads(migration.text, environ=ENVIRON) == wanted
    assert migration.comments_kept
    for word in ("note", "para", "deep", "draft", "ours", "here", "there", "Ada's", "besides"):
        assert migration.text.count(f"# {word}") + migration.text.count(f"and {word}") == (
            old.count(f"# {word}") + old.count(f"and {word}")
        )
    again = migrate(migration.text.encode(), file="f.yaml", environ=ENVIRON)
    assert again.text == migration.text


@settings(max_examples=200)
@given(
    st.sampled_from([path.read_text() for path in OLD]),
    st.integers(0, 2000),
    st.integers(0, 40),
    st.text(alphabet=" \t\n\r:-#[]{}\"'|>&*!?,%\u2028\u0085\ufeffab0", max_size=6),
)
def test_a_mangled_file_is_refused_or_means_the_same(
    text: str, at: int, length: int, put: str
) -> None:
    mangled = (text[:at] + put + text[at + length :]).encode()
    try:
        wanted = loads(mangled, environ=ENVIRON)
    except DeclarationErrors:
        return
    migration = migrate(mangled, file="f.yaml", environ=ENVIRON)
    assert loads(migration.text, environ=ENVIRON) == wanted
