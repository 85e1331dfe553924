"""The equations, on arrays."""
