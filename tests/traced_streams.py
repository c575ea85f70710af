"""The example stream, whose rows keep the traces of their records."""

from dataclasses import replace

import quick_windows

USER_EVENTS = replace(quick_windows.USER_EVENTS, trace=True)
STREAMS = "traced_streams:USER_EVENTS"
