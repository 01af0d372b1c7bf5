"""Names and numbers of Linux signals, as people write them (pure)."""

import re
from typing import Final

SIGNALS: Final = frozenset(
    """HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN
    TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS RTMIN RTMAX""".split()  # noqa: SIM905
)
"""Names of Linux signals, without SIG."""

_REALTIME_SIGNAL = re.compile(r"RTM(?:IN\+|AX-)([0-9]{1,2})")


def is_signal(text: str) -> bool:
    """Return whether `text` names a signal, with or without SIG, or is the number of one."""
    if text.isdecimal():
        return 1 <= int(text) <= 64
    name = text.upper().removeprefix("SIG")
    realtime = _REALTIME_SIGNAL.fullmatch(name)
    return name in SIGNALS or (realtime is not None and int(realtime[1]) <= 30)
