"""The front door, and everything that needs both ends on one machine."""
