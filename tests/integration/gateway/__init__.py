"""A gateway in this process on real servers, tested over real sockets."""
