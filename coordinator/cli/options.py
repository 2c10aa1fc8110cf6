"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Rig file; without it the default rig.", metavar="RIG.YAML"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of collections and run files, in place of the rig file's."
        " Default: ragrig-data.",
        metavar="DIR",
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Coordinator to ask, such as http://127.0.0.1:8080."
        " Without it RAGRIG_URL, then the rig that runs on the data directory.",
        metavar="URL",
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help="File with the API key. Without it RAGRIG_API_KEY_FILE, then the running rig's own.",
        metavar="FILE",
    ),
]
Collection = Annotated[
    str | None,
    typer.Option(
        "--collection",
        help="Collection to search; may be left out when there is just one.",
        metavar="NAME",
    ),
]
K = Annotated[int, typer.Option("-k", "--k", help="Passages to retrieve.", min=1, max=1024)]
Recall = Annotated[
    float | None,
    typer.Option(
        "--recall",
        help="Share of the true nearest passages to reach, such as 0.95;"
        " needs an index that was measured (`ragrig index tune`).",
        min=0.01,
        max=1.0,
    ),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        help="Condition on metadata: key=value, key!=value, key>=value, key<value and so on."
        " May be repeated; all must hold, several key=... of one key are alternatives.",
        metavar="CONDITION",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the server's JSON answer.")]
