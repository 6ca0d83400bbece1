"""A labelled fleet of AI agents: invented usage whose incidents are known, for tests, benchmarks and demos.

Holds the world (agents and rhythms), the incidents put into it, and the writing of its files. Nothing here
detects, aggregates or prices for the pipeline, and nothing in the pipeline depends on it.
"""

from obs_pipeline.usage.simulation.config import SimulationConfig, SimulationError, SimulationSummary
from obs_pipeline.usage.simulation.run import simulate

__all__ = ["SimulationConfig", "SimulationError", "SimulationSummary", "simulate"]
