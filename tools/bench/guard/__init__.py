"""This checkout against an earlier one on the same machine, taking turns."""
