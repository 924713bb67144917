"""Real stacks whose servers fail, and guests who send too much: what was accepted is not lost."""
