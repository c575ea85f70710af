"""How long to wait before the next try, by how often it has failed."""

import tenacity

_PAUSES = tenacity.wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.3)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row, 1 for the first."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failures
    return _PAUSES(state)
