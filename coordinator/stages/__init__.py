"""The pipeline's stages, one small class each; coordinator/pipeline.py orders them."""
