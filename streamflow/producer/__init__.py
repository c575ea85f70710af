"""Sending events from Python: `Producer` and `AsyncProducer`, and the checks that all that sends shares."""
