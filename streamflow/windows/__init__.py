"""Windows by event time: their declarations, and how events are counted in them."""
