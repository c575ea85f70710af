"""Python's cyclic garbage collector, in processes that handle many records."""

import gc

# Objects more than there were, until the collector looks at the young ones. A batch is tens of
# thousands of records that die together and hold no cycles: by default it is walked some 70 times
# while it is read.
_YOUNG = 100_000
# Looks at the young until one at the older, and of those until one at all.
_OLDER = 20
_ALL = 100


def settle() -> None:
    """Called once all is made that lives as long as the process: what comes after is small and dies
    young, so that the collector need not walk the modules, and seldom the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _ALL)
