"""The embedded stack: broker, database, and the supervisor that runs them and the workers."""
