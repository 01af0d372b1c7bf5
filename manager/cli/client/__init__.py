"""The command line's edges: the control API, pyswarmd's socket, this machine's addresses."""
