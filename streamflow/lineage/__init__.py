"""Lineage by OpenLineage (https://openlineage.io): which data comes from which, down to columns, and which
run has made how many rows of it.

Off unless ``OPENLINEAGE_URL`` is set: `runs` imports OpenLineage's client only then.
"""
