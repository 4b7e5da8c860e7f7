"""How long tests wait for what must come: limits are for what hangs, and never for what is slow on a busy machine."""

PATIENCE = 1800.0  # seconds
