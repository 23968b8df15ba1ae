"""Step 5: curves, each computed once, and the tables made of them."""
