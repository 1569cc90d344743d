"""A short part of `tests/fuzz/dataplane.py`, and whether it would notice anything."""

from __future__ import annotations

import pytest

from appliance.dataplane.yamux import Yamux
from tests.fuzz.dataplane import TARGETS, main, run, try_input
from tests.fuzz.running import Broken


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_bytes_are_refused_or_mean_the_same_however_they_are_cut(target: str) -> None:
    refused = sum(try_input(target, 2026, number) for number in range(1500))
    assert 50 < refused < 1450, "inputs of both kinds"


def test_an_input_that_breaks_a_machine_can_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Yamux.receive

    def forgetful(machine: Yamux, data: bytes) -> list[object]:
        machine._head.clear()  # what is left of a header that was cut
        return list(receive(machine, data))

    monkeypatch.setattr(Yamux, "receive", forgetful)
    with pytest.raises(Broken, match=r"yamux, seed 1, input \d+: ") as caught:
        run(4000, seed=1)
    number = int(str(caught.value).split("input ")[1].split(":")[0])
    with pytest.raises(Broken):
        try_input("yamux", 1, number)


def test_the_runner_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--inputs", "40", "--seed", "3", "--first", "100"]) == 0
    assert "40 inputs in " in capsys.readouterr().out
