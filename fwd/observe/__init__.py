"""Events, the walk, metrics, logs and captures: what the datapath shows of itself."""
