"""StreamFlow in Dagster: topics, tables and rollups as assets, with checks, sensors and schedules."""
