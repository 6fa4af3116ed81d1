"""How we judge: suites, scorers, statistics, gate, report. Knows no Dagster."""
