"""Real stacks whose servers fail, and guests that send too much: accepted work is not lost."""
