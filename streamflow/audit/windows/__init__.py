"""Whether windows tell what the events tell (G5): counts, and what aggregates compute."""
