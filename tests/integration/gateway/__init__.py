"""A gateway in this process on real servers, tried over real sockets."""
