"""From a spec to processes: bundles, the zygote, supervisors, and what becomes a container's first process."""
