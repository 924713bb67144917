"""A real stack, tested through its public interface."""
