"""Releases of the example stream by one contract and by another. The first one leaves its windows open."""

from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from pydantic import Field

import quick_windows
from streamflow.streams.user_events import UserEvent

assert quick_windows.USER_EVENTS.event_counts is not None


class Stricter(UserEvent):
    id: Annotated[int, Field(ge=0, lt=100)]


QUICK = quick_windows.USER_EVENTS
STRICT = replace(QUICK, contract=Stricter)
_OPEN = replace(quick_windows.USER_EVENTS.event_counts, idle=timedelta(hours=1))
PATIENT = replace(QUICK, windows=_OPEN)
PATIENT_STRICT = replace(STRICT, windows=_OPEN)
