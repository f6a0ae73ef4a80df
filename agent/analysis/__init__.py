"""Numbers from runs: qualities, configurations, intervals, fronts, effects, the choice."""
