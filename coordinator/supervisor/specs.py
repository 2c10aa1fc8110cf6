"""Which processes a rig needs here, and which of its nodes run elsewhere."""

from __future__ import annotations

from functools import partial

from coordinator.supervisor import commands as cmd
from coordinator.supervisor.node import NodeSpec, NodeState, NodeView
from coordinator.supervisor.rundir import RunDir
from ragschema.rig import LlmNodeConfig, RetrievalNodeConfig, RigConfig


def llm_spec(node: LlmNodeConfig, run: RunDir, programs: cmd.Programs) -> NodeSpec:
    """An LLM node to start here."""

    def command(port: int) -> tuple[str, ...]:
        return cmd.llm_command(programs, node, port, run)

    return NodeSpec(node.name, "llm", node.host, node.port, node.threads, command, node.cpus)


def _retrieval_spec(
    node: RetrievalNodeConfig, data_dir: str, run: RunDir, programs: cmd.Programs
) -> NodeSpec:
    command = partial(_retrieval_command, programs, node, data_dir, run)
    return NodeSpec(node.name, "retrieval", node.host, node.port, node.threads, command)


def _retrieval_command(
    programs: cmd.Programs, node: RetrievalNodeConfig, data_dir: str, run: RunDir, port: int
) -> tuple[str, ...]:
    return cmd.retrieval_command(programs, node, data_dir, port, run.ready_file(node.name))


def node_specs(rig: RigConfig, run: RunDir, programs: cmd.Programs) -> tuple[NodeSpec, ...]:
    """Every LLM and retrieval node that this machine has to start."""
    llm = [llm_spec(n, run, programs) for n in rig.llm_nodes if n.address is None]
    retrieval = [
        _retrieval_spec(n, rig.data_dir, run, programs)
        for n in rig.retrieval_nodes
        if n.address is None
    ]
    return (*llm, *retrieval)


def coordinator_spec(
    rig: RigConfig, run: RunDir, programs: cmd.Programs, replan: bool = False
) -> NodeSpec:
    """The coordinator; its port stands in the resolved rig file, not on its command line."""

    def command(_port: int) -> tuple[str, ...]:
        return cmd.coordinator_command(programs, rig, run, replan)

    config = rig.coordinator
    return NodeSpec(cmd.COORDINATOR, "coordinator", config.host, config.port, 1, command)


def external_views(rig: RigConfig) -> tuple[NodeView, ...]:
    """Nodes with an address: used, never started."""
    llm = [
        NodeView(n.name, "llm", NodeState.EXTERNAL, n.address, None)
        for n in rig.llm_nodes
        if n.address is not None
    ]
    retrieval = [
        NodeView(n.name, "retrieval", NodeState.EXTERNAL, n.address, None)
        for n in rig.retrieval_nodes
        if n.address is not None
    ]
    return (*llm, *retrieval)
