"""Adaptation to cameras without labels: clusters in place of identities, and the memory that is trained against."""
