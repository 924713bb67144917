"""The rights that owners have lost since their work was accepted."""
