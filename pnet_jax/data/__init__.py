"""Reading, building and feeding data sets."""
