"""Fixtures of pytest for projects that use StreamFlow: a real broker, a real database and running workers."""
