"""The parts of `pyswarmd`: which daemons a node runs, and how a node joins and leaves a cluster.

Standard library only, and nothing that starts slowly: the supervisor must start whatever is wrong with the rest.
"""
