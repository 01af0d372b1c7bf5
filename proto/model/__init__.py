"""The object model as frozen records: specs (wishes), objects (what is stored), states, resources.

Pure: no I/O, no clock, no protobuf. Field names equal those of `proto/v1/types.proto`.
"""
