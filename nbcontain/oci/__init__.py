"""The documents of the OCI specifications as frozen values: no files, no sockets."""
