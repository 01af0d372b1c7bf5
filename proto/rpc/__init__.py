"""The edge of gRPC: channels, servers, TLS, interceptors (deadline, caller identity, access, error mapping)."""
