"""A progress bar on stderr: one line that is redrawn on a terminal, a plain line now and then elsewhere."""

import shutil
import sys
import time

LINES_WITHOUT_TERMINAL = 10


class Progress:
    def __init__(self, name, first, last, quiet=False):
        self.name, self.first, self.last, self.quiet = name, first, last, quiet
        self.terminal = sys.stderr.isatty()
        self.every = max(1, last // LINES_WITHOUT_TERMINAL)
        self.start = time.monotonic()

    def show(self, step, text):
        """After `step` steps, with `text` about the latest."""
        if self.quiet:
            return
        if self.terminal:
            # A line that wraps could not be redrawn.
            line = self._line(step, text, bar=True)[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()
        elif step % self.every == 0 or step == self.last:
            print(self._line(step, text, bar=False), file=sys.stderr, flush=True)

    def end(self):
        """Leaves the bar as it is and goes to the next line."""
        if self.terminal and not self.quiet:
            sys.stderr.write("\n")

    def _line(self, step, text, bar):
        seconds = time.monotonic() - self.start
        left = seconds / max(1, step - self.first) * (self.last - step)
        filled = 8 * step // self.last
        drawing = f"[{'=' * filled}{' ' * (8 - filled)}] " if bar else ""
        return f"{self.name:<4} {drawing}{step}/{self.last}  {left:.0f} s left  {text}"
