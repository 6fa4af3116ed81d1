"""The work, and how it is composed: products, recipes, stages, wiring, command line, Dagster definitions."""
