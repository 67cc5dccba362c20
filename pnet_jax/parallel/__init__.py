"""Devices: the mesh, and where each array lives on it."""
