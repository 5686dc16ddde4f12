"""Backbones: each file defines `BACKBONE`, and its name is the name of the backbone."""
