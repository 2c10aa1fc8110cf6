"""What nodes inherit."""

from __future__ import annotations

from coordinator.supervisor.environment import child_environment


def test_children_are_calm_and_offline() -> None:
    env = child_environment(3, {"PATH": "/bin", "OMP_NUM_THREADS": "64"})
    assert env["PATH"] == "/bin"
    assert {env[n] for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")} == {"3"}
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["GRPC_ENABLE_FORK_SUPPORT"] == "0"
