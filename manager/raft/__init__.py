"""Consensus. The only importer of pysyncobj; everybody else sees `port.Consensus`."""
