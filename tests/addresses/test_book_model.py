"""The book against a plain model: whatever is done in whatever order, with restarts between."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from random import Random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.addresses import snapshots
from appliance.addresses.claims import CONFIRMED_FOR, QUIET
from appliance.addresses.keys import may_be_dialled
from appliance.addresses.model import Learned, RelayClaim, Want
from appliance.addresses.options import StoreOptions
from appliance.addresses.store import AddressBook
from appliance.network import Network
from tests.addresses.books import leave_as_killed
from tests.addresses.peers import NOW, heard_from, key, peer_id, relay_claim, signed

HOSTS = [f"{11 + n}.{n % 3}.0.{n}" for n in range(1, 25)]
HOST_OF = {key(host)[:16]: host for host in HOSTS}
ADDRESSES = [key(host) for host in HOSTS] + [
    key("11.0.0.77", 5),
    key("2a01:4f8::1"),
    key("2a01:4f8::2"),
    key("10.0.0.1"),
    key("203.0.113.9"),
]
addresses = st.sampled_from(ADDRESSES)
people = st.sampled_from([heard_from(f"{90 + n}.1.1.1") for n in range(6)])
ids = st.integers(0, 3)


class BookMachine(RuleBasedStateMachine):
    """Few addresses, so that nothing has to be evicted: the model need not know whom."""

    @initialize()
    def begin(self) -> None:
        self.scratch = Path(tempfile.mkdtemp())
        self.place = self.scratch / "book"
        self.crashes = 0
        self.now = NOW
        self.cached_from = snapshots.CACHED_FROM
        vars(snapshots)["CACHED_FROM"] = 3  # so that the file of the tables takes part
        self.book = self.opened()
        self.known: set[bytes] = set()
        self.reached: dict[bytes, int] = {}
        self.failures: dict[bytes, int] = {}
        self.banned: dict[str, int] = {}
        self.newest: dict[int, tuple[int, int]] = {}
        self.proven: dict[bytes, int] = {}

    def opened(self) -> AddressBook:
        return AddressBook.open(self.place, Network.SIMNET, StoreOptions(entries=1024))

    def teardown(self) -> None:
        self.book.close()
        shutil.rmtree(self.scratch)
        vars(snapshots)["CACHED_FROM"] = self.cached_from

    def is_banned(self, address: bytes) -> bool:
        host = HOST_OF.get(address[:16], "")
        return self.banned.get(host, 0) > self.now

    def heard(self, told: list[bytes]) -> set[bytes]:
        return {one for one in told if may_be_dialled(one) and not self.is_banned(one)}

    @rule(seconds=st.integers(1, 100_000))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(told=st.lists(addresses, max_size=8), who=people)
    def add(self, told: list[bytes], who: object) -> None:
        tally = self.book.add(told, who, self.now)  # type: ignore[arg-type]
        assert tally.added == len(self.heard(told) - self.known)
        self.known |= self.heard(told)

    @rule(address=addresses, who=people, withdraw=st.booleans())
    def claim(self, address: bytes, who: object, withdraw: bool) -> None:
        said = RelayClaim(address) if withdraw else relay_claim(address)
        self.book.learn_claims([said], who, self.now)  # type: ignore[arg-type]
        self.known |= self.heard([address])

    @rule(address=addresses, who=people, peer=ids, seq=st.integers(1, 5))
    def sign(self, address: bytes, who: object, peer: int, seq: int) -> None:
        record = signed(peer, address, seq=seq, expires=self.now + 50_000)
        verdict = self.book.learn_signed(record, who, self.now)  # type: ignore[arg-type]
        newest, until = self.newest.get(peer, (0, 0))
        if verdict in (Learned.NEW, Learned.REPLACED):
            # A lapsed record is remembered for a day; then it may have been swept out.
            assert seq > newest or self.now >= until + QUIET
            self.newest[peer] = seq, self.now + 50_000
        elif verdict in (Learned.REPLAYED, Learned.KNOWN):
            assert seq <= newest
        if verdict is not Learned.BANNED:
            self.known |= {a for a in self.heard([address]) if a in self.book}

    @rule(address=addresses)
    def succeed(self, address: bytes) -> None:
        self.book.record_success(address, self.now)
        if address in self.known:
            self.reached[address] = self.now
            self.failures[address] = 0

    @rule(address=addresses)
    def fail(self, address: bytes) -> None:
        self.book.record_failure(address, self.now)
        if address in self.known:
            self.failures[address] = self.failures.get(address, 0) + 1

    @rule(address=addresses, peer=ids)
    def confirm(self, address: bytes, peer: int) -> None:
        assert self.book.confirm_relay(address, peer_id(peer), self.now) == (address in self.known)
        if address in self.known:
            self.proven[address] = self.now

    @rule(address=addresses)
    def deny(self, address: bytes) -> None:
        self.book.deny_relay(address, self.now)
        self.proven.pop(address, None)
        relays = self.book.select(50, self.now, Random(1), Want.RELAY)
        assert address not in {one.address for one in relays}

    @rule(host=st.sampled_from(HOSTS), seconds=st.integers(1, 200_000))
    def ban(self, host: str, seconds: int) -> None:
        self.book.ban_ip(host, self.now + seconds, "model")
        self.banned[host] = self.now + seconds
        self.lose({one for one in self.known if one[:16] == key(host)[:16]})

    @rule(address=addresses)
    def forget(self, address: bytes) -> None:
        assert self.book.forget(address) == (address in self.known)
        self.lose({address})

    def lose(self, gone: set[bytes]) -> None:
        self.known -= gone
        for one in gone:
            for fact in (self.reached, self.failures, self.proven):
                fact.pop(one, None)

    @rule()
    def settle_and_expire(self) -> None:
        self.book.settle(self.now)
        self.book.expire(self.now, budget=7)
        self.banned = {host: until for host, until in self.banned.items() if until > self.now}

    @rule()
    def restart(self) -> None:
        self.book.close()
        self.book = self.opened()
        assert self.book.damaged == 0

    @rule(whole=st.booleans())
    def write_the_tables(self, whole: bool) -> None:
        snapshot = self.book.snapshot()
        if snapshot is not None and whole:
            snapshot.write()
            self.book.kept(snapshot)

    @rule()
    def crash(self) -> None:
        self.crashes += 1
        left = self.scratch / f"crash{self.crashes}"
        leave_as_killed(self.book, self.place, left)
        self.book.close()
        self.place = left
        self.book = self.opened()
        assert self.book.damaged == 0

    @invariant()
    def it_holds_what_it_was_told(self) -> None:
        if not hasattr(self, "book"):
            return
        assert set(self.book.addresses()) == self.known
        assert len(self.book) == len(self.known)
        tables = self.book._tables
        for one in self.known:
            row = tables.find(one)
            assert tables.success[row] == self.reached.get(one, 0)
            assert tables.failures[row] == self.failures.get(one, 0)
            assert tables.is_tried(row) == (one in self.reached)

    @invariant()
    def what_it_offers_is_known_allowed_and_proven(self) -> None:
        if not hasattr(self, "book"):
            return
        for want in Want:
            for one in self.book.select(5, self.now, Random(self.now), want):
                assert one.address in self.known
                assert not self.is_banned(one.address)
        relays = {one.address for one in self.book.select(50, self.now, Random(1), Want.RELAY)}
        networks = {one[12:14] for one in relays}
        for address, when in self.proven.items():
            if when + CONFIRMED_FOR > self.now and address not in relays:
                assert address[12:14] in networks  # another of its network was chosen


BookMachine.TestCase.settings = settings(
    max_examples=12,
    # Without `explain`, which traces every line of every example.
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    stateful_step_count=30,
)
TestBook = BookMachine.TestCase
