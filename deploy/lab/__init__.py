"""A lab cluster on one machine: hosts made of namespaces, running the very daemons a machine would run.

`topology.py` says which hosts a lab has and how they are addressed (pure); `machine.py` is one host;
`switch.py` joins them; `lab.py` brings a cluster up and down and is the library that the end-to-end
tests use; `cli.py` is `pyswarm lab …`. A host is a pid, mount, network, uts and ipc namespace whose first
process is `init.py`: killing that process is pulling the plug. Nothing of the machine's own network is
touched: hosts and registry meet on a bridge in a network namespace of its own.
"""
