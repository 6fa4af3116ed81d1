"""The steps of the line as plain functions over protocols. Knows no Dagster."""
