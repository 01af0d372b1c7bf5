"""The container runtime: images, snapshots and containers of one node, served over gRPC on a unix socket."""
