"""HTTP/1.1 on a TCP connection: from bytes to ASGI requests, with every limit before its cost."""
