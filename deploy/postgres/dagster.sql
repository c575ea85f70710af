-- Dagster keeps its runs and events beside StreamFlow's tables, in a database of its own.
CREATE DATABASE dagster;
