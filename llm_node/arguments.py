"""The options of ``serve``, with their bounds and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_node.config import EmbedDtype

Name = Annotated[str, typer.Option(help="Name in messages and in status.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")]
Roles = Annotated[
    str,
    typer.Option(help="embed, generate, prefill, decode, rerank, rewrite; several with commas."),
]
EmbedderRef = Annotated[
    str, typer.Option(help="minilm, or the directory of a sentence-embedding model.")
]
EmbedderDtype = Annotated[EmbedDtype, typer.Option(help="Of the embedder's weights and layers.")]
GeneratorRef = Annotated[str, typer.Option(help="extractive, hf:DIR or openai:URL[#MODEL].")]
RerankerRef = Annotated[
    str | None, typer.Option(help="Directory of a cross-encoder, for the role rerank.")
]
RewriteTemplate = Annotated[
    str | None, typer.Option(help="File with the prompt of the role rewrite; default: our own.")
]
RewriteTokens = Annotated[
    int, typer.Option(min=1, max=4096, help="Tokens that one question's queries may have.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="The rig's data directory, for the role index_scan.")
]
ApiKeyEnv = Annotated[
    str | None, typer.Option(help="Environment variable with the upstream server's API key.")
]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="CPU threads of a model.")]
Shares = Annotated[
    str,
    typer.Option(help="Of a device's time, such as generate=3,embed=1; roles not named have 1."),
]
KvMib = Annotated[
    int | None, typer.Option(min=1, help="KV cache in MiB; default: a share of free memory.")
]
EngineText = Annotated[
    str,
    typer.Option(help="Of hf:DIR, such as step_tokens=256,dtype=bfloat16; see docs/operations.md."),
]
MaxRunning = Annotated[int, typer.Option(min=1, max=1024, help="Generations under way at once.")]
MaxWaiting = Annotated[
    int, typer.Option(min=1, max=65536, help="Requests of a kind that may wait.")
]
ReadyFile = Annotated[
    Path | None, typer.Option(help="Written with the address once the node serves.")
]
ParentPid = Annotated[int | None, typer.Option(help="Stop when this process ends.")]
LogLevel = Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", metavar="LEVEL")]
