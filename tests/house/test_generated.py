"""Generated files are committed and fresh: each generator is run and compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.house.tree import ROOT


def test_the_schema_is_what_the_types_say() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "appliance.declaration.schema"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    committed = ROOT / "schemas" / "appliance.v1.schema.json"
    assert committed.read_bytes() == made.stdout, "stale: run `make schema`"


def test_the_protobuf_code_is_what_the_proto_files_say(tmp_path: Path) -> None:
    sources = sorted((ROOT / "proto").glob("*.proto"))
    outputs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=proto", *outputs]
    subprocess.run([*command, *(source.name for source in sources)], cwd=ROOT, check=True)
    committed = ROOT / "appliance" / "wire" / "pb"
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in committed.glob("*_pb2.py*")}
    assert made == there, "stale: run `make proto`"
