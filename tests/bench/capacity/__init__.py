"""The real daemon under the limits of its plan, loaded to its caps, and the cost of one of each."""
