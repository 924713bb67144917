"""HTTP/1.1 on a TCP connection: from bytes to ASGI requests, with each limit checked before its cost."""
