"""What ``ragrig up`` and ``ragrig demo`` show of the nodes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.cli.console import printable, stdout
from coordinator.supervisor.node import NodeState, NodeView
from coordinator.supervisor.readiness import Readiness
from coordinator.supervisor.supervisor import Supervisor


def nodes_table(views: Sequence[NodeView]) -> Table:
    """Name, kind, address and process of every node."""
    table = Table()
    for column in ("node", "kind", "address", "process", "state"):
        table.add_column(column)
    for view in views:
        process = "elsewhere" if view.pid is None else str(view.pid)
        table.add_row(view.name, view.kind, view.address or "-", process, view.state.value)
    return table


class UpView:
    """A line per change of a node, a table once the rig is up."""

    def __init__(self) -> None:
        self._console: Console = stdout()

    def changed(self, view: NodeView) -> None:
        """Tells of starts and crashes; stopping is told once, for all."""
        if view.state is NodeState.STARTING and view.restarts == 0:
            self._say(f"starting {view.name}", "dim")
        elif view.state is NodeState.BACKING_OFF:
            self._say(f"{view.name} {view.note}", "yellow")
        elif view.state is NodeState.READY and view.restarts > 0:
            self._say(f"{view.name} is back at {view.address}", "green")

    def up(self, supervisor: Supervisor, readiness: Readiness) -> None:
        """The table and the URL."""
        self.up_with(supervisor.views(), readiness)

    def up_with(self, views: Sequence[NodeView], readiness: Readiness) -> None:
        """The same for nodes that somebody else supervises."""
        self._console.print(nodes_table(views))
        if readiness.ready:
            self._say(f"ready: {readiness.url}  (interactive API: {readiness.url}/docs)", "green")
        else:
            self._say(f"serving {readiness.url}, but not ready: {readiness.problem}", "yellow")
        self._console.print("Ctrl-C stops everything.")

    def moved(self, text: str, views: Sequence[NodeView]) -> None:
        """Other nodes run than before."""
        self._console.print(nodes_table(views))
        self._say(text, "green")

    def tell(self, text: str) -> None:
        """A line about something that did not go as asked."""
        self._say(text, "yellow")

    def stopped(self) -> None:
        self._console.print("stopped")

    def _say(self, text: str, style: str) -> None:
        self._console.print(Text(printable(text), style=style))
