"""The object model as frozen records: specs (wishes), objects (what is stored), states, resources.

Pure: no I/O, no clock, no protobuf. Field names equal those of `proto/v1/types.proto`. Records hold only
other records, tuples, numbers, text and maps of text, so they can never be part of a cycle: `gc=False` keeps
a million of them out of the garbage collector's way.
"""
