def clone(
    program: bytes,
    descriptors: list[int],
    into_cgroup: int,
    gate: int,
    gate_write: int,
    report: int,
    shares_memory: bool,
    others_from: int,
    /,
) -> int: ...
def keep_from_children() -> None: ...
