"""Links, addresses, names and ports of containers: networks as values, and the processes that make them real."""
