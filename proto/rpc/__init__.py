"""The edge of gRPC: channels, servers, TLS, interceptors (deadline, caller identity, access, error mapping).

`tls` makes credentials from a node's certificates; `server` builds the three doors of a daemon; `access` reads who may
call what from the proto files; `forward` brings calls to the leader; `client` opens channels and turns statuses
back into `SwarmError`s. What a call means does not belong here.
"""
