"""The kernel: its calls, id maps, mounts and confinement. Knows nothing of containers."""
