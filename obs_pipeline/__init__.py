"""Cost, anomalies and budgets of fleets of AI agents, as a Dagster project. ``ARCHITECTURE.md`` is the map."""
