"""The larger model of the comparison: a CNN where the model is the cost, not the framework."""
