"""Backbones: each file defines `BACKBONE` and is named after it."""
