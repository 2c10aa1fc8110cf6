"""Command lines carry what the rig says."""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.supervisor import commands
from coordinator.supervisor.resolve import anchor_paths
from coordinator.supervisor.rundir import RunDir
from coordinator.supervisor.specs import node_specs
from ragschema.rig import RigConfig, parse_rig


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
    assert option(llm, "--embedder-dtype") == "float32"
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


def test_an_engine_s_options_reach_its_node(tmp_path: Path) -> None:
    rig = parse_rig(
        """
llm_nodes:
- {name: llm, generator: "hf:m", kv_mib: 64, shares: {generate: 3, embed: 0.5},
   engine: {step_tokens: 256, block_tokens: 32, max_tokens_per_request: 1024, prefix_reuse: false}}
- {name: plain, roles: [embed]}
""",
        "test",
        tmp_path,
    )
    specs = {s.name: s for s in node_specs(rig, RunDir.of(rig.data_dir), commands.Programs())}
    argv = specs["llm"].command(0)
    assert option(argv, "--kv-mib") == "64"
    assert option(argv, "--engine") == (
        "block_tokens=32,max_tokens_per_request=1024,step_tokens=256,prefix_reuse=False"
    )
    assert option(argv, "--shares") == "embed=0.5,generate=3"
    assert "--engine" not in specs["plain"].command(0)
    assert "--shares" not in specs["plain"].command(0)


def test_models_and_prompts_of_other_roles_reach_their_node(tmp_path: Path) -> None:
    rig = parse_rig(
        """
llm_nodes:
- {name: all, roles: [embed, generate, rerank, rewrite, index_scan], generator: "hf:m",
   reranker: cross, rewrite_template: prompt.txt, rewrite_tokens: 64}
- {name: plain, roles: [embed]}
""",
        "test",
        tmp_path,
    )
    rig = anchor_paths(rig, tmp_path)
    specs = {s.name: s for s in node_specs(rig, RunDir.of(rig.data_dir), commands.Programs())}
    argv = specs["all"].command(0)
    assert option(argv, "--reranker") == str(tmp_path / "cross")
    assert option(argv, "--rewrite-template") == str(tmp_path / "prompt.txt")
    assert option(argv, "--rewrite-tokens") == "64"
    assert option(argv, "--data") == rig.data_dir
    assert not {"--reranker", "--rewrite-tokens", "--data"} & set(specs["plain"].command(0))


def test_a_simd_node_s_command_carries_its_placement_and_limits(tmp_path: Path) -> None:
    rig = parse_rig(
        """
retrieval_nodes:
- {name: full, backend: simd, mode: contract16, threads: 2, cpus: [0, 3], numa_node: 0,
   memory: huge, tables: card, coalesce: {max_batch: 64, max_wait_us: 50}}
- {name: bare, backend: simd}
""",
        "test",
        tmp_path,
    )
    run = RunDir.of(rig.data_dir)
    specs = {s.name: s for s in node_specs(rig, run, commands.Programs())}
    full, bare = specs["full"].command(0), specs["bare"].command(0)
    wanted = {
        "--mode": "contract16",
        "--tables": "card",
        "--cpus": "0,3",
        "--numa-node": "0",
        "--memory": "huge",
        "--coalesce-max-batch": "64",
        "--coalesce-max-wait-us": "50",
    }
    assert {name: option(full, name) for name in wanted} == wanted
    assert not {"--mode", "--tables", "--cpus", "--numa-node"} & set(bare)
    assert option(bare, "--memory") == "map"
    assert option(bare, "--coalesce-max-batch") == "256"


def test_key_file_reaches_the_coordinator(tmp_path: Path) -> None:
    rig = parse_rig("coordinator: {api_key_file: keys/k}", "test", tmp_path)
    rig = anchor_paths(rig, tmp_path)
    argv = commands.coordinator_command(commands.Programs(), rig, RunDir.of(rig.data_dir))
    assert option(argv, "--api-key-file") == str(tmp_path / "keys" / "k")
    bare = commands.coordinator_command(commands.Programs(), RigConfig(), RunDir.of(tmp_path))
    assert not {"--api-key-file", "--replan"} & set(bare)


def test_the_coordinator_is_told_where_re_planning_is_set(tmp_path: Path) -> None:
    run = RunDir.of(tmp_path)
    argv = commands.coordinator_command(commands.Programs(), RigConfig(), run, replan=True)
    assert option(argv, "--replan") == str(run.replan_file)
