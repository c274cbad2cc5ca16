"""Cluster files, checked offline: what they promise, which traps are in them, what they cost. No Ray."""
