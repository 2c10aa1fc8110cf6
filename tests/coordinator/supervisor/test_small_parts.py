"""Back-off, logs, environment, commands, resolving, run files: without processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from coordinator.supervisor import commands
from coordinator.supervisor.backoff import Backoff, BackoffConfig
from coordinator.supervisor.environment import child_environment
from coordinator.supervisor.logs import LogLimits, rotate_if_large, tail
from coordinator.supervisor.ports import port_is_free, require_free
from coordinator.supervisor.resolve import anchor_paths, port_of, with_addresses, write_rig
from coordinator.supervisor.rundir import NodeRecord, RigState, RunDir
from coordinator.supervisor.specs import node_specs
from ragschema.errors import InvalidInput, Unavailable
from ragschema.rig import RigConfig, load_rig, parse_rig


def test_backoff_doubles_to_its_bound_and_forgets_after_health() -> None:
    backoff = Backoff(BackoffConfig())
    waits = [backoff.after_crash_s(1.0) for _ in range(9)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]
    assert backoff.after_crash_s(59.9) == 30.0
    assert backoff.after_crash_s(60.0) == 0.2
    assert backoff.after_crash_s(0.0) == 0.4


def test_large_log_moves_aside_under_its_writer(tmp_path: Path) -> None:
    log, limits = tmp_path / "n.log", LogLimits(max_bytes=10, keep=2)
    with log.open("ab") as writer:
        for text in (b"first life!!\n", b"second life!!\n", b"third life!!\n"):
            writer.write(text)
            writer.flush()
            assert rotate_if_large(log, limits)
        writer.write(b"end\n")
    assert log.read_bytes() == b"end\n"
    assert (tmp_path / "n.log.1").read_bytes() == b"third life!!\n"
    assert (tmp_path / "n.log.2").read_bytes() == b"second life!!\n"
    assert not (tmp_path / "n.log.3").exists()
    assert not rotate_if_large(log, limits)
    assert not rotate_if_large(tmp_path / "none.log", limits)


def test_tail_gives_the_last_lines_of_any_bytes(tmp_path: Path) -> None:
    log = tmp_path / "n.log"
    log.write_bytes(b"\xff\n" + b"x\n" * 100 + b"last")
    assert tail(log, lines=2) == "x\nlast"
    assert tail(tmp_path / "none.log") == ""


def test_children_are_calm_and_offline() -> None:
    env = child_environment(3, {"PATH": "/bin", "OMP_NUM_THREADS": "64"})
    assert env["PATH"] == "/bin"
    assert {env[n] for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")} == {"3"}
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["HF_HUB_OFFLINE"] == "1"


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_node_commands_carry_the_rig(tmp_path: Path) -> None:
    rig = parse_rig(
        """
llm_nodes: [{name: llm, roles: [embed, generate], generator: "openai:http://h/v1#m",
             api_key_env: KEY, threads: 2, max_running: 3, max_waiting: 4}]
retrieval_nodes: [{name: near, backend: faiss, threads: 5, max_waiting: 6, port: 7100},
                  {name: far, address: "h:1"}]
""",
        "test",
        tmp_path,
    )
    run = RunDir.of(rig.data_dir)
    specs = {s.name: s for s in node_specs(rig, run, commands.Programs())}
    assert set(specs) == {"llm", "near"}
    llm = specs["llm"].command(0)
    assert llm[1:4] == ("-m", "llm_node", "serve")
    assert option(llm, "--roles") == "embed,generate"
    assert option(llm, "--generator") == "openai:http://h/v1#m"
    assert option(llm, "--api-key-env") == "KEY"
    assert [option(llm, o) for o in ("--threads", "--max-running", "--max-waiting")] == [
        "2",
        "3",
        "4",
    ]
    near = specs["near"].command(7100)
    assert near[1:4] == ("-m", "retrieval_node", "serve")
    assert option(near, "--data") == rig.data_dir
    assert option(near, "--port") == "7100"
    assert option(near, "--backend") == "faiss"
    assert option(near, "--ready-file") == str(run.ready_file("near"))
    assert option(near, "--parent-pid") == str(os.getpid())


def test_key_file_reaches_the_coordinator(tmp_path: Path) -> None:
    rig = parse_rig("coordinator: {api_key_file: keys/k}", "test", tmp_path)
    rig = anchor_paths(rig, tmp_path)
    argv = commands.coordinator_command(commands.Programs(), rig, RunDir.of(rig.data_dir))
    assert option(argv, "--api-key-file") == str(tmp_path / "keys" / "k")
    bare = commands.coordinator_command(commands.Programs(), RigConfig(), RunDir.of(tmp_path))
    assert "--api-key-file" not in bare


def test_model_folders_are_relative_to_the_rig_file(tmp_path: Path) -> None:
    text = "llm_nodes: [{name: a, embedder: models/e, generator: 'hf:../g'}, {name: b}]"
    anchored = anchor_paths(parse_rig(text, "test", tmp_path), tmp_path).llm_nodes
    assert anchored[0].embedder == str(tmp_path / "models" / "e")
    assert anchored[0].generator == f"hf:{tmp_path.parent / 'g'}"
    assert (anchored[1].embedder, anchored[1].generator) == ("minilm", "extractive")


def test_resolved_rig_reads_back_equal(tmp_path: Path) -> None:
    rig = parse_rig("coordinator: {port: 0}", "test", tmp_path)
    addresses = {"llm-0": "127.0.0.1:1", "ret-0": "127.0.0.1:2", "ret-1": "[::1]:3"}
    resolved = with_addresses(rig, addresses, 4)
    write_rig(tmp_path / "r.yaml", resolved)
    assert load_rig(tmp_path / "r.yaml") == resolved
    assert resolved.coordinator.port == 4
    assert port_of("[::1]:3") == 3


def test_taken_port_names_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
        with pytest.raises(Unavailable, match=str(port)) as caught:
            require_free("ret-0", "ret-0.port", "127.0.0.1", port)
    assert "port: 0" in (caught.value.hint or "")
    assert port_is_free("127.0.0.1", port)


STATE = RigState(1, "127.0.0.1:8", (NodeRecord("far", "retrieval", "h:1", None),))


def test_state_is_only_believed_while_the_lock_is_held(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path)
    assert run.read_state() is None
    run.create()
    run.write_state(STATE)
    assert run.read_state() is None
    with run.locked():
        assert run.read_state() == STATE
        run.state_file.write_text('{"pid": 1}')
        assert run.read_state() is None
    assert not run.is_held()


def test_unwritable_data_dir_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write") as caught:
        RunDir.of(tmp_path / "file").create()
    assert caught.value.field == "data_dir"
