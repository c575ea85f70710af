"""The example stream of tests, with all kinds of private values declared."""

from dataclasses import replace

import quick_windows
from streamflow import CardNumber, PhoneNumber, PrivatePattern

USER_EVENTS = replace(
    quick_windows.USER_EVENTS,
    private_values=(
        PhoneNumber("DE"),
        CardNumber(),
        PrivatePattern("customer number", r"\bKD-[0-9]{6}\b"),
    ),
)
