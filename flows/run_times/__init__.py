"""Steps 2 and 3: timings of configurations, and the model of them."""
