"""The wire protocol, version 1: `*.proto` and the code generated from them (`make build`)."""
