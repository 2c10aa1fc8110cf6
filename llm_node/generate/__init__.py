"""The generator role: extractive, local checkpoints, OpenAI-compatible servers."""
