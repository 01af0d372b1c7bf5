"""Compose files (version 3, with `deploy:`) to service specs. Pure: text in, specs or an error with its line out.

    document.py       YAML text → a tree that knows its places
    interpolation.py  $VARIABLES
    merge.py          several files → one tree
    reader.py         typed access to the tree, every complaint with file:line:column
    vocabulary.py     which keys exist, and what becomes of those we do not carry out
    service.py, deploy.py, endpoints.py, payloads.py   one section each → model
    parse.py          all of it together: `parse_stack`

Reading files and the environment is the command line's business. What the store accepts is checked by
`proto/codec/validate.py`, also for services that do not come from a file.
"""

from pyswarm.proto.codec.stack_file.parse import StackFile, parse_stack
from pyswarm.proto.codec.stack_file.payloads import StackData

__all__ = ["StackData", "StackFile", "parse_stack"]
