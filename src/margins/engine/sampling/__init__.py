"""Statistics estimated from drawn candidates."""
