"""`pyswarm-oci`: the OCI command line, for containerd, Docker and podman. Needs no daemon: its state is files.

Everything that knows what a config.json means is in `bundle`, everything that calls the kernel in `kernel`; here is
the life of a container that belongs to whoever calls, from `create` to `delete`.
"""
