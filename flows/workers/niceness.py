"""Workers that give way: at a lower priority than other processes that want the same cores.

A priority is relative to the processes of the same scheduling group. Linux may put every terminal session into
a group of its own and give each group the same share, in which case a priority inside a group means nothing to
a training run in another terminal. So these workers start a session of their own and lower that session's
group, too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")


def give_way(niceness: int) -> None:
    """Makes this process, all its threads, and what they start give way; leaves the terminal's session.

    Args:
      niceness: 1 to 19, the least favoured.
    """
    with contextlib.suppress(PermissionError):  # it leads a group already
        os.setsid()
    if sys.platform != "linux":
        os.nice(niceness)
        return
    for thread in os.listdir("/proc/self/task"):  # Linux: a priority is a thread's
        os.setpriority(os.PRIO_PROCESS, int(thread), niceness)
    with contextlib.suppress(OSError):  # no such groups here
        AUTOGROUP.write_text(str(niceness))
