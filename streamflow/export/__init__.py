"""Exports: the events of a day as a file that says which records it covers, and the proof that file and
table agree."""
