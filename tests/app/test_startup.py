"""The second stage: what only the machine can say, every fault at once, and nothing touched."""

from __future__ import annotations

import dataclasses
import grp
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.bridge.identity import Identity
from appliance.cli.main import main
from appliance.declaration.load import Loaded, loaded
from appliance.declaration.wishes import wishes
from appliance.network import Endpoint
from appliance.operate.socketfile import SocketFile
from appliance.sizing import CATALOGUE, Plan, plan
from appliance.startup import Machine, check, is_running
from tests.app.processes import contents, declaration, environment, typed, written
from tests.declaration.test_migrate import VERSIONS

ROOMY: Final = Machine("x86_64", 64, 2**38, 2**38, 2**20)
ELSEWHERE: Final = "192.0.2.77"
"""TEST-NET-1 (RFC 5737): an address that no machine has."""


def opened(directory: Path, **sections: Mapping[str, Any]) -> Loaded:
    hardware = {"hardware": {"profile": "x86-medium"}} | sections
    return loaded(written(directory, declaration(directory, "box", **hardware)))


def planned(found: Loaded) -> Plan:
    profile = found.declaration.hardware.profile
    assert not isinstance(profile, str)
    return plan(found.declaration.hardware.apply(profile), wishes(found.declaration))


def faults(found: Loaded, machine: Machine = ROOMY, *, beside_running: bool = False) -> list[str]:
    """What the operator reads, from the path on; the place in the file is checked elsewhere."""
    problems = check(
        found.declaration, planned(found), machine=machine, beside_running=beside_running
    )
    lines = found.refusal(problems).message.splitlines() if problems else []
    return [line.removeprefix(f"{found.file}:").partition(": ")[2] for line in lines]


@pytest.fixture
def taken() -> Iterator[str]:
    """An endpoint that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


# --- all at once


def test_a_machine_where_all_is_well_has_no_faults_and_is_left_as_it_was(tmp_path: Path) -> None:
    found = opened(tmp_path)
    assert faults(found) == []
    assert [path.name for path in tmp_path.iterdir()] == ["box.yaml"]


def test_every_fault_at_once_each_at_its_place(
    tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("mine")
    document = declaration(
        tmp_path,
        "box",
        bridge={"listen": [f"{ELSEWHERE}:0", taken]},
        state={"dir": str(tmp_path / "notes" / "state")},
        control={"socket": str(tmp_path / "run" / "control.sock"), "group": "no-such-group"},
        metrics={"listen": f"{ELSEWHERE}:9464"},
        discovery={"as_table": str(tmp_path / "asmap.txt")},
    )
    path = written(tmp_path, document)
    lines = path.read_text().splitlines()
    before = contents(tmp_path)
    assert main(["validate", "--machine", str(path)]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    told = {}
    for line in shown.err.splitlines():
        place, field, message = line.split(": ", 2)
        told[field] = message.partition(" by ")[0]
        file, row, column = place.rsplit(":", 2)
        value = lines[int(row) - 1][int(column) - 1 :]
        assert file == str(path)
        assert value and lines[int(row) - 1].endswith((f": {value}", f"- {value}"))
    assert told == {
        "bridge.listen[0]": f"{ELSEWHERE} is no address of this machine",
        "bridge.listen[1]": f"{taken} is in use already",
        "state.dir": f"{tmp_path}/notes is not a directory",
        "discovery.as_table": f"there is no file {tmp_path}/asmap.txt",
        "control.socket": f"there is no directory {tmp_path}/run",
        "control.group": "there is no group 'no-such-group' on this machine",
        "metrics.listen": f"{ELSEWHERE} is no address of this machine",
    }
    assert f"(process {os.getpid()})" in shown.err  # who has the port: we do
    assert contents(tmp_path) == before


def test_places_in_an_older_file_have_its_names(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "old.yaml"
    text = (VERSIONS / "lab.v1alpha1.yaml").read_text()
    path.write_text(text.replace("metrics: off", f"metrics: {taken}") + "profile: x86-medium\n")
    found = loaded(path)
    [problem] = check(found.declaration, planned(found), machine=ROOMY)
    line = found.refusal([problem]).message
    assert line.startswith(f"{path}:12:10: metrics: {taken} is in use already")


# --- sockets


@pytest.mark.parametrize(
    ("field", "sections"),
    [
        ("metrics.listen", lambda where: {"metrics": {"listen": where}}),
        ("node.p2p", lambda where: {"node": {"p2p": where}}),
        ("bridge.listen[0]", lambda where: {"bridge": {"listen": [where]}}),
        (
            "bridge.slots",
            lambda where: {
                "bridge": {
                    "slots": where,
                    "relays": [f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}"],
                    "peers": [Identity.generate().peer_id],
                }
            },
        ),
    ],
)
def test_a_taken_port(field: str, sections: Any, tmp_path: Path, taken: str) -> None:
    [fault] = faults(opened(tmp_path, **sections(taken)))
    assert fault.startswith(f"{field}: {taken} is in use already")


def test_a_kaspad_may_be_there_or_not(tmp_path: Path, taken: str) -> None:
    """Its port is its own: taken is as it should be, and free only means that it comes later."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = "{}:{}".format(*closed.getsockname())
    for p2p in (taken, free):
        assert faults(opened(tmp_path, node={"kind": "kaspad", "p2p": p2p})) == []


def test_a_port_in_time_wait_and_one_that_is_only_dialled_from_are_free(tmp_path: Path) -> None:
    """As after a restart: our listeners set SO_REUSEADDR."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint(*server.getsockname())
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.close()  # the side that closes first waits
    client.close()
    assert faults(opened(tmp_path, bridge={"listen": [str(endpoint)]})) == []


def test_another_bridge_on_the_port_is_seen_though_it_shares(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = Endpoint(*other.getsockname())
        [fault] = faults(opened(tmp_path, bridge={"listen": [str(endpoint)]}))
    assert "in use already" in fault


def test_looking_hinders_nobody(tmp_path: Path) -> None:
    """No backlog, no TIME_WAIT: right after the look the port can be had, without any option."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint(*server.getsockname())
    found = opened(tmp_path, bridge={"listen": [str(endpoint)]})
    assert faults(found) == []
    with socket.socket() as strict:
        strict.bind((endpoint.host, endpoint.port))


# --- files


def test_a_state_directory_is_made_where_its_parent_can_be_written(tmp_path: Path) -> None:
    assert faults(opened(tmp_path, state={"dir": str(tmp_path / "a" / "b" / "c")})) == []
    assert not (tmp_path / "a").exists()


def test_places_that_the_user_may_not_write(tmp_path: Path) -> None:
    """Root may write anywhere: it becomes another user, once all modules are loaded."""
    document = declaration(
        tmp_path, "box", state={"dir": "/no-such-place"}, identity={"key": "/no-such/key"}
    )
    code = (
        "import os, sys; from appliance.cli.main import main\n"
        "main(['validate', '--machine', 'box.yaml'])\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print('--', file=sys.stderr)\n"
        "sys.exit(main(['validate', '--machine', 'box.yaml']))"
    )
    written(tmp_path, document)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(tmp_path),
    )
    assert done.returncode == 1
    why = "cannot be made: / is not writable by the user that runs this"
    told = done.stderr.rpartition("--\n")[2]
    assert sorted(line.partition(": ")[2] for line in told.splitlines()) == [
        f"identity.key: /no-such/key cannot be made: /no-such {why}",
        f"state.dir: /no-such-place {why}",
    ]


def test_a_key_that_others_may_read(tmp_path: Path) -> None:
    key = tmp_path / "identity.key"
    key.write_bytes(b"key")
    key.chmod(0o644)
    [fault] = faults(opened(tmp_path, identity={"key": str(key)}))
    assert fault == (
        f"identity.key: {key}: the identity key can be read by others (mode 644) (chmod 600 {key})"
    )
    key.chmod(0o600)
    assert faults(opened(tmp_path, identity={"key": str(key)})) == []


def test_what_stands_in_the_way_of_the_control_socket(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    [fault] = faults(opened(tmp_path, control={"socket": str(tmp_path / "control.sock")}))
    assert fault == f"control.socket: {tmp_path}/control.sock is in the way, and is no socket"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    [fault] = faults(opened(tmp_path, control={"socket": str(shared / "control.sock")}))
    assert "everybody may write to" in fault
    shared.chmod(0o777 | stat.S_ISVTX)
    assert faults(opened(tmp_path, control={"socket": str(shared / "control.sock")})) == []


def test_our_own_group_may_be_given_the_socket(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid()).gr_name
    assert faults(opened(tmp_path, control={"group": group})) == []


def test_an_appliance_that_runs_already(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "control.sock"
    sections = {"control": {"socket": str(path)}, "metrics": {"listen": taken}}
    with SocketFile(path, None):
        found = opened(tmp_path, **sections)
        assert is_running(found.declaration)
        message = f"control.socket: an appliance is running with {path}; stop it first"
        assert message in faults(found)
        # `validate --machine` looks at what would be after a restart.
        assert faults(found, beside_running=True) == []
    assert not is_running(found.declaration)
    [fault] = faults(found, beside_running=True)
    assert fault.startswith("metrics.listen")


def test_the_socket_of_a_dead_appliance_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert faults(opened(tmp_path, control={"socket": str(path)})) == []
    assert path.is_socket()


# --- the plan and the machine


def smaller(**fields: Any) -> Machine:
    return dataclasses.replace(ROOMY, **fields)


def test_a_plan_for_a_larger_machine(tmp_path: Path) -> None:
    machine = smaller(cores=1, memory_bytes=2**30, memory_limit=2**30)
    assert faults(opened(tmp_path), machine) == [
        "hardware.profile: x86-medium is larger than this machine: 7.5 GiB of memory, and "
        "1 GiB are here; write 'detect', or x86-small",
    ]


def test_fewer_cores_than_planned_are_slow_and_no_fault(tmp_path: Path) -> None:
    assert faults(opened(tmp_path), smaller(cores=1)) == []


def test_firmware_may_keep_a_little_of_the_memory(tmp_path: Path) -> None:
    memory = CATALOGUE["x86-medium"].memory_bytes
    for part, well in ((95, True), (85, False)):
        left = memory * part // 100
        assert (
            faults(opened(tmp_path), smaller(memory_bytes=left, memory_limit=left)) == []
        ) == well


def test_an_override_is_held_against_the_machine_too(tmp_path: Path) -> None:
    hardware = {"profile": "x86-medium", "override": {"memory_bytes": 2**36}}
    machine = smaller(memory_bytes=2**34, memory_limit=2**34)
    [fault] = faults(opened(tmp_path, hardware=hardware), machine)
    assert fault.startswith(
        "hardware.override.memory_bytes: x86-medium, changed is larger than this machine"
    )


def test_too_few_open_files(tmp_path: Path) -> None:
    found = opened(tmp_path)
    wanted = planned(found).unit["LimitNOFILE"]
    assert faults(found, smaller(nofile=wanted)) == []
    [fault] = faults(found, smaller(nofile=wanted - 1))
    assert fault == (
        f"hardware.profile: this process may open at most {wanted - 1} files, and the plan counts "
        f"on {wanted}: raise LimitNOFILE, or plan with fewer"
    )


def test_our_own_unit_s_limit_is_no_smaller_machine(tmp_path: Path) -> None:
    """Under MemoryMax of the plan that is all that is seen, rounded down to whole pages."""
    found = opened(tmp_path)
    most = planned(found).unit["MemoryMax"]
    assert faults(found, smaller(memory_limit=most - most % resource.getpagesize())) == []
    [fault] = faults(found, smaller(memory_limit=most - 2**20))
    assert "a control group grants" in fault


def test_a_plan_for_this_machine_fits_this_machine(tmp_path: Path) -> None:
    done = typed(
        tmp_path, "validate", "--machine", str(written(tmp_path, declaration(tmp_path, "box")))
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/box.yaml: ok (box, simnet, on this machine)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["box.yaml"]


# --- the limit of open files


def in_a_process(soft: int, hard: int, wanted: int) -> dict[str, Any]:
    """What `raise_nofile` does to a process that was started with those limits."""
    code = (
        "import json, resource, sys\n"
        "from appliance.errors import ApplianceError\n"
        "from appliance.startup import raise_nofile\n"
        "soft, hard, wanted = map(int, sys.argv[1:])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        "try: raise_nofile(wanted); error = None\n"
        "except ApplianceError as caught: error = caught.message\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "print(json.dumps({'limits': limits, 'error': error}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, (soft, hard, wanted))],
        capture_output=True,
        text=True,
        check=True,
        env=environment(Path.cwd()),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_soft_limit_is_raised_to_what_the_plan_counts_on() -> None:
    assert in_a_process(256, 2000, 1500) == {"limits": [1500, 2000], "error": None}
    assert in_a_process(256, 2000, 2000) == {"limits": [2000, 2000], "error": None}


def test_a_limit_that_is_higher_stays() -> None:
    assert in_a_process(1800, 2000, 1500) == {"limits": [1800, 2000], "error": None}


def test_beyond_the_hard_limit_it_is_refused() -> None:
    assert in_a_process(256, 1000, 1500) == {
        "limits": [256, 1000],
        "error": "this process may open at most 1000 files, and the plan counts on 1500",
    }
