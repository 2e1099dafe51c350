"""The client: trains on data that stays where it is, and submits what changed."""
