"""The gateway: the public HTTP, WebSocket and SSE interface of Tickwire."""
