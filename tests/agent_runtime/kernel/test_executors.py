"""The C executor and the one in Python do the same: every case of `lib/executor_cases.py` with either."""

import struct
import subprocess
import sys

import pytest
from lib import executor_cases

from pyswarm.agent_runtime.kernel import executor
from pyswarm.agent_runtime.kernel.program import HEADER, OPERATION, POINTER, Writer

pytestmark = pytest.mark.kernel

needs_native = pytest.mark.skipif(not executor.HAS_NATIVE, reason="the C executor was not built: no compiler")


@pytest.mark.parametrize("kind", ["python", pytest.param("native", marks=needs_native)])
@pytest.mark.parametrize("case", executor_cases.CASES)
def test_both_executors(case: str, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, executor_cases.__file__, case, kind], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def _with_one_call(**changes: int) -> bytes:
    """Encode a program of one call, with fields of that call changed behind the writer's back."""
    w = Writer()
    w.call("chdir", w.text("/"), label="enter")
    encoded = bytearray(w.finish().encode())
    names = ("number", "save", "skip", "kinds", "pad", "first")
    fields = dict(zip(names, OPERATION.unpack_from(encoded, HEADER.size), strict=False))
    rest = OPERATION.unpack_from(encoded, HEADER.size)[6:]
    fields |= {name: bytes([value, *bytes(5)]) if name == "kinds" else value for name, value in changes.items()}
    OPERATION.pack_into(encoded, HEADER.size, *fields.values(), *rest)
    return bytes(encoded)


def _with_a_pointer(place: int, target: int) -> bytes:
    w = Writer()
    w.strings(["one"])
    encoded = bytearray(w.finish().encode())
    POINTER.pack_into(encoded, HEADER.size, place, target)
    return bytes(encoded)


@needs_native
@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(_with_one_call(save=256), id="a slot to save in that there is not"),
        pytest.param(_with_one_call(kinds=2, first=256), id="a slot to read that there is not"),
        pytest.param(_with_one_call(kinds=2, first=-1), id="a negative slot"),
        pytest.param(_with_one_call(kinds=1, first=1000), id="data beyond the data"),
        pytest.param(_with_a_pointer(1000, 0), id="a pointer placed beyond the data"),
        pytest.param(_with_a_pointer(0, 1000), id="a pointer to beyond the data"),
        pytest.param(_with_one_call()[:-1], id="cut short"),
        pytest.param(_with_one_call() + b"x", id="too long"),
        pytest.param(struct.pack("=3I", 1, 2, 3), id="not even a header"),
    ],
)
def test_the_c_executor_refuses_a_program_that_points_out_of_itself(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="start program"):
        executor.clone(encoded, [], into_cgroup=None, native=True)


@needs_native
def test_the_c_executor_refuses_more_descriptors_than_slots() -> None:
    with pytest.raises(ValueError, match="descriptors"):
        executor.clone(_with_one_call(), [0] * 255, into_cgroup=None, native=True)
