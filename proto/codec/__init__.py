"""Pure translations: model <-> protobuf, stack file -> specs, errors <-> gRPC status."""
