"""A lab cluster on one machine: hosts made of namespaces, running the very daemons a machine would run."""
