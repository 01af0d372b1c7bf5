"""The `pyswarm` command: a client of the control API, of pyswarmd and of the local runtime. Imports `proto` only."""
