"""Shows progress on standard output: redrawn in place on a terminal, line by line elsewhere."""

import shutil
from collections.abc import Sequence
from typing import TextIO

from pyswarm.manager.cli.progress.bars import bars, news
from pyswarm.manager.cli.progress.convergence import Progress


class Reporter:
    def __init__(self, out: TextIO, *, is_quiet: bool = False) -> None:
        self._out = out
        self._is_quiet = is_quiet
        self._is_terminal = out.isatty()
        self._lines: list[str] = []
        self._told: dict[str, Progress] = {}

    def show(self, progresses: Sequence[Progress]) -> None:
        """Show how far each service is now; the same state twice shows nothing new."""
        if self._is_quiet:
            return
        if self._is_terminal:
            self._redraw(progresses)
        else:
            for progress in progresses:
                for line in news(self._told.get(progress.name), progress):
                    self._out.write(f"{line}\n")
                self._told[progress.name] = progress
        self._out.flush()

    def _redraw(self, progresses: Sequence[Progress]) -> None:
        size = shutil.get_terminal_size()
        lines = bars(progresses, width=size.columns, height=size.lines)
        if lines == self._lines:
            return
        # Up to the first of our lines, then erase to the end of the screen.
        back = f"\x1b[{len(self._lines)}A\x1b[J" if self._lines else ""
        self._out.write(back + "".join(f"{line}\n" for line in lines))
        self._lines = lines
